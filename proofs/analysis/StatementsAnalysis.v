(** The theorems that need real analysis, restated so that they can be checked without reading a proof.
    They rest on the classical axioms of mathcomp-analysis; ../axioms.allow lists them theorem by theorem.

    What has to be read besides: [dot], [norm], [is_orthproj] in ../Base.v. [realType] is the reals; [is_derive x 1 f a]
    says that [f] has the derivative [a] at [x]; [expR] is the exponential. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import boolp classical_sets functions reals signed topology normedtype sequences derive.
From mathcomp Require Import realfun exp.
From SaeProofs Require Import Base.
From SaeProofs.analysis Require Taylor Activation Exponential.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory numFieldNormedType.Exports.
Local Open Scope ring_scope.

(** * Activations: derivatives and their bound are needed on the segment from [c] to [c + u] only *)

Theorem activation_second (R : realType) (f f1 f2 : R -> R) (c u M : R) :
  (forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f (f1 (c + t * u))) ->
  (forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f1 (f2 (c + t * u))) ->
  (forall t, 0 <= t <= 1 -> `|f2 (c + t * u)| <= M) ->
  `|f (c + u) - f c - f1 c * u| <= M * u ^+ 2 / 2.
Proof. exact: Activation.activation_second. Qed.

Theorem activation_third (R : realType) (f f1 f2 f3 : R -> R) (c u M : R) :
  (forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f (f1 (c + t * u))) ->
  (forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f1 (f2 (c + t * u))) ->
  (forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f2 (f3 (c + t * u))) ->
  (forall t, 0 <= t <= 1 -> `|f3 (c + t * u)| <= M) ->
  `|f (c + u) - f c - f1 c * u - f2 c * u ^+ 2 / 2| <= M * `|u| ^+ 3 / 6.
Proof. exact: Activation.activation_third. Qed.

(** [curvature_bound] from second derivatives: [F1 delta] and [F2 delta] are the derivatives of [t |-> F (t delta)]. *)
Theorem curvature_derived (R : realType) d s (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d) (F : 'cV[R]_d -> R)
    (F1 F2 : 'cV[R]_d -> R -> R) H r : is_orthproj E P -> 0 <= H ->
  (forall delta, E^T *m delta = 0 -> norm delta <= r ->
    [/\ forall t : R, 0 <= t <= 1 -> is_derive t 1 (fun x : R => F (x *: delta)) (F1 delta t),
        forall t : R, 0 <= t <= 1 -> is_derive t 1 (F1 delta) (F2 delta t), F1 delta 0 = dot g delta
      & forall t, 0 <= t <= 1 -> F2 delta t <= H * norm delta ^+ 2]) ->
  forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + r * norm (P *m g) + H / 2 * r ^+ 2.
Proof. exact: Activation.curvature_derived. Qed.

(** * The exponential, and softmax with it *)

Theorem exp_tangent (R : realType) (c : R) : 1 + c <= expR c.
Proof. exact: Exponential.exp_tangent. Qed.

Theorem exp_second (R : realType) (c : R) : `|expR c - 1 - c| <= expR (Num.max c 0) * c ^+ 2 / 2.
Proof. exact: Exponential.exp_second. Qed.

Theorem exp_third (R : realType) (c : R) :
  `|expR c - 1 - c - c ^+ 2 / 2| <= expR (Num.max c 0) * `|c| ^+ 3 / 6.
Proof. exact: Exponential.exp_third. Qed.

(** A change [delta] of the scores multiplies the weights by the exponentials of the centred change. *)
Theorem softmax_shift (R : realType) n (s delta : 'I_n -> R) j :
  let softmax u i : R := expR (u i) / \sum_k expR (u k) in
  let c i := delta i - \sum_k softmax s k * delta k in
  softmax (fun i => s i + delta i) j = softmax s j * expR (c j) / \sum_i softmax s i * expR (c i).
Proof. exact: Exponential.softmax_shift. Qed.

(** What the first and the second order leave out of an attention output, when the scores [s] move by [delta]. *)
Theorem softmax_exp (R : realType) d n (s delta p p' c : 'I_n -> R) (v : 'I_n -> 'cV[R]_d) (a L L2 : 'cV[R]_d) :
  (forall j, p j = expR (s j) / \sum_k expR (s k)) ->
  (forall j, p' j = expR (s j + delta j) / \sum_k expR (s k + delta k)) ->
  (forall j, c j = delta j - \sum_k p k * delta k) ->
  a = \sum_j p j *: v j -> L = \sum_j (p j * c j) *: (v j - a) ->
  L2 = \sum_j (p j * (c j + c j ^+ 2 / 2)) *: (v j - a) ->
  let a' := \sum_j p' j *: v j in
  let second j := expR (Num.max (c j) 0) * c j ^+ 2 / 2 in
  let third j := expR (Num.max (c j) 0) * `|c j| ^+ 3 / 6 in
  norm (a' - a - L) <= \sum_j p j * second j * norm (v j - a - L) /\
  norm (a' - a - L2) <= \sum_j p j * third j * norm (v j - a) + (\sum_j p j * second j) * norm L2.
Proof.
move=> ep ep' ec ea eL eL2; have {}ep : p = Exponential.softmax s by apply/funext.
have {}ep' : p' = Exponential.softmax (fun i => s i + delta i) by apply/funext.
by move: ec ea eL eL2; rewrite ep ep'; apply: Exponential.softmax_exp.
Qed.
