(** The remainder of softmax attention, without an exponential: scores centred so that [sum p c = 0] and any weights
    [E j >= 1 + c j] in the place of [exp (c j)]. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Softmax.
Variables (R : rcfType) (d n : nat) (p c E : 'I_n -> R) (v : 'I_n -> 'cV[R]_d).
Hypothesis p_ge0 : forall j, 0 <= p j.
Hypothesis p_sum : \sum_j p j = 1.
Hypothesis c_mean : \sum_j p j * c j = 0.

(** The attention output before and after the scores change, and the normaliser. *)
Definition before : 'cV[R]_d := \sum_j p j *: v j.
Definition normaliser : R := \sum_j p j * E j.
Definition after : 'cV[R]_d := normaliser^-1 *: \sum_j (p j * E j) *: v j.

(** The first-order change. *)
Definition first_order : 'cV[R]_d := \sum_j (p j * c j) *: (v j - before).

(** The normaliser minus one is the mean of the second-order parts of the weights. *)
Lemma normaliser_excess : normaliser - 1 = \sum_j p j * (E j - 1 - c j).
Proof.
have -> : normaliser - 1 = normaliser - \sum_j p j - \sum_j p j * c j by rewrite p_sum c_mean subr0.
rewrite -!sumrB.
by apply: eq_bigr => j _; ring.
Qed.

Hypothesis E_tangent : forall j, 1 + c j <= E j.

Theorem normaliser_ge1 : 1 <= normaliser.
Proof.
rewrite -subr_ge0 normaliser_excess; apply: sumr_ge0 => j _.
by rewrite mulr_ge0 // -addrA -opprD subr_ge0.
Qed.

Lemma normaliser_gt0 : 0 < normaliser.
Proof. exact: lt_le_trans ltr01 normaliser_ge1. Qed.

(** The change is a quotient [N / Z], for any centre of the values. *)
Theorem change_quotient (a : 'cV[R]_d) :
  after - a = normaliser^-1 *: \sum_j (p j * E j) *: (v j - a).
Proof.
rewrite (eq_bigr (fun j => (p j * E j) *: v j - (p j * E j) *: a)) => [|j _]; last by rewrite scalerBr.
by rewrite sumrB -scaler_suml scalerBr scalerA mulVf ?scale1r // gt_eqF ?normaliser_gt0.
Qed.

(** [Z >= 1] drops the quotient: the distance to any vector is at most that of the numerator to [Z] times it. *)
Theorem quotient_drop (N L : 'cV[R]_d) : norm (normaliser^-1 *: N - L) <= norm (N - normaliser *: L).
Proof.
have z0 := normaliser_gt0; have -> : normaliser^-1 *: N - L = normaliser^-1 *: (N - normaliser *: L).
  by rewrite scalerBr scalerA mulVf ?scale1r // gt_eqF.
by rewrite normZ ger0_norm ?invr_ge0 ?(ltW z0) // -[X in _ <= X]mul1r ler_wpmul2r // invf_le1 // normaliser_ge1.
Qed.

(** The numerator minus [Z] times the first-order change holds second-order parts only. *)
Theorem numerator_remainder : \sum_j (p j * E j) *: (v j - before) - normaliser *: first_order
  = \sum_j (p j * (E j - 1 - c j)) *: (v j - before - first_order).
Proof.
have w0 : \sum_j p j *: (v j - before) = 0.
  rewrite (eq_bigr (fun j => p j *: v j - p j *: before)) => [|j _]; last by rewrite scalerBr.
  by rewrite sumrB -scaler_suml p_sum scale1r subrr.
rewrite [RHS](eq_bigr (fun j => (p j * E j) *: (v j - before) - p j *: (v j - before) - (p j * c j) *: (v j - before)
  - (p j * (E j - 1 - c j)) *: first_order)) => [|j _]; last first.
  by rewrite scalerBr !mulrBr mulr1 !scalerBl.
rewrite !sumrB w0 subr0 -scaler_suml -normaliser_excess scalerBl scale1r.
by rewrite -/first_order opprB addrA subrK.
Qed.

(** What the first order leaves out, with any bounds [e j] on the second-order parts of the weights. *)
Theorem softmax_remainder (e : 'I_n -> R) : (forall j, `|E j - 1 - c j| <= e j) ->
  norm (after - before - first_order) <= \sum_j p j * e j * norm (v j - before - first_order).
Proof.
move=> he; rewrite change_quotient; apply: le_trans (quotient_drop _ _) _; rewrite numerator_remainder.
apply: le_trans (norm_sum _) _; apply: ler_sum => j _.
by rewrite normZ normrM ger0_norm // ler_wpmul2r // ler_wpmul2l.
Qed.

(** The change up to order two in the scores. *)
Definition second_order : 'cV[R]_d := \sum_j (p j * (c j + c j ^+ 2 / 2)) *: (v j - before).

Theorem numerator_second : \sum_j (p j * E j) *: (v j - before) - normaliser *: second_order
  = \sum_j (p j * (E j - 1 - c j - c j ^+ 2 / 2)) *: (v j - before) - (normaliser - 1) *: second_order.
Proof.
have w0 : \sum_j p j *: (v j - before) = 0.
  rewrite (eq_bigr (fun j => p j *: v j - p j *: before)) => [|j _]; last by rewrite scalerBr.
  by rewrite sumrB -scaler_suml p_sum scale1r subrr.
have -> : \sum_j (p j * (E j - 1 - c j - c j ^+ 2 / 2)) *: (v j - before)
    = \sum_j (p j * E j) *: (v j - before) - second_order.
  rewrite -[RHS]subr0 -[X in _ = _ - X]w0 /second_order -!sumrB; apply: eq_bigr => j _.
  by rewrite -!scalerBl; congr (_ *: _); ring.
by rewrite scalerBl scale1r opprB addrA subrK.
Qed.

Theorem softmax_second (e2 e3 : 'I_n -> R) : (forall j, `|E j - 1 - c j| <= e2 j) ->
  (forall j, `|E j - 1 - c j - c j ^+ 2 / 2| <= e3 j) ->
  norm (after - before - second_order)
    <= \sum_j p j * e3 j * norm (v j - before) + (\sum_j p j * e2 j) * norm second_order.
Proof.
move=> h2 h3; rewrite change_quotient; apply: le_trans (quotient_drop _ _) _; rewrite numerator_second.
apply: le_trans (norm_triangle _ _) _; rewrite normN normZ ger0_norm ?subr_ge0 ?normaliser_ge1 //.
apply: ler_add; last first.
  rewrite ler_wpmul2r // normaliser_excess; apply: ler_sum => j _; rewrite ler_wpmul2l //.
  by apply: le_trans (ler_norm _) _.
apply: le_trans (norm_sum _) _; apply: ler_sum => j _.
by rewrite normZ normrM ger0_norm // ler_wpmul2r // ler_wpmul2l.
Qed.

End Softmax.
