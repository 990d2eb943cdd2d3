(** cone-membership and whole-cone: what non-negative codes reach, and how far they stay away.
    [W] has the rows [d_j]; a code [f] writes [W^T *m f = \sum_j f_j d_j]. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Distance.
Variables (R : rcfType) (d n : nat) (W : 'M[R]_(n, d)).
Implicit Types (x y : 'cV[R]_d) (f u : 'cV[R]_n).

(** The positive part. *)
Definition pos (a : R) := Num.max a 0.

Lemma pos_ge a : a <= pos a.
Proof. by rewrite /pos le_maxr lexx. Qed.

Lemma pos_ge0 a : 0 <= pos a.
Proof. by rewrite /pos le_maxr lexx orbT. Qed.

(** Any bound [H] of what codes write along [y] keeps them away from [x]. *)
Theorem cone_distance_gen x y f H : y != 0 -> dot y (W^T *m f) <= H ->
  (dot x y - H) / norm y <= norm (x - W^T *m f).
Proof.
move=> y0 h; rewrite ler_pdivr_mulr ?norm_gt0 //.
apply: le_trans (dot_le_norm _ _); rewrite dotBl ler_add2l ler_opp2.
by rewrite dotC.
Qed.

(** (b) A cone: a direction with no positive product with any row. *)
Theorem cone_distance x y f : y != 0 -> nonneg f -> (forall j, (W *m y) j 0 <= 0) ->
  dot x y / norm y <= norm (x - W^T *m f).
Proof.
move=> y0 f0 h; rewrite -[dot x y]subr0; apply: cone_distance_gen => //.
rewrite dot_mulr trmxK -[0](dot0r f) dotC; apply: dot_mono => // i.
by rewrite [X in _ <= X]mxE.
Qed.

(** (b) In general: [t] is the level for rows without a bound ([bounded j = false]), [T] bounds the total of the
    code ([t = 0] if nothing does), [u] the entries with a bound, and at most the rows in [active] are used. *)
Theorem cone_distance_bounded x y f u (bounded : pred 'I_n) (active : {set 'I_n}) (t T : R) : y != 0 -> nonneg f ->
  0 <= t -> t * (\sum_j f j 0) <= T ->
  (forall j, bounded j -> f j 0 <= u j 0) ->
  (forall j, ~~ bounded j -> (W *m y) j 0 <= t) ->
  (forall j, j \notin active -> f j 0 = 0) ->
  (dot x y - (T + \sum_(j in active | bounded j) u j 0 * pos ((W *m y) j 0 - t))) / norm y
    <= norm (x - W^T *m f).
Proof.
move=> y0 f0 t0 hT hu ht ha; apply: cone_distance_gen => //.
rewrite dot_mulr trmxK.
have -> : dot (W *m y) f = t * (\sum_j f j 0) + \sum_j f j 0 * ((W *m y) j 0 - t).
  by rewrite mulr_sumr -big_split; apply: eq_bigr => j _ /=; ring.
apply: ler_add => //; rewrite [X in _ <= X]big_mkcond; apply: ler_sum => j _.
case: ifPn => [/andP[_ bj]|].
  apply: le_trans (ler_wpmul2l (f0 j) (pos_ge _)) _.
  by rewrite ler_wpmul2r ?pos_ge0 ?hu.
rewrite negb_and => /orP[/ha ->|/ht hj]; first by rewrite mul0r.
by rewrite mulr_ge0_le0 ?f0 // subr_le0.
Qed.

(** (c) One row: [r = x - t d_j] for any [t], and no sign condition. *)
Theorem single_distance (r v : 'cV[R]_d) s : v != 0 ->
  dot r r - dot r v ^+ 2 / dot v v <= dot (r - s *: v) (r - s *: v).
Proof.
rewrite -dot_gt0 => v0; rewrite ler_subl_addr -subr_ge0.
rewrite [X in 0 <= X](_ : _ = (s * dot v v - dot r v) ^+ 2 / dot v v).
  by rewrite divr_ge0 ?sqr_ge0 ?ltW.
rewrite !dot_lin (dotC v r); field; exact: lt0r_neq0.
Qed.

(** (c) If the step from [t] to the coefficient goes against the sign of the product, nothing is gained. *)
Theorem single_distance_end (r v : 'cV[R]_d) s : s * dot r v <= 0 ->
  dot r r <= dot (r - s *: v) (r - s *: v).
Proof.
move=> h; rewrite -subr_ge0 [X in 0 <= X](_ : _ = s ^+ 2 * dot v v + - (2 * (s * dot r v))).
  apply: addr_ge0; first by rewrite mulr_ge0 ?sqr_ge0 ?dot_ge0.
  by rewrite oppr_ge0; apply: mulr_ge0_le0; rewrite ?ler0n.
by rewrite !dot_lin (dotC v r); ring.
Qed.

End Distance.

Section Sparse.
Variables (R : rcfType) (d n : nat) (W : 'M[R]_(n, d)) (mu : R) (active : {set 'I_n}).
Let e j := (row j W)^T.
Hypotheses (mu0 : 0 <= mu) (unit_rows : forall j, dot (e j) (e j) = 1).
Hypothesis coherent : forall i j, i != j -> - mu <= dot (e i) (e j).

(** A square of a sum has at most as many times the sum of squares as there are terms. *)
Lemma sum_sq_le (g : 'I_n -> R) : (\sum_(j in active) g j) ^+ 2 <= #|active|%:R * (\sum_(j in active) g j ^+ 2).
Proof.
have h := cauchy_schwarz_sq (\col_j (j \in active)%:R) (\col_j (if j \in active then g j else 0)) : _ <= _.
have e1 : dot (\col_j (j \in active)%:R) (\col_j (if j \in active then g j else 0)) = \sum_(j in active) g j.
  by rewrite [RHS]big_mkcond; apply: eq_bigr => j _; rewrite !mxE; case: ifP => _; rewrite ?mul1r ?mulr0.
have e2 : dot (\col_j (j \in active)%:R) (\col_j (j \in active)%:R) = #|active|%:R :> R.
  rewrite -sum1_card natr_sum [RHS]big_mkcond; apply: eq_bigr => j _; rewrite !mxE.
  by case: ifP => _; rewrite ?mul1r ?mulr0.
have e3 : dot (\col_j (if j \in active then g j else 0)) (\col_j (if j \in active then g j else 0))
          = \sum_(j in active) g j ^+ 2.
  by rewrite [RHS]big_mkcond; apply: eq_bigr => j _; rewrite !mxE; case: ifP => _; rewrite ?expr2 ?mulr0.
by rewrite e1 e2 e3 in h.
Qed.

(** (d) Unit rows with no cosine below [- mu]: codes with positive entries in [active] only. *)
Theorem sparse_distance (x : 'cV[R]_d) (g : 'cV[R]_n) (a : R) : nonneg g ->
  (forall j, j \notin active -> g j 0 = 0) -> a = 1 - (#|active|%:R - 1) * mu -> 0 < a ->
  dot x x - a^-1 * (\sum_(j in active) pos (dot x (e j)) ^+ 2) <= dot (x - W^T *m g) (x - W^T *m g).
Proof.
move=> g0 ga ea a0.
have wE : W^T *m g = \sum_(j in active) g j 0 *: e j.
  rewrite [RHS]big_mkcond; apply/matrixP => i k; rewrite (ord1 k) summxE [LHS]mxE; apply: eq_bigr => j _.
  by case: ifPn => [_|/ga ->]; rewrite !mxE ?mulr0 // mulrC.
have dsum y (F : 'I_n -> 'cV[R]_d) : dot y (\sum_(j in active) F j) = \sum_(j in active) dot y (F j).
  by apply: (big_morph (dot y)) => [u v|]; rewrite ?dotDr ?dot0r.
have lower : a * (\sum_(j in active) g j 0 ^+ 2) <= dot (W^T *m g) (W^T *m g).
  apply: (@le_trans _ _ ((1 + mu) * (\sum_(j in active) g j 0 ^+ 2) - mu * (\sum_(j in active) g j 0) ^+ 2)).
    have := ler_wpmul2l mu0 (sum_sq_le (fun j => g j 0)); rewrite -subr_ge0 => k; rewrite -subr_ge0 ea.
    by apply: le_trans k _; rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
  rewrite {1}wE dotC dsum expr2 mulr_suml !mulr_sumr -sumrB; apply: ler_sum => i ai.
  rewrite dotZr dotC wE dsum [\sum_(j in active) dot _ _](bigD1 i) //= dotZr unit_rows mulr1 mulrDr.
  rewrite [\sum_(j in active) g j 0](bigD1 i) //= [g i 0 * (g i 0 + _)]mulrDr.
  have -> : (1 + mu) * g i 0 ^+ 2 - mu * (g i 0 * g i 0 + g i 0 * (\sum_(j in active | j != i) g j 0))
          = g i 0 * g i 0 + g i 0 * (- mu * (\sum_(j in active | j != i) g j 0)) by ring.
  rewrite ler_add2l ler_wpmul2l // mulr_sumr; apply: ler_sum => j /andP[_ ne].
  by rewrite dotZr mulrC ler_wpmul2l // coherent // eq_sym.
have -> : dot (x - W^T *m g) (x - W^T *m g) =
   dot x x + (\sum_(j in active) - (2 * (g j 0 * dot x (e j))) + dot (W^T *m g) (W^T *m g)).
  rewrite sumrN -mulr_sumr.
  have -> : \sum_(j in active) g j 0 * dot x (e j) = dot x (W^T *m g).
    by rewrite wE dsum; apply: eq_bigr => j _; rewrite dotZr.
  by rewrite !dot_lin (dotC (W^T *m g) x); ring.
rewrite ler_add2l; apply: le_trans (_ : _ <= _ + a * _) (ler_add (lexx _) lower).
rewrite -mulNr !mulr_sumr -big_split; apply: ler_sum => j _ /=.
set b := dot x (e j); set q := g j 0.
apply: (@le_trans _ _ (- (2 * (q * pos b)) + a * q ^+ 2)).
  rewrite -subr_ge0 [X in 0 <= X](_ : _ = a^-1 * (a * q - pos b) ^+ 2).
    by rewrite mulr_ge0 ?sqr_ge0 ?invr_ge0 ?ltW.
  by field; apply: lt0r_neq0.
by rewrite ler_add2r ler_opp2 ler_pmul2l ?ltr0n // ler_wpmul2l ?g0 ?pos_ge.
Qed.

End Sparse.
