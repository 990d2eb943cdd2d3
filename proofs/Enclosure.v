(** Quadratic enclosures of remainders: they add up, the sum has a bound over a region, and a cut where that is not
    positive. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base Duality SpectralGap TrustRegion.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Sum.
Variables (R : realFieldType) (d n : nat).

(** [kappa + g.y + y.Q y / 2], the quadratic upper bound. *)
Definition enclosure (kappa : R) (g : 'cV[R]_d) (Q : 'M[R]_d) (y : 'cV[R]_d) : R :=
  kappa + dot g y + 2^-1 * dot y (Q *m y).

(** Enclosures of the parts add up to one enclosure of the whole. *)
Theorem sum_enclosures (X : 'cV[R]_d -> Prop) (F : 'cV[R]_d -> R) F0 (g0 : 'cV[R]_d) (rem : 'I_n -> 'cV[R]_d -> R)
    (kappa : 'I_n -> R) (g : 'I_n -> 'cV[R]_d) (Q : 'I_n -> 'M[R]_d) :
  (forall y, X y -> F y = F0 + dot g0 y + \sum_k rem k y) ->
  (forall k y, X y -> rem k y <= enclosure (kappa k) (g k) (Q k) y) ->
  forall y, X y -> F y <= enclosure (F0 + \sum_k kappa k) (g0 + \sum_k g k) (\sum_k Q k) y.
Proof.
move=> hF hr y hy; rewrite hF //.
have -> : enclosure (F0 + \sum_k kappa k) (g0 + \sum_k g k) (\sum_k Q k) y
    = F0 + dot g0 y + \sum_k enclosure (kappa k) (g k) (Q k) y.
  have eg : dot (\sum_k g k) y = \sum_k dot (g k) y.
    by apply: (big_ind2 (fun u v => dot u y = v)) => [|u1 v1 u2 v2 <- <-|//]; [exact: dot0l | exact: dotDl].
  have eQ : dot y ((\sum_k Q k) *m y) = \sum_k dot y (Q k *m y).
    apply: (big_ind2 (fun (u : 'M_d) v => dot y (u *m y) = v)) => [|u1 v1 u2 v2 <- <-|//].
      by rewrite mul0mx dot0r.
    by rewrite mulmxDl dotDr.
  by rewrite /enclosure dotDl eg eQ !big_split /= mulr_sumr (addrACA F0) -!addrA.
by rewrite ler_add2l; apply: ler_sum => k _; apply: hr.
Qed.

End Sum.

Section Bound.
Variables (R : rcfType) (d k n : nat) (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)).

Lemma half_bound (gy qy ns m r D N : R) : 2 * gy + qy <= 2 * ns + m * r ^+ 2 + D + r * (2 * N) ->
  gy + 2^-1 * qy <= ns + m / 2 * r ^+ 2 + 2^-1 * D + r * N.
Proof.
move=> le; rewrite -(ler_pmul2l (ltr0Sn R 1)).
have -> : 2 * (gy + 2^-1 * qy) = 2 * gy + qy by field.
by have -> : 2 * (ns + m / 2 * r ^+ 2 + 2^-1 * D + r * N) = 2 * ns + m * r ^+ 2 + D + r * (2 * N) by field.
Qed.

(** The bound over a cell and a ball, from any [m], [nu >= 0], [mu] and [p]. *)
Definition enclosure_value (kappa : R) (g : 'cV[R]_d) (Q : 'M[R]_d) m r (s nu : 'cV[R]_n) (mu : 'cV[R]_k)
    (p : 'cV[R]_d) : R :=
  kappa + dot nu s + m / 2 * r ^+ 2 + 2^-1 * dot p ((m%:M - Q) *m p)
  + r * norm (g - A^T *m mu - B^T *m nu - (m%:M - Q) *m p).

Theorem enclosure_bound kappa (g : 'cV[R]_d) (Q : 'M[R]_d) m r (s nu : 'cV[R]_n) (mu : 'cV[R]_k) (p y : 'cV[R]_d) :
  Q^T = Q -> psd (m%:M - Q) -> 0 <= m -> A *m y = 0 -> (forall i, (B *m y) i 0 <= s i 0) -> nonneg nu -> norm y <= r ->
  enclosure kappa g Q y <= enclosure_value kappa g Q m r s nu mu p.
Proof.
move=> QT h m0 hA hB nu0 hr.
have nu2 : nonneg (2 *: nu) by move=> i; rewrite mxE mulr_ge0 ?ler0n.
have := trust_region_checked (g := 2 *: g) p QT h m0 (conj hA hB) nu2 hr
  (erefl (dual_residual A B (2 *: g) (2 *: mu) (2 *: nu))).
rewrite /dual_residual -!scalemxAr -!scalerBr normZ ger0_norm ?ler0n // /quadratic !dotZl.
rewrite /enclosure_value; move: (norm _) (dot p _) => N D le.
by rewrite /enclosure -!(addrA kappa) ler_add2l; apply: half_bound le.
Qed.

End Bound.

Section Cut.
Variables (R : rcfType) (d : nat).

(** A region's points below the hyperplane cannot have a positive value: what has one lies above it. *)
Theorem cut (X : 'cV[R]_d -> Prop) (F : 'cV[R]_d -> R) kappa g Q m nu b (v p : 'cV[R]_d) :
  (forall y, X y -> norm y <= 1) -> (forall y, X y -> F y <= enclosure kappa g Q y) ->
  Q^T = Q -> psd (m%:M - Q) -> 0 <= m -> 0 <= nu ->
  kappa + nu * b + m / 2 + 2^-1 * dot p ((m%:M - Q) *m p) + norm (g - nu *: v - (m%:M - Q) *m p) <= 0 ->
  forall y, X y -> 0 < F y -> b < dot v y.
Proof.
move=> hX hF QT h m0 nu0 le y hy F0; rewrite ltNge; apply/negP => hb.
move: F0; rewrite ltNge => /negP; apply; apply: le_trans (hF _ hy) _; apply: le_trans le.
have e1 : (const_mx nu : 'cV[R]_1) = nu%:M by apply/matrixP => i j; rewrite !mxE (ord1 i) (ord1 j) eqxx.
have := @enclosure_bound _ _ 0 1 0 v^T kappa g Q m 1 (const_mx b) (const_mx nu) 0 p y QT h m0.
rewrite /enclosure_value mulmx0 subr0 trmxK expr1n mulr1 mul1r e1 mul_mx_scalar.
have -> : dot (nu%:M : 'cV[R]_1) (const_mx b) = nu * b by rewrite /dot big_ord1 !mxE eqxx.
apply=> //; [by rewrite mul0mx | move=> i | by move=> i; rewrite (ord1 i) !mxE eqxx | exact: hX].
by rewrite [X in _ <= X]mxE (ord1 i) mulmx_dot row_id trmxK.
Qed.

End Cut.
