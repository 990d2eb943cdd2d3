(* What the checker's integers mean, over any ordered field (the rationals, the reals): the definitions that the
   soundness theorems speak of. *)

From Coq Require Import ZArith.
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import ssrZ.
From SaeVerified Require Import Check.

Import GRing.Theory Num.Theory Order.Theory.
Local Open Scope ring_scope.

Section Meaning.

(* An ordered field, and the four units; see Check.v. *)
Variables (F : realFieldType) (ux us uw um : F).

(* An integer times its unit. *)
Definition value (unit : F) (z : Z) : F := (int_of_Z z)%:~R * unit.

(* A list of integers as a vector. *)
Definition vector (unit : F) (d : nat) (v : seq Z) : 'I_d -> F := fun i => value unit (nth Z0 v i).

(* The inner product. *)
Definition dot (d : nat) (u v : 'I_d -> F) : F := \sum_i u i * v i.

(* y + delta *)
Definition plus (d : nat) (y delta : 'I_d -> F) : 'I_d -> F := fun i => y i + delta i.

(* The width of the residual stream. *)
Definition width (q : question) : nat := size (point q).

(* The residual. *)
Definition residual (q : question) : 'I_(width q) -> F := vector ux (width q) (point q).

(* The direction. *)
Definition objective (q : question) : 'I_(width q) -> F := vector (um * uw) (width q) (direction q).

(* w . (s y - b_dec) + b_enc *)
Definition preactivation_at (q : question) (c : column) (y : 'I_(width q) -> F) : F :=
  dot (width q) (vector uw (width q) (weights c))
    (fun i => value us (scale q) * y i - vector (ux * us) (width q) (shift q) i)
  + value (ux * us * uw) (bias c).

(* ReLU: max(0, a). JumpReLU: max(0, a) where a > threshold, else 0. *)
Definition code_at (q : question) (c : column) (y : 'I_(width q) -> F) : F :=
  let a := preactivation_at q c y in
  match arch q with
  | ReLU => Num.max 0 a
  | JumpReLU => if value (ux * us * uw) (threshold c) < a then Num.max 0 a else 0
  end.

(* delta keeps what is held, of every feature that is listed. *)
Definition keeps (q : question) (delta : 'I_(width q) -> F) : Prop :=
  forall c, List.In c (columns q) ->
  match kept q with
  | Free => True
  | Preactivations => preactivation_at q c (plus (width q) (residual q) delta) = preactivation_at q c (residual q)
  | Code => code_at q c (plus (width q) (residual q) delta) = code_at q c (residual q)
  end.

(* ||delta||_2 <= radius, both squared so that no square root is needed (the radius is not negative); or
   ||delta||_inf <= radius. *)
Definition small (q : question) (delta : 'I_(width q) -> F) : Prop :=
  match ball q with
  | L2 => dot (width q) delta delta <= value ux (radius q) ^+ 2
  | Linf => forall i, `|delta i| <= value ux (radius q)
  end.

End Meaning.

Arguments value {F} unit z.
Arguments vector {F} unit {d} v i.
Arguments dot {F d} u v.
Arguments plus {F d} y delta i.
Arguments residual {F} ux q i.
Arguments objective {F} uw um q i.
Arguments preactivation_at {F} ux us uw q c y.
Arguments code_at {F} ux us uw q c y.
Arguments keeps {F} ux us uw q delta.
Arguments small {F} ux q delta.

(* 2^-e in a field: with such units the integers are what IEEE floats are. *)
Definition power (F : realFieldType) (e : nat) : F := 2%:R ^- e.
