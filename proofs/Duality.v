(** linear-dual: weak duality for a linear function over a cell and a ball. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Split.
Variables (R : realFieldType) (d k n : nat) (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)).
Implicit Types (v delta : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n).

(** The residual of the multipliers. *)
Definition dual_residual v mu nu := v - A^T *m mu - B^T *m nu.

(** [delta] obeys the equalities and the half-spaces. *)
Definition in_cell s delta := A *m delta = 0 /\ forall i, (B *m delta) i 0 <= s i 0.

(** What the multipliers leave of [v . delta]. *)
Lemma dual_split v mu nu s delta :
  in_cell s delta -> nonneg nu -> dot v delta <= dot nu s + dot (dual_residual v mu nu) delta.
Proof.
move=> [hA hB] h0; rewrite /dual_residual !dotBl !(dot_mull, trmxK) hA dot0r subr0.
by rewrite addrCA ler_addl subr_ge0; apply: dot_mono.
Qed.

(** A general ball: all that is used is a bound [sigma] on linear functions over it. *)
Theorem linear_dual_support (ball : 'cV[R]_d -> Prop) (sigma : 'cV[R]_d -> R) v mu nu s delta :
  (forall u x, ball x -> dot u x <= sigma u) ->
  in_cell s delta -> ball delta -> nonneg nu ->
  dot v delta <= dot nu s + sigma (dual_residual v mu nu).
Proof.
by move=> hs hc hb h0; apply: le_trans (dual_split v mu hc h0) _; rewrite ler_add2l hs.
Qed.

(** The box of half-width [r]: the support function is [r] times the sum of absolute values. *)
Theorem linear_dual_linf v mu nu s r delta :
  in_cell s delta -> (forall i, `|delta i 0| <= r) -> nonneg nu ->
  dot v delta <= dot nu s + r * \sum_i `|dual_residual v mu nu i 0|.
Proof.
move=> hc hb h0.
apply: (linear_dual_support (ball := fun x => forall i, `|x i 0| <= r)
                            (sigma := fun u => r * \sum_i `|u i 0|) v mu _ hc hb h0) => u x h.
 rewrite /dot mulr_sumr; apply: ler_sum => i _.
by apply: le_trans (ler_norm _) _; rewrite normrM mulrC ler_wpmul2r.
Qed.

End Split.

Section Ball.
Variables (R : rcfType) (d k n : nat) (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)).
Implicit Types (v delta : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n).

(** The Euclidean ball. *)
Theorem linear_dual v mu nu s r delta :
  in_cell A B s delta -> norm delta <= r -> nonneg nu ->
  dot v delta <= dot nu s + r * norm (dual_residual A B v mu nu).
Proof.
move=> hc hb h0.
apply: (linear_dual_support (ball := fun x => norm x <= r) (sigma := fun u => r * norm u) v mu _ hc hb h0).
by move=> u x; apply: dot_le_ball.
Qed.

(** The form a checker needs: [t] is any upper bound of the norm of the residual. *)
Theorem linear_dual_checked v mu nu s r t delta :
  in_cell A B s delta -> norm delta <= r -> nonneg nu ->
  0 <= t -> dot (dual_residual A B v mu nu) (dual_residual A B v mu nu) <= t ^+ 2 ->
  dot v delta <= dot nu s + r * t.
Proof.
move=> hc hb h0 t0 ht; apply: le_trans (linear_dual v mu hc hb h0) _.
by rewrite ler_add2l ler_wpmul2l ?norm_leP //; apply: le_trans hb; apply: norm_ge0.
Qed.

(** The ellipsoid [L y] with [norm y <= r]. *)
Theorem linear_dual_ellipsoid m (L : 'M[R]_(d, m)) v mu nu s r delta :
  in_cell A B s delta -> (exists2 y, norm y <= r & delta = L *m y) -> nonneg nu ->
  dot v delta <= dot nu s + r * norm (L^T *m dual_residual A B v mu nu).
Proof.
move=> hc hb h0.
apply: (linear_dual_support (ball := fun x => exists2 y, norm y <= r & x = L *m y)
                            (sigma := fun u => r * norm (L^T *m u)) v mu _ hc hb h0).
by move=> u x [y hy ->]; rewrite dot_mulr; apply: dot_le_ball.
Qed.

(** Equality: multipliers that are complementary to a feasible [delta] prove it to be the best. *)
Theorem linear_dual_optimal v mu nu s r t delta :
  in_cell A B s delta -> norm delta <= r -> nonneg nu ->
  dot nu (s - B *m delta) = 0 -> dual_residual A B v mu nu = t *: delta -> 0 <= t -> norm delta = r ->
  dot v delta = dot nu s + r * norm (dual_residual A B v mu nu).
Proof.
move=> [hA hB] hb h0 hs hr t0 hn; rewrite hr normZ ger0_norm // hn mulrCA -expr2 -hn norm_sq -dotZl -hr.
rewrite /dual_residual !dotBl !(dot_mull, trmxK) hA dot0r subr0.
by move: hs; rewrite dotBr => /eqP; rewrite subr_eq0 => /eqP ->; rewrite addrC subrK.
Qed.

End Ball.
