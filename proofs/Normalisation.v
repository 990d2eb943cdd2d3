(** Remainders of the inverse square root, and the scale of a normalised vector. The factors are rational: no power of
    a half is needed. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(** Signs of polynomials with non-negative coefficients. *)
Ltac sign := repeat first [assumption | exact: ltW | exact: ler0n | exact: ler01 | rewrite subr_ge0 | exact: sqr_ge0
  | apply: divr_ge0 | apply: mulr_ge0 | apply: addr_ge0 | apply: exprn_ge0].

Section InverseRoot.
Variable R : rcfType.
Implicit Types x s : R.

(** One at [x >= 0], and [1 / (1 + x)] below. *)
Definition factor x : R := Num.max 1 (1 + x)^-1.

Lemma factor_ge0 x : 0 <= factor x.
Proof. by rewrite /factor le_maxr ler01. Qed.

Lemma factor_abs x : `|x| < 1 -> factor x <= (1 - `|x|)^-1.
Proof.
move=> x1; have a0 : 0 < 1 - `|x| by rewrite subr_gt0.
have le : 1 - `|x| <= 1 + x by rewrite ler_add2l ler_oppl -normrN ler_norm.
rewrite /factor le_maxl invf_ge1 // ler_subl_addr ler_addl normr_ge0 /=.
by rewrite lef_pinv // posrE //; apply: lt_le_trans le.
Qed.

Lemma first_identity s : 0 < s ->
  s^-1 - (1 - (s ^+ 2 - 1) / 2) = (s ^+ 2 - 1) ^+ 2 * ((s + 2) / (2 * s * (s + 1) ^+ 2)).
Proof. move=> s0; have s1 : s + 1 != 0 by rewrite gt_eqF ?addr_gt0 ?ltr01.
by field; rewrite s1 gt_eqF. Qed.

Lemma second_identity s : 0 < s -> s^-1 - (1 - (s ^+ 2 - 1) / 2 + 3 / 8 * (s ^+ 2 - 1) ^+ 2)
  = - (s ^+ 2 - 1) ^+ 3 * ((3 * s ^+ 2 + 9 * s + 8) / (8 * s * (s + 1) ^+ 3)).
Proof. move=> s0; have s1 : s + 1 != 0 by rewrite gt_eqF ?addr_gt0 ?ltr01.
by field; rewrite s1 gt_eqF. Qed.

(** [a / b <= k] from the sign of a difference of polynomials. *)
Lemma quotient_le (a b k q : R) : 0 < b -> 0 <= q -> k * b - a = q -> a / b <= k.
Proof. by move=> b0 q0 e; rewrite ler_pdivr_mulr // -subr_ge0 e. Qed.

Lemma first_le s : 0 < s -> (s + 2) / (2 * s * (s + 1) ^+ 2) <= 3 / 8 * Num.max 1 (s ^+ 2)^-1.
Proof.
move=> s0; have s1 : 0 < s + 1 by rewrite addr_gt0 ?ltr01.
have sp := ltW s0.
have b0 : 0 < 2 * s * (s + 1) ^+ 2 by rewrite !mulr_gt0 ?exprn_gt0 ?ltr0n.
rewrite maxr_pmulr ?divr_ge0 ?ler0n // mulr1 le_maxr; have [l|g] := lerP 1 s; apply/orP; [left|right].
  apply: (@quotient_le _ _ _ ((s - 1) * (3 * s ^+ 2 + 9 * s + 8) / 4)) => //; last by field.
  by sign.
apply: (@quotient_le _ _ _ ((1 - s) * (s + 3) / (4 * s))) => //; last by field; rewrite gt_eqF.
by sign.
Qed.

Lemma second_le s : 0 < s -> (3 * s ^+ 2 + 9 * s + 8) / (8 * s * (s + 1) ^+ 3) <= 5 / 16 * Num.max 1 (s ^+ 2)^-1.
Proof.
move=> s0; have s1 : 0 < s + 1 by rewrite addr_gt0 ?ltr01.
have sp := ltW s0.
have b0 : 0 < 8 * s * (s + 1) ^+ 3 by rewrite !mulr_gt0 ?exprn_gt0 ?ltr0n.
rewrite maxr_pmulr ?divr_ge0 ?ler0n // mulr1 le_maxr; have [l|g] := lerP 1 s; apply/orP; [left|right].
  apply: (@quotient_le _ _ _ ((s - 1) * (5 * s ^+ 3 + 20 * s ^+ 2 + 29 * s + 16) / 2)) => //; last by field.
  by sign.
apply: (@quotient_le _ _ _ ((1 - s) * (s ^+ 2 + 4 * s + 5) / (2 * s))) => //; last by field; rewrite gt_eqF.
by sign.
Qed.

(** First order: the remainder is not negative. *)
Theorem inverse_root_first x : -1 < x ->
  0 <= (Num.sqrt (1 + x))^-1 - (1 - x / 2) <= 3 / 8 * x ^+ 2 * factor x.
Proof.
move=> x1; have p : 0 < 1 + x by rewrite -ltr_subl_addl sub0r.
have s0 : 0 < Num.sqrt (1 + x) by rewrite sqrtr_gt0.
have es := sqr_sqrtr (ltW p); move: (Num.sqrt _) s0 es => s s0 es.
have ex : x = s ^+ 2 - 1 by rewrite es addrC addKr.
rewrite /factor -es ex first_identity //; apply/andP; split; first by sign.
by rewrite [X in _ <= X]mulrAC [X in _ <= X]mulrC ler_wpmul2l ?sqr_ge0 // first_le.
Qed.

(** Second order. *)
Theorem inverse_root_second x : -1 < x ->
  `|(Num.sqrt (1 + x))^-1 - (1 - x / 2 + 3 / 8 * x ^+ 2)| <= 5 / 16 * `|x| ^+ 3 * factor x.
Proof.
move=> x1; have p : 0 < 1 + x by rewrite -ltr_subl_addl sub0r.
have s0 : 0 < Num.sqrt (1 + x) by rewrite sqrtr_gt0.
have es := sqr_sqrtr (ltW p); move: (Num.sqrt _) s0 es => s s0 es.
have ex : x = s ^+ 2 - 1 by rewrite es addrC addKr.
rewrite /factor -es ex second_identity //.
rewrite normrM normrN normrX [X in _ <= X]mulrAC [X in _ <= X]mulrC ler_wpmul2l ?exprn_ge0 //.
by rewrite ger0_norm ?second_le //; sign.
Qed.

(** The form with the absolute value. *)
Theorem inverse_root_second_abs x : `|x| < 1 ->
  `|(Num.sqrt (1 + x))^-1 - (1 - x / 2 + 3 / 8 * x ^+ 2)| <= 5 / 16 * `|x| ^+ 3 / (1 - `|x|).
Proof.
move=> x1; have h : -1 < x by move: x1; rewrite ltr_norml => /andP[].
apply: le_trans (inverse_root_second h) _; rewrite ler_wpmul2l ?factor_abs //.
by sign.
Qed.

(** A normalised vector's scale: relative to the root at the centre it is the inverse root of [1 + x]. *)
Theorem normalisation_scale d (z u : 'cV[R]_d) c : let m := dot z z + c in 0 < m ->
  let x := (2 * dot z u + dot u u) / m in
  (Num.sqrt (dot (z + u) (z + u) + c))^-1 = (Num.sqrt m)^-1 * (Num.sqrt (1 + x))^-1.
Proof.
move=> m m0 x; rewrite -invfM -sqrtrM ?ltW //; congr (Num.sqrt _)^-1.
rewrite mulrDr mulr1 /x mulrC divfK ?gt_eqF // /m !dot_lin (dotC u z); ring.
Qed.

End InverseRoot.
