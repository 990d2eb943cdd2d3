(** whole-cone: positive weights that nearly cancel prove that non-negative features reach everything. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Exact.
Variables (R : realFieldType) (d n : nat) (W : 'M[R]_(n, d)).

(** The exact form: rows of full rank and positive weights that cancel. *)
Theorem whole_cone_exact (f : 'cV[R]_n) : \rank W = d -> (forall j, 0 < f j 0) -> W^T *m f = 0 ->
  forall x : 'cV[R]_d, exists2 g : 'cV[R]_n, nonneg g & W^T *m g = x.
Proof.
move=> rW f0 hf x.
have /row_fullP[L hL] : row_full W by apply/eqP.
have [p hp] : exists p, W^T *m p = x by exists (L^T *m x); rewrite mulmxA -trmx_mul hL trmx1 mul1mx.
pose s := \sum_j `|p j 0| / f j 0.
exists (p + s *: f) => [j|]; last by rewrite mulmxDr -scalemxAr hf scaler0 addr0 hp.
rewrite !mxE; have : `|p j 0| <= s * f j 0.
  rewrite -ler_pdivr_mulr // /s (bigD1 j) //= ler_addl; apply: sumr_ge0 => i _.
  by rewrite divr_ge0 // ltW.
by rewrite ler_norml => /andP[h _]; rewrite -ler_subl_addr sub0r ler_oppl; move: h; rewrite ler_oppl.
Qed.

End Exact.

Section Nearby.
Variables (R : rcfType) (d n : nat) (W : 'M[R]_(n, d)) (Q : 'M[R]_(d, n)) (f l w : 'cV[R]_n) (c eta m : R).
Let rho j := norm (col j Q) / (1 - c).
Hypotheses (hE : opbound (Q *m W - 1%:M) c) (c1 : c < 1) (hf : norm (W^T *m f) <= eta).
Hypotheses (l0 : forall j, 0 < l j 0) (hl : forall j, l j 0 <= f j 0 - rho j * eta).
Hypotheses (hw : forall j, f j 0 + rho j * eta <= w j 0) (hm : forall j, rho j / l j 0 <= m).

(** A left inverse applied to a vector, entry by entry. *)
Lemma cone_preimage (v : 'cV[R]_d) :
  exists2 p : 'cV[R]_n, W^T *m p = v & forall j, `|p j 0| <= rho j * norm v.
Proof.
have u : 1%:M + (Q *m W - 1%:M) \in unitmx := near_one_unit hE c1.
pose G := invmx (1%:M + (Q *m W - 1%:M)).
have e : G *m (Q *m W) = 1%:M by rewrite -{1}(subrK 1%:M (Q *m W)) addrC mulVmx.
exists (Q^T *m (G^T *m v)); first by rewrite !mulmxA -!trmx_mul e trmx1 mul1mx.
move=> j; rewrite mulmx_dot tr_row trmxK.
rewrite dot_mulr trmxK; apply: le_trans (cauchy_schwarz _ _) _.
rewrite /rho; apply: ler_wpmul2r => //; exact: near_one_inv.
Qed.

(** Every vector is reached, with a bound on each feature. *)
Theorem whole_cone (x : 'cV[R]_d) : exists g : 'cV[R]_n,
  [/\ nonneg g, W^T *m g = x & forall j, g j 0 <= norm x * (rho j + w j 0 * m)].
Proof.
have rho0 j : 0 <= rho j by rewrite divr_ge0 ?norm_ge0 // subr_ge0 ltW.
have [p hp bp] := cone_preimage (W^T *m f).
have [q hq bq] := cone_preimage x.
have bp' j : `|p j 0| <= rho j * eta by apply: le_trans (bp j) _; rewrite ler_wpmul2l.
have low j : l j 0 <= f j 0 - p j 0.
  by apply: le_trans (hl j) _; rewrite ler_add2l ler_opp2; apply: le_trans (ler_norm _) (bp' j).
have upp j : f j 0 - p j 0 <= w j 0.
  by apply: le_trans (hw j); rewrite ler_add2l; apply: le_trans (bp' j); rewrite -normrN ler_norm.
have ent j : (q + (norm x * m) *: (f - p)) j 0 = q j 0 + norm x * m * (f j 0 - p j 0) by rewrite !mxE.
exists (q + (norm x * m) *: (f - p)); split=> [j||j].
- have k : `|q j 0| <= norm x * m * (f j 0 - p j 0).
    apply: le_trans (bq j) _; rewrite mulrC -mulrA ler_wpmul2l //.
    apply: le_trans (_ : m * l j 0 <= _); first by rewrite -ler_pdivr_mulr.
    by rewrite ler_wpmul2l //; apply: le_trans (hm j); rewrite divr_ge0 // ltW.
  rewrite ent -[0](subrr (q j 0)) ler_add2l.
  by apply: le_trans k; rewrite -normrN ler_norm.
- by rewrite mulmxDr -scalemxAr mulmxBr hp subrr scaler0 addr0.
rewrite ent mulrDr; apply: ler_add.
  by apply: le_trans (ler_norm _) _; rewrite mulrC.
rewrite -mulrA ler_wpmul2l // mulrC ler_wpmul2r //.
by apply: le_trans (hm j); rewrite divr_ge0 // ltW.
Qed.

End Nearby.
