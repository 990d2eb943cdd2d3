(** The exponential against its Taylor polynomials, and the softmax remainder with it. Real analysis. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import boolp classical_sets functions reals signed topology normedtype sequences derive.
From mathcomp Require Import realfun exp.
From mathcomp Require Import ring.
From SaeProofs Require Import Base.
From SaeProofs Require Softmax.
From SaeProofs.analysis Require Import Taylor Activation.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory numFieldNormedType.Exports.
Local Open Scope ring_scope.

Section Exponential.
Variable R : realType.
Implicit Types c : R.

Lemma exp_along c u : derives_along c u (@expR R) (@expR R).
Proof. by move=> t _; apply: is_derive_expR. Qed.

Lemma exp_segment c t : 0 <= t <= 1 -> `|expR (0 + t * c)| <= expR (Num.max c 0).
Proof.
case/andP=> t0 t1; rewrite add0r gtr0_norm ?expR_gt0 // ler_expR le_maxr; have [c0|c0] := lerP 0 c.
  by rewrite ler_pimull.
by rewrite mulr_ge0_le0 ?orbT // ltW.
Qed.

Theorem exp_tangent c : 1 + c <= expR c.
Proof.
have [c0|c0] := lerP 0 c; first exact: expR_ge1Dx.
have h1 := derives_line (-1) (@exp_along 0 c); have h2 := derives_line (-1 * c) (@exp_along 0 c).
have := taylor_second h1 h2 (K := 0); rewrite mul1r mul0r !addr0 !add0r expR0 !mulN1r !mulr1 mul0r addr0 => h.
rewrite -ler_opp2 opprD h // => t _.
by rewrite mulNr mulNr oppr_le0 mulr_ge0 ?(ltW (expR_gt0 _)) // -expr2 sqr_ge0.
Qed.

Theorem exp_second c : `|expR c - 1 - c| <= expR (Num.max c 0) * c ^+ 2 / 2.
Proof.
have := activation_second (@exp_along 0 c) (@exp_along 0 c) (@exp_segment c).
by rewrite add0r expR0 mul1r.
Qed.

Theorem exp_third c : `|expR c - 1 - c - c ^+ 2 / 2| <= expR (Num.max c 0) * `|c| ^+ 3 / 6.
Proof.
have := activation_third (@exp_along 0 c) (@exp_along 0 c) (@exp_along 0 c) (@exp_segment c).
by rewrite add0r expR0 !mul1r.
Qed.

End Exponential.

Section Softmax.
Variables (R : realType) (d n : nat).
Implicit Types (s : 'I_n -> R) (v : 'I_n -> 'cV[R]_d).

Definition softmax s j : R := expR (s j) / \sum_i expR (s i).

Lemma exp_sum_gt0 s : 'I_n -> 0 < \sum_i expR (s i).
Proof.
move=> j; rewrite (bigD1 j) //= ltr_spaddl ?expR_gt0 //.
by apply: sumr_ge0 => i _; apply/ltW/expR_gt0.
Qed.

(** A change of the scores multiplies the weights by the exponentials of the centred change. *)
Theorem softmax_shift s delta j : let c i := delta i - \sum_k softmax s k * delta k in
  softmax (fun i => s i + delta i) j = softmax s j * expR (c j) / \sum_i softmax s i * expR (c i).
Proof.
move=> c; have S0 := exp_sum_gt0 s j; have S1 := exp_sum_gt0 (fun i => s i + delta i) j.
have [q q0 e] : exists2 q, q != 0 & forall i, softmax s i * expR (c i) = expR (s i + delta i) * q.
  exists (expR (- \sum_k softmax s k * delta k) / \sum_k expR (s k)) => [|i].
    by rewrite mulf_neq0 ?invr_eq0 ?gt_eqF // expR_gt0.
  by rewrite /c /softmax !expRD; move: (expR (- _)) => m; field; rewrite gt_eqF.
rewrite e (eq_bigr _ (fun i _ => e i)) -mulr_suml /softmax.
by rewrite invfM mulrA mulrAC mulfK.
Qed.

(** What the first and the second order leave out of an attention output, when the scores [s] move by [delta]. *)
Theorem softmax_exp s delta v (c : 'I_n -> R) (a L L2 : 'cV[R]_d) :
  (forall j, c j = delta j - \sum_k softmax s k * delta k) ->
  a = \sum_j softmax s j *: v j -> L = \sum_j (softmax s j * c j) *: (v j - a) ->
  L2 = \sum_j (softmax s j * (c j + c j ^+ 2 / 2)) *: (v j - a) ->
  let a' := \sum_j softmax (fun i => s i + delta i) j *: v j in
  let second j := expR (Num.max (c j) 0) * c j ^+ 2 / 2 in
  let third j := expR (Num.max (c j) 0) * `|c j| ^+ 3 / 6 in
  norm (a' - a - L) <= \sum_j softmax s j * second j * norm (v j - a - L) /\
  norm (a' - a - L2)
    <= \sum_j softmax s j * third j * norm (v j - a) + (\sum_j softmax s j * second j) * norm L2.
Proof.
move=> ec ea eL eL2.
have [j0 _|no] := pickP (fun _ : 'I_n => true); last first.
  move=> /=; rewrite eL2 eL ea.
  by split; rewrite !big1 ?subr0 ?norm0 ?mulr0 ?addr0 // => j; have := no j.
have S0 := exp_sum_gt0 s j0.
have p0 j : 0 <= softmax s j by rewrite divr_ge0 ?(ltW S0) // ltW ?expR_gt0.
have p1 : \sum_j softmax s j = 1 by rewrite -mulr_suml divff ?gt_eqF.
have cm : \sum_j softmax s j * c j = 0.
  rewrite (eq_bigr (fun j => softmax s j * delta j - softmax s j * \sum_k softmax s k * delta k)) => [|j _]; last first.
    by rewrite ec mulrBr.
  by rewrite sumrB -mulr_suml p1 mul1r subrr.
move=> a' second third; pose E j := expR (c j).
have after : (\sum_j softmax s j * E j)^-1 *: (\sum_j (softmax s j * E j) *: v j) = a'; last first.
  have h2 j : `|E j - 1 - c j| <= second j by apply: exp_second.
  have h3 j : `|E j - 1 - c j - c j ^+ 2 / 2| <= third j by apply: exp_third.
  have hE j : 1 + c j <= E j by apply: exp_tangent.
  have := Softmax.softmax_second v p0 p1 cm hE h2 h3; have := Softmax.softmax_remainder v p0 p1 cm hE h2.
  rewrite /Softmax.after /Softmax.second_order /Softmax.first_order /Softmax.before /Softmax.normaliser.
  by rewrite after -ea -eL -eL2.
rewrite /a' /E scaler_sumr; apply: eq_bigr => j _; rewrite scalerA softmax_shift mulrC ec; congr (_ * _ / _ *: _).
by apply: eq_bigr => i _; rewrite ec.
Qed.

End Softmax.
