(** held-cell for TopK: [k] features are selected by score, and the positive ones among them are on.
    [a] and [a'] are the pre-activations before and after the perturbation, [nu] the positive factors of the scores. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section TopK.
Variables (R : realFieldType) (n k : nat) (nu : 'I_n -> R) (tie : rel 'I_n).
Hypotheses (nu0 : forall j, 0 < nu j) (tie_asym : forall i j, tie i j -> ~~ tie j i).

(** The score, the order of selection (ties are broken by any fixed rule), and what a selection is. *)
Definition score (a : 'I_n -> R) j := a j * nu j.
Definition beats (a : 'I_n -> R) i j := (score a j < score a i) || (score a j == score a i) && tie i j.
Definition selection (a : 'I_n -> R) (S : {set 'I_n}) :=
  #|S| = k /\ forall i j, i \in S -> j \notin S -> beats a i j.

(** The features that are on, and the code. *)
Definition on (a : 'I_n -> R) (S : {set 'I_n}) := [set j in S | 0 < a j].
Definition code (a : 'I_n -> R) (S : {set 'I_n}) j := if j \in on a S then a j else 0.

Variables (a a' : 'I_n -> R) (S S' : {set 'I_n}).
Hypotheses (hS : selection a S) (hS' : selection a' S').

Lemma beats_le b i j : beats b i j -> score b j <= score b i.
Proof. by case/orP=> [/ltW //|/andP[/eqP -> _]]; apply: lexx. Qed.

Lemma beats_asym b i j : beats b i j -> beats b j i -> False.
Proof.
case/orP=> [lt|/andP[/eqP e t]] /orP[lt'|/andP[/eqP e' t']].
- by have := lt_trans lt lt'; rewrite ltxx.
- by move: lt; rewrite e' ltxx.
- by move: lt'; rewrite e ltxx.
by move: (tie_asym t); rewrite t'.
Qed.

Lemma score_gt0 b j : (0 < score b j) = (0 < b j).
Proof. by rewrite /score pmulr_lgt0. Qed.

Lemma on_sub b B : on b B \subset B.
Proof. by apply/subsetP => j; rewrite inE => /andP[]. Qed.

Lemma on_card : (#|on a S| <= k)%N.
Proof. by case: hS => <- _; apply: subset_leq_card (on_sub a S). Qed.

(** Selected sets of the same size: one that is not contained has a member outside the other. *)
Lemma swap (B C : {set 'I_n}) i : #|B| = #|C| -> i \in B -> i \notin C -> exists2 j, j \in C & j \notin B.
Proof.
move=> e iB iC; case: (pickP [pred j in C | j \notin B]) => [j /andP[jC jB]|h]; first by exists j.
have sub : C \subset B by apply/subsetP => j jC; move: (h j); rewrite /= jC /= => /negbFE.
have : C == B by rewrite eqEcard sub e leqnn.
by move/eqP=> eCB; move: iC; rewrite eCB iB.
Qed.

(** A positive score that fewer than [k] others can beat is selected. *)
Lemma few_selected i : (#|on a S| < k)%N -> (forall j, j \notin on a S -> a' j <= 0) -> 0 < a' i -> i \in S'.
Proof.
move=> lt off pi; case: hS' => cS' vS'; apply/negPn/negP => iS'.
have sub : S' \subset on a S.
  apply/subsetP => j jS'; apply/negPn/negP => /off; rewrite leNgt => /negP; apply.
  by rewrite -score_gt0; apply: lt_le_trans (beats_le (vS' _ _ jS' iS')); rewrite score_gt0.
by have := leq_ltn_trans (subset_leq_card sub) lt; rewrite cS' ltnn.
Qed.

(** A set [H] is held if its features that are on keep their values and, according to whether [k] features are on or
    fewer: the others stay below them, or unmoved with them; or stay at or below zero. *)
Theorem topk_set_held (H : pred 'I_n) :
  (forall j, H j -> j \in on a S -> a' j = a j) ->
  (#|on a S| = k -> forall i j, i \in S -> j \notin S ->
     score a' j < score a' i \/ (score a' i = score a i /\ score a' j = score a j)) ->
  ((#|on a S| < k)%N -> forall j, j \notin on a S -> a' j <= 0) ->
  forall j, H j -> code a' S' j = code a S j.
Proof.
move=> hH hfull hfew j Hj; have [cS vS] := hS; have [cS' vS'] := hS'.
move: on_card; rewrite leq_eqVlt => /orP[/eqP full|few].
  have eS : S' = S.
    apply/eqP; rewrite eqEcard cS cS' leqnn andbT; apply/subsetP => i iS'; apply/negPn/negP => iS.
    have [l lS lS'] := swap (etrans cS' (esym cS)) iS' iS.
    have b' := vS' _ _ iS' lS'; case: (hfull full l i lS iS) => [lt|[e1 e2]].
      by have := lt_le_trans lt (beats_le b'); rewrite ltxx.
    apply: (beats_asym (vS _ _ lS iS)); by move: b'; rewrite /beats e1 e2.
  have eon : on a S = S by apply/eqP; rewrite eqEcard on_sub cS full leqnn.
  rewrite /code eS; case jS: (j \in on a S); last first.
    by case: ifP => //; rewrite inE => /andP[h _]; move: jS; rewrite eon h.
  have e := hH j Hj jS; move: (jS); rewrite inE => /andP[h p].
  by rewrite inE h e p.
rewrite /code; case: ifPn => hj'; case: ifPn => hj //.
- exact: hH.
- by move: hj'; rewrite inE => /andP[_]; rewrite ltNge (hfew few j hj).
have e := hH j Hj hj; move: (hj); rewrite inE => /andP[_ p].
move: hj'; rewrite inE negb_and e p orbF => /negP[].
by apply: (few_selected few (hfew few)); rewrite e.
Qed.

(** What follows if the whole code is held: values that are on are kept, the others do not exceed the cut-off. *)
Theorem topk_code_held_necessary : (forall j, code a' S' j = code a S j) ->
  (forall j, j \in on a S -> a' j = a j) /\
  (forall j, j \notin on a S ->
     if #|on a S| == k then forall i, i \in on a S -> score a' j <= score a i else a' j <= 0).
Proof.
move=> h; have [cS vS] := hS; have [cS' vS'] := hS'.
have kept j : j \in on a S -> j \in on a' S' /\ a' j = a j.
  move=> hj; move: (h j); rewrite /code hj; case: ifP => // _ e.
  by move: hj; rewrite inE -e ltxx andbF.
split=> [j /kept[] //|j nj]; have jn : j \notin on a' S'.
  apply/negP => hj; move: (h j); rewrite /code hj (negbTE nj) => e.
  by move: hj; rewrite inE e ltxx andbF.
case: eqP => [full i hi|few].
  have sub : on a S \subset S'.
    by apply/subsetP => l /kept[]; rewrite inE => /andP[].
  have eS : on a S = S' by apply/eqP; rewrite eqEcard sub full cS' leqnn.
  have -> : score a i = score a' i by rewrite /score (kept i hi).2.
  by apply: beats_le; apply: vS'; rewrite -eS.
rewrite leNgt; apply/negP => p.
have jS' : j \notin S' by move: jn; rewrite inE p andbT.
have sub : S' \subset on a S.
  apply/subsetP => i iS'; apply/negPn/negP => ni.
  have pi : 0 < a' i.
    by rewrite -score_gt0; apply: lt_le_trans (beats_le (vS' _ _ iS' jS')); rewrite score_gt0.
  by move: (h i); rewrite /code inE iS' pi (negbTE ni) /= => e; move: pi; rewrite e ltxx.
by apply: few; apply/eqP; rewrite eqn_leq on_card -cS' subset_leq_card.
Qed.

(** The same with a strict gap is enough. *)
Theorem topk_code_held_sufficient :
  (forall j, j \in on a S -> a' j = a j) ->
  (forall j, j \notin on a S ->
     if #|on a S| == k then forall i, i \in on a S -> score a' j < score a i else a' j <= 0) ->
  forall j, code a' S' j = code a S j.
Proof.
move=> hon hoff j; have [cS vS] := hS; apply: (@topk_set_held predT) => //.
- by move=> i _; apply: hon.
- move=> full i l iS lS.
  have eon : on a S = S by apply/eqP; rewrite eqEcard on_sub cS full leqnn.
  left; have := hoff l; rewrite eon lS -{1}eon full eqxx => /(_ isT i iS) lt.
  by rewrite {2}/score hon ?eon.
by move=> few l nl; have := hoff l nl; rewrite ltn_eqF.
Qed.

End TopK.
