(** Features that may drift by a given amount, and bounds at one radius that hold at every radius. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
From SaeProofs Require Bypass.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section EveryRadius.
Variables (R : rcfType) (d : nat).

(** A set inside a ball: a bound at the ball's radius needs no radius. *)
Theorem every_radius (F : 'cV[R]_d -> R) (cell : 'cV[R]_d -> Prop) r u :
  (forall delta, cell delta -> norm delta <= r) ->
  (forall delta, cell delta -> norm delta <= r -> F delta <= u) -> forall delta, cell delta -> F delta <= u.
Proof. by move=> hr hb delta hc; apply: hb => //; apply: hr. Qed.

End EveryRadius.

Section Drift.
Variables (R : rcfType) (d k n : nat) (E : 'M[R]_(d, k)) (B : 'M[R]_(n, d)).
Implicit Types (g delta : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n).

(** What any multipliers leave of [g.delta], with half-spaces. *)
Lemma drift_split g mu nu s delta : (forall i, (B *m delta) i 0 <= s i 0) -> nonneg nu ->
  dot g delta <= dot mu (E^T *m delta) + dot nu s + dot (g - E *m mu - B^T *m nu) delta.
Proof.
move=> hB nu0; have le : dot nu (B *m delta) <= dot nu s by apply: dot_mono.
have eE : dot (E *m mu) delta = dot mu (E^T *m delta) by rewrite dot_mull.
have eB : dot (B^T *m nu) delta = dot nu (B *m delta) by rewrite dot_mull trmxK.
rewrite !dotBl eE eB; apply: le_trans (_ : dot mu (E^T *m delta) + dot nu (B *m delta)
  + (dot g delta - dot mu (E^T *m delta) - dot nu (B *m delta)) <= _); last by rewrite ler_add2r ler_add2l.
by rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
Qed.

(** The held pre-activations move by at most [t] in norm; [mu] is any vector. *)
Theorem drift_bound g mu nu s delta t eps : norm (E^T *m delta) <= t -> (forall i, (B *m delta) i 0 <= s i 0) ->
  nonneg nu -> norm delta <= eps ->
  dot g delta <= t * norm mu + dot nu s + eps * norm (g - E *m mu - B^T *m nu).
Proof.
move=> ht hB nu0 he; apply: le_trans (drift_split g mu hB nu0) _.
by apply: ler_add; [rewrite ler_add2r|]; apply: dot_le_ball.
Qed.

(** Each moves by at most its own [t j]. *)
Theorem drift_bound_each g mu nu s delta (t : 'cV[R]_k) eps :
  (forall j, `|(E^T *m delta) j 0| <= t j 0) -> (forall i, (B *m delta) i 0 <= s i 0) -> nonneg nu ->
  norm delta <= eps ->
  dot g delta <= \sum_j `|mu j 0| * t j 0 + dot nu s + eps * norm (g - E *m mu - B^T *m nu).
Proof.
move=> ht hB nu0 he; apply: le_trans (drift_split g mu hB nu0) _; apply: ler_add; last exact: dot_le_ball.
rewrite ler_add2r; apply: ler_sum => j _; apply: le_trans (ler_norm _) _; by rewrite normrM ler_wpmul2l.
Qed.

End Drift.

Section Projected.
Variables (R : rcfType) (d k : nat) (E : 'M[R]_(d, k)).

(** With the projector: some [mu] leaves exactly the part of [g] that exact holding leaves. *)
Theorem drift_projected (P : 'M[R]_d) g : is_orthproj E P ->
  exists2 mu, g - E *m mu = P *m g
    & forall delta t eps, norm (E^T *m delta) <= t -> norm delta <= eps ->
        dot g delta <= t * norm mu + eps * norm (P *m g).
Proof.
move=> hP; have [PT PP PE PI] := hP.
have [mu e] : exists mu : 'cV_k, g - P *m g = E *m mu.
  have : ((g - P *m g)^T <= E^T)%MS.
    apply/Bypass.bypass_readout => delta h; apply/matrixP => i j.
    by rewrite (ord1 i) (ord1 j) -dotE dotBl -(orthproj_dot g hP h) subrr mxE.
  by case/submxP=> C eC; exists C^T; apply: trmx_inj; rewrite eC trmx_mul trmxK.
have e2 : g - E *m mu = P *m g by rewrite -e opprB addrCA subrr addr0.
exists mu => // delta t eps ht he; rewrite -e2.
have := @drift_bound R d k 0 E 0 g mu 0 0 delta t eps ht; rewrite dot0l addr0 mulmx0 subr0.
by apply=> // -[].
Qed.

End Projected.
