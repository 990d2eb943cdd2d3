(** held-cell: what "the features are held" means, feature by feature.
    [a] is the pre-activation before the perturbation and [a'] after it; by [preactivation_shift] it moves by
    [s * dot w delta]. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Scalar.
Variable R : realFieldType.
Implicit Types (a t p m : R).

(** The pre-activations are affine in the residual. *)
Theorem preactivation_shift d n (W : 'M[R]_(d, n)) (b : 'cV[R]_n) (c y delta : 'cV[R]_d) (s : R) j :
  let a z := W^T *m (s *: z - c) + b in a (y + delta) j 0 = a y j 0 + s * dot (col j W) delta.
Proof.
rewrite /= scalerDr addrAC [W^T *m (_ + _)]mulmxDr addrAC [LHS]mxE; congr (_ + _).
by rewrite -scalemxAr [LHS]mxE mulmx_dot -tr_col trmxK.
Qed.

Definition relu a : R := if 0 < a then a else 0.
Definition jumprelu t a : R := if Num.max t 0 < a then a else 0.

(** Gated: the gate [p] and the magnitude [m] must both be positive. *)
Definition gated p m : R := if (0 < p) && (0 < m) then m else 0.

(** ReLU and JumpReLU. A feature that is on keeps its value iff its pre-activation is kept. *)
Theorem held_on t a a' : Num.max t 0 < a -> jumprelu t a' = jumprelu t a <-> a' = a.
Proof.
move=> h; rewrite /jumprelu h; split=> [|->]; last by rewrite h.
case: ifP => // _ e; move: h; rewrite -e => h.
by have := le_lt_trans (_ : 0 <= Num.max t 0) h; rewrite ltxx le_maxr lexx orbT => /(_ isT).
Qed.

(** A feature that is off stays off iff its pre-activation is at most the threshold. *)
Theorem held_off t a a' : a <= Num.max t 0 -> jumprelu t a' = jumprelu t a <-> a' <= Num.max t 0.
Proof.
move=> h; rewrite /jumprelu (le_gtF h) leNgt; split=> [|/negbTE -> //].
case: ifP => // l e; move: l; rewrite e => l.
by have := le_lt_trans (_ : 0 <= Num.max t 0) l; rewrite ltxx le_maxr lexx orbT => /(_ isT).
Qed.

(** ReLU is JumpReLU with threshold zero. *)
Lemma reluE a : relu a = jumprelu 0 a.
Proof. by rewrite /relu /jumprelu maxxx. Qed.

(** Gated, on. The magnitude and the gate move with the same normal: [m' = m + e * x] and [p' = p + x], [e > 0]. *)
Theorem held_gated_on p m e x : 0 < e -> 0 < p -> 0 < m ->
  gated (p + x) (m + e * x) = gated p m <-> x = 0.
Proof.
move=> e0 p0 m0; rewrite /gated p0 m0 /=; split=> [|->]; last by rewrite mulr0 !addr0 p0 m0.
case: ifP => [_ /eqP|_ h]; last by move: m0; rewrite -h ltxx.
by rewrite addrC -subr_eq0 addrK mulf_eq0 (gt_eqF e0) => /eqP.
Qed.

(** Gated, off. It stays off iff [x <= max (- p) (- m / e)]. *)
Theorem held_gated_off p m e x : 0 < e -> ~~ ((0 < p) && (0 < m)) ->
  gated (p + x) (m + e * x) = gated p m <-> x <= Num.max (- p) (- m / e).
Proof.
move=> e0 off; rewrite /gated (negbTE off).
have -> : (x <= Num.max (- p) (- m / e)) = ~~ ((0 < p + x) && (0 < m + e * x)).
  rewrite le_maxr negb_and -!leNgt ler_pdivl_mulr // (mulrC x).
  by rewrite -[x <= - p]subr_ge0 -[e * x <= _]subr_ge0 -!oppr_ge0 !opprD.
case: ifP => [/andP[_ h]|_]; last by split.
by split=> // e1; move: h; rewrite e1 ltxx.
Qed.

End Scalar.

Section Layer.
Variables (R : realFieldType) (d n : nat) (W : 'M[R]_(d, n)) (b t : 'cV[R]_n) (c y delta : 'cV[R]_d) (s : R).
Hypothesis s0 : 0 < s.
Let a (z : 'cV[R]_d) := W^T *m (s *: z - c) + b.

(** The code of a JumpReLU layer (thresholds [t]; ReLU for [t = 0]). *)
Definition jump_code (z : 'cV[R]_d) j := jumprelu (t j 0) (a z j 0).

(** The features in [S] are held iff [delta] is orthogonal to the columns of those that are on, and the others do
    not use up their room. *)
Theorem held_cell_jumprelu (S : pred 'I_n) :
  (forall j, S j -> jump_code (y + delta) j = jump_code y j) <->
  (forall j, S j -> if Num.max (t j 0) 0 < a y j 0 then dot (col j W) delta = 0
                    else s * dot (col j W) delta <= Num.max (t j 0) 0 - a y j 0).
Proof.
suff k j : jump_code (y + delta) j = jump_code y j <->
           if Num.max (t j 0) 0 < a y j 0 then dot (col j W) delta = 0
                    else s * dot (col j W) delta <= Num.max (t j 0) 0 - a y j 0.
  by split=> h j /h /k.
have := preactivation_shift W b c y delta s j; rewrite /= -/(a _) -/(a _) => e.
rewrite /jump_code; case: ifPn => [on|]; last first.
  by rewrite -leNgt => off; rewrite held_off // e ler_subr_addl.
rewrite held_on // e; split=> [/eqP|->]; last by rewrite mulr0 addr0.
by rewrite addrC -subr_eq0 addrK mulf_eq0 (gt_eqF s0) => /eqP.
Qed.

End Layer.

Section GatedLayer.
Variables (R : realFieldType) (d n : nat) (W : 'M[R]_(d, n)) (bp bm e : 'cV[R]_n) (c y delta : 'cV[R]_d) (s : R).
Hypotheses (s0 : 0 < s) (e0 : forall j, 0 < e j 0).

(** Gate and magnitude of a Gated layer; [e] holds the positive factors [exp r_j]. *)
Definition gate (z : 'cV[R]_d) j := dot (col j W) (s *: z - c) + bp j 0.
Definition magnitude (z : 'cV[R]_d) j := e j 0 * dot (col j W) (s *: z - c) + bm j 0.

Theorem held_cell_gated (S : pred 'I_n) :
  (forall j, S j -> gated (gate (y + delta) j) (magnitude (y + delta) j) = gated (gate y j) (magnitude y j)) <->
  (forall j, S j -> if (0 < gate y j) && (0 < magnitude y j) then dot (col j W) delta = 0
     else s * dot (col j W) delta <= Num.max (- gate y j) (- magnitude y j / e j 0)).
Proof.
suff k j : gated (gate (y + delta) j) (magnitude (y + delta) j) = gated (gate y j) (magnitude y j) <->
  if (0 < gate y j) && (0 < magnitude y j) then dot (col j W) delta = 0
     else s * dot (col j W) delta <= Num.max (- gate y j) (- magnitude y j / e j 0).
  by split=> h j /h /k.
have hg : gate (y + delta) j = gate y j + s * dot (col j W) delta.
  by rewrite /gate scalerDr !dot_lin; ring.
have hm : magnitude (y + delta) j = magnitude y j + e j 0 * (s * dot (col j W) delta).
  by rewrite /magnitude scalerDr !dot_lin; ring.
rewrite hg hm; case: ifPn => [/andP[p0 m0]|off]; last exact: held_gated_off.
rewrite held_gated_on //; split=> [/eqP|->]; last by rewrite mulr0.
by rewrite mulf_eq0 (gt_eqF s0) => /eqP.
Qed.

End GatedLayer.
