(** Trust region duality, the easy direction of the S-lemma: a shifted matrix that is positive semidefinite bounds a
    quadratic function over the ball, with held equalities and half-spaces. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base Duality SpectralGap.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Arithmetic.
Variable R : realFieldType.

Lemma add_up (gx ns vx mxx mr q yMy D rn : R) :
  gx <= ns + vx -> mxx <= mr -> vx - 2 * D <= rn -> 0 <= q ->
  gx + mxx - (2 * D - yMy + q) <= ns + mr + yMy + rn.
Proof.
move=> h1 h2 h3 h4; have := ler_add (ler_add h1 h2) (ler_add h3 h4); rewrite -subr_ge0 => h.
rewrite -subr_ge0; apply: le_trans h _; rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
Qed.

Lemma add_up_exact (gx yMy gy mxx mr q : R) : mxx <= mr -> 0 <= q -> gy = 2 * yMy ->
  gx + mxx - (gx - yMy + q) <= mr + 2^-1 * gy.
Proof.
move=> h2 h4 ->; have := ler_add h2 h4; rewrite -subr_ge0 => h.
rewrite -subr_ge0; apply: le_trans h _; rewrite le_eqVlt; apply/orP; left; apply/eqP; by field.
Qed.

End Arithmetic.

Section TrustRegion.
Variables (R : rcfType) (d k n : nat) (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)) (Q : 'M[R]_d) (g : 'cV[R]_d).

(** The quadratic function. *)
Definition quadratic (x : 'cV[R]_d) : R := dot g x + dot x (Q *m x).

(** What [m - Q] says of [Q]. *)
Lemma quadratic_shift m x : quadratic x = dot g x + m * dot x x - dot x ((m%:M - Q) *m x).
Proof. by rewrite /quadratic mulmxBl mul_scalar_mx dotBr dotZr opprB addrACA subrr addr0. Qed.

(** Completing the square around any [y]. *)
Lemma complete_square (M : 'M[R]_d) x y : M^T = M ->
  dot x (M *m x) = 2 * dot (M *m y) x - dot y (M *m y) + dot (x - y) (M *m (x - y)).
Proof.
move=> MT; have sy : dot y (M *m x) = dot (M *m y) x by rewrite dot_mulr MT.
by rewrite mulmxBr !dot_lin sy (dotC x (M *m y)); ring.
Qed.

(** A shift [m] that makes [m - Q] positive semidefinite bounds the function over the ball. *)
Theorem trust_region_simple m r x : psd (m%:M - Q) -> 0 <= m -> norm x <= r ->
  quadratic x <= r * norm g + m * r ^+ 2.
Proof.
move=> h m0 hr; have r0 : 0 <= r by apply: le_trans hr; apply: norm_ge0.
rewrite (quadratic_shift m) ler_subl_addr; apply: le_trans (_ : r * norm g + m * r ^+ 2 <= _); last first.
  by rewrite ler_addl h.
by apply: ler_add; [apply: dot_le_ball | rewrite ler_wpmul2l // -norm_leP].
Qed.

(** Any [y] at all, with what is left of the equation [2 (m - Q) y = g] in the bound: a checker may round everything.
    With the multipliers [mu] and [nu >= 0] of a cell, the linear part is replaced by its dual residual. *)
Theorem trust_region_checked m r (s nu : 'cV[R]_n) (mu : 'cV[R]_k) x y :
  Q^T = Q -> psd (m%:M - Q) -> 0 <= m -> in_cell A B s x -> nonneg nu -> norm x <= r ->
  forall v, v = dual_residual A B g mu nu ->
  quadratic x <= dot nu s + m * r ^+ 2 + dot y ((m%:M - Q) *m y) + r * norm (v - 2 *: ((m%:M - Q) *m y)).
Proof.
move=> QT h m0 hc nu0 hr v ev; have r0 : 0 <= r by apply: le_trans hr; apply: norm_ge0.
have MT : (m%:M - Q)^T = m%:M - Q by rewrite linearB /= tr_scalar_mx QT.
have hd := dual_split g mu hc nu0; rewrite -ev in hd.
rewrite (quadratic_shift m) (complete_square x y MT).
move: (m%:M - Q) MT (h (x - y)) => M MT hM.
have hl : dot (v - 2 *: (M *m y)) x <= r * norm (v - 2 *: (M *m y)) by apply: dot_le_ball.
have hx : m * dot x x <= m * r ^+ 2 by rewrite ler_wpmul2l // -norm_leP.
by apply: (add_up _ hd hx _ hM); move: hl; rewrite [dot (v - _) x]dotBl dotZl.
Qed.

(** The classical case: [2 (m - Q) y = g] exactly, no cell. *)
Theorem trust_region m r x y : Q^T = Q -> psd (m%:M - Q) -> 0 <= m -> 2 *: ((m%:M - Q) *m y) = g ->
  norm x <= r -> quadratic x <= m * r ^+ 2 + 2^-1 * dot g y.
Proof.
move=> QT h m0 hy hr; have r0 : 0 <= r by apply: le_trans hr; apply: norm_ge0.
have MT : (m%:M - Q)^T = m%:M - Q by rewrite linearB /= tr_scalar_mx QT.
rewrite (quadratic_shift m) (complete_square x y MT) -[2 * dot _ x]dotZl hy.
have hx : m * dot x x <= m * r ^+ 2 by rewrite ler_wpmul2l // -norm_leP.
by apply: (add_up_exact _ hx (h _)); rewrite -hy dotZl (dotC y).
Qed.

End TrustRegion.
