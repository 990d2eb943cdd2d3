(* The checker: functions over the binary integers Z, with nothing but the standard library. What they prove is said in
   Meaning.v and proved in Sound.v; Extract.v turns them into OCaml.

   Every number of the question is an integer times a unit, and the units belong together:
     the residual, delta and the radius                 ux
     the input scale                                    us
     entries of the encoder's columns                   uw
     multipliers                                        um
     the bias of the decoder                            ux us
     the biases of the encoder and the thresholds       ux us uw
     the direction                                      um uw
     the claimed bounds                                 um uw ux
   so that no unit appears below: what is decided holds for every choice of four positive units. *)

From Coq Require Import ZArith List Bool.
Import ListNotations.
Local Open Scope Z_scope.

(* The architectures whose code is decided by one comparison a feature. *)
Inductive architecture := ReLU | JumpReLU.

(* What a perturbation keeps: nothing, pre-activations, or the code, of the features that are listed. *)
Inductive held := Free | Preactivations | Code.

(* The norm that bounds a perturbation. *)
Inductive shape := L2 | Linf.

(* How a feature is used: it does not move, or it stays on its side of a half-space. *)
Inductive role := Equality | HalfSpace.

(* One feature: its bias, its threshold (ReLU ignores it), its multiplier, and its column of the encoder. *)
Record column := Column {
  used_as : role;
  bias : Z;
  threshold : Z;
  multiplier : Z;
  weights : list Z
}.

(* max direction . delta over what keeps the features in `columns` and lies within `radius`; `shift` is the bias of the
   decoder, or zero where the encoder does not subtract it. *)
Record question := Question {
  arch : architecture;
  kept : held;
  ball : shape;
  scale : Z;
  radius : Z;
  point : list Z;
  shift : list Z;
  direction : list Z;
  columns : list column
}.

(* Why a question is not decided as claimed. *)
Inductive reason :=
  | ScaleNotPositive | RadiusNegative | LengthsDiffer | NotHeld | MayBeOff | MultiplierNegative | RootTooSmall
  | BoundExceeded | OutsideBall | NotKept | BoundNotReached | ShiftNegative | NotDominant.

(* A result, or why there is none. *)
Inductive outcome (A : Type) := Good (a : A) | Bad (why : reason).
Arguments Good {A} a.
Arguments Bad {A} why.

(* Whether two lists have the same length. *)
Fixpoint same_length {A B : Type} (u : list A) (v : list B) : bool :=
  match u, v with
  | [], [] => true
  | _ :: u', _ :: v' => same_length u' v'
  | _, _ => false
  end.

(* start + u . v *)
Fixpoint dot_from (start : Z) (u v : list Z) : Z :=
  match u, v with
  | a :: u', b :: v' => dot_from (start + a * b) u' v'
  | _, _ => start
  end.

(* start + sum |u| *)
Fixpoint total_from (start : Z) (u : list Z) : Z :=
  match u with
  | [] => start
  | a :: u' => total_from (start + Z.abs a) u'
  end.

(* v - m w *)
Fixpoint subtract (m : Z) (v w : list Z) : list Z :=
  match v, w with
  | a :: v', b :: w' => (a - m * b) :: subtract m v' w'
  | _, _ => []
  end.

(* s y - b: what the columns are multiplied with *)
Fixpoint encoder_input (s : Z) (y b : list Z) : list Z :=
  match y, b with
  | a :: y', c :: b' => (s * a - c) :: encoder_input s y' b'
  | _, _ => []
  end.

(* y + delta *)
Fixpoint moved (y delta : list Z) : list Z :=
  match y, delta with
  | a :: y', b :: delta' => (a + b) :: moved y' delta'
  | _, _ => []
  end.

(* The pre-activation of a feature, from the encoder's input. *)
Definition preactivation (input : list Z) (c : column) : Z := dot_from (bias c) (weights c) input.

(* A feature is on exactly where its pre-activation exceeds this. *)
Definition level (a : architecture) (c : column) : Z :=
  match a with
  | ReLU => 0
  | JumpReLU => Z.max 0 (threshold c)
  end.

(* A feature with its multiplier: the direction less what it explains, and the cost so far. The room of a half-space is
   clipped at zero, which is true of a feature that is on, too: it does not move. *)
Definition take (q : question) (input v : list Z) (cost : Z) (c : column) : outcome (list Z * Z) :=
  if same_length (weights c) input then
    match used_as c, kept q with
    | Equality, Preactivations => Good (subtract (multiplier c) v (weights c), cost)
    | Equality, Code =>
        if level (arch q) c <? preactivation input c
        then Good (subtract (multiplier c) v (weights c), cost)
        else Bad MayBeOff
    | HalfSpace, Code =>
        if 0 <=? multiplier c
        then Good (subtract (multiplier c) v (weights c),
                   cost + multiplier c * Z.max 0 (level (arch q) c - preactivation input c))
        else Bad MultiplierNegative
    | _, _ => Bad NotHeld
    end
  else Bad LengthsDiffer.

(* All of them, one after the other. *)
Fixpoint take_all (q : question) (input v : list Z) (cost : Z) (cs : list column) : outcome (list Z * Z) :=
  match cs with
  | [] => Good (v, cost)
  | c :: cs' =>
      match take q input v cost c with
      | Good (v', cost') => take_all q input v' cost' cs'
      | Bad why => Bad why
      end
  end.

(* 2^64: the dual norm is rounded up to a multiple of 1 / fine of the direction's unit. *)
Definition fine : Z := 18446744073709551616.

(* An integer that is at least `fine` times the dual norm of v. The square root may come from anywhere: it is
   checked. *)
Definition dual_norm (root : Z -> Z) (s : shape) (v : list Z) : outcome Z :=
  match s with
  | Linf => Good (fine * total_from 0 v)
  | L2 =>
      let square := fine * fine * dot_from 0 v v in
      let t := root square in
      if (0 <=? t) && (square <=? t * t) then Good t else Bad RootTooSmall
  end.

(* What every question must obey. *)
Definition well_formed (q : question) : outcome unit :=
  if scale q <=? 0 then Bad ScaleNotPositive
  else if radius q <? 0 then Bad RadiusNegative
  else if same_length (shift q) (point q) && same_length (direction q) (point q) then Good tt
  else Bad LengthsDiffer.

(* The upper side: every delta that keeps the features and lies in the ball has direction . delta <= upper. *)
Definition check_upper (root : Z -> Z) (q : question) (upper : Z) : outcome unit :=
  match well_formed q with
  | Bad why => Bad why
  | Good _ =>
      match take_all q (encoder_input (scale q) (point q) (shift q)) (direction q) 0 (columns q) with
      | Bad why => Bad why
      | Good (v, cost) =>
          match dual_norm root (ball q) v with
          | Bad why => Bad why
          | Good t =>
              if fine * cost + scale q * radius q * t <=? fine * (scale q * upper) then Good tt else Bad BoundExceeded
          end
      end
  end.

(* The code of a feature whose pre-activation is a. *)
Definition activation (k : architecture) (c : column) (a : Z) : Z := if level k c <? a then a else 0.

(* Whether a feature is the same at two inputs of the encoder. *)
Definition unmoved (q : question) (input input' : list Z) (c : column) : outcome unit :=
  if same_length (weights c) input then
    let a := preactivation input c in
    let a' := preactivation input' c in
    match kept q with
    | Free => Bad NotHeld
    | Preactivations => if a =? a' then Good tt else Bad NotKept
    | Code => if activation (arch q) c a =? activation (arch q) c a' then Good tt else Bad NotKept
    end
  else Bad LengthsDiffer.

(* The same of every feature. *)
Fixpoint all_unmoved (q : question) (input input' : list Z) (cs : list column) : outcome unit :=
  match cs with
  | [] => Good tt
  | c :: cs' =>
      match unmoved q input input' c with
      | Good _ => all_unmoved q input input' cs'
      | Bad why => Bad why
      end
  end.

(* Whether every entry is at most r in size. *)
Fixpoint within (r : Z) (u : list Z) : bool :=
  match u with
  | [] => true
  | a :: u' => (Z.abs a <=? r) && within r u'
  end.

(* Whether a perturbation lies in the ball. *)
Definition in_ball (q : question) (delta : list Z) : bool :=
  match ball q with
  | L2 => dot_from 0 delta delta <=? radius q * radius q
  | Linf => within (radius q) delta
  end.

(* The lower side: delta, as given, keeps the features, lies in the ball and reaches `lower`. *)
Definition check_lower (q : question) (lower : Z) (delta : list Z) : outcome unit :=
  match well_formed q with
  | Bad why => Bad why
  | Good _ =>
      if negb (same_length delta (point q)) then Bad LengthsDiffer
      else if negb (in_ball q delta) then Bad OutsideBall
      else if negb (lower <=? dot_from 0 (direction q) delta) then Bad BoundNotReached
      else all_unmoved q (encoder_input (scale q) (point q) (shift q))
             (encoder_input (scale q) (moved (point q) delta) (shift q)) (columns q)
  end.
