(* What the integers of a quadratic bound mean, over any ordered field: the definitions that its soundness theorem speaks
   of. *)

From Coq Require Import ZArith.
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ssrZ.
From SaeVerified Require Import Check Meaning Quadratic.

Import GRing.Theory Num.Theory Order.Theory.
Local Open Scope ring_scope.

Section QuadraticMeaning.

(* An ordered field, and the three units; see Quadratic.v. *)
Variables (F : realFieldType) (ux ub uc : F).

(* The dimension. *)
Definition order (q : quadratic) : nat := size (matrix q).

(* Entry i, j of the symmetric matrix of which the rows are the upper triangle. *)
Definition entry (rows : seq (seq Z)) (i j : nat) : Z :=
  if (i <= j)%N then nth Z0 (nth [::] rows i) (j - i) else nth Z0 (nth [::] rows j) (i - j).

(* constant + linear . y + y . Q y / 2 *)
Definition quadratic_at (q : quadratic) (y : 'I_(order q) -> F) : F :=
  value (ub * uc * ux ^+ 2) (constant q)
  + dot (vector (ub * uc * ux) (linear q)) y
  + 2%:R^-1 * \sum_(i < order q) \sum_(j < order q) value (ub * uc) (entry (matrix q) i j) * y i * y j.

(* y obeys every constraint. *)
Definition obeys (q : quadratic) (y : 'I_(order q) -> F) : Prop :=
  forall c, List.In c (constraints q) ->
  let height := dot (vector (ub * ux) (normal c)) y in
  match acts_as c with
  | Equality => height = value (ub * ux ^+ 2) (level_of c)
  | HalfSpace => height <= value (ub * ux ^+ 2) (level_of c)
  end.

(* ||y||_2 <= radius, both squared. *)
Definition within_reach (q : quadratic) (y : 'I_(order q) -> F) : Prop := dot y y <= value ux (reach q) ^+ 2.

End QuadraticMeaning.

Arguments quadratic_at {F} ux ub uc q y.
Arguments obeys {F} ux ub q y.
Arguments within_reach {F} ux q y.
