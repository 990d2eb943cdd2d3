(* The checker of quadratic bounds: functions over Z, as in Check.v. What they prove is said in QuadraticMeaning.v and
   proved in QuadraticSound.v.

   Every number is an integer times a unit, and three units are enough:
     y, the radius and the centre                       ux
     normals of the constraints                         ub ux
     their levels                                       ub ux^2
     multipliers                                        uc
     the matrix and the shift                           ub uc
     the linear part                                    ub uc ux
     the constant and the claimed bound                 ub uc ux^2
   The factor has no unit: `gain` times its Gram matrix is in that of the matrix. *)

From Coq Require Import ZArith List Bool.
From SaeVerified Require Import Check.
Import ListNotations.
Local Open Scope Z_scope.

(* normal . y = level, or normal . y <= level; and its multiplier. *)
Record constraint := Constraint {
  acts_as : role;
  level_of : Z;
  price : Z;
  normal : list Z
}.

(* constant + linear . y + y . Q y / 2 over the ball of this radius and the constraints. `matrix` is the upper triangle
   of the symmetric Q: row i is Q_ii, Q_i,i+1, ... *)
Record quadratic := Quadratic {
  reach : Z;
  constant : Z;
  linear : list Z;
  matrix : list (list Z);
  constraints : list constraint
}.

(* What is found by whoever searches; nothing is assumed of it. `factor` has the rows of L, ended anywhere. *)
Record evidence := Evidence {
  shift_by : Z;
  gain : Z;
  centre : list Z;
  factor : list (list Z)
}.

(* Whether these are the rows of an upper triangle, one as long as what is left of v. *)
Fixpoint triangle (rows : list (list Z)) (v : list Z) : bool :=
  match rows, v with
  | [], [] => true
  | row :: rows', _ :: v' => same_length row v && triangle rows' v'
  | _, _ => false
  end.

(* The linear part less what the constraints explain, and the cost so far. *)
Fixpoint charge (a : list Z) (cost : Z) (cs : list constraint) : outcome (list Z * Z) :=
  match cs with
  | [] => Good (a, cost)
  | c :: cs' =>
      if same_length (normal c) a then
        if match acts_as c with Equality => true | HalfSpace => 0 <=? price c end
        then charge (subtract (price c) a (normal c)) (cost + price c * level_of c) cs'
        else Bad MultiplierNegative
      else Bad LengthsDiffer
  end.

(* Q v *)
Fixpoint product (rows : list (list Z)) (v : list Z) : list Z :=
  match rows, v with
  | (diagonal :: off) :: rows', x :: v' =>
      dot_from (diagonal * x) off v' :: subtract (0 - x) (product rows' v') off
  | _, _ => []
  end.

(* What row i of m I - Q - gain L L^T has off the diagonal, in size: its sum, and `loads` with each entry added at its
   place. `l` is row i of L, `ls` are the rows below. *)
Fixpoint owe (gain : Z) (l : list Z) (off : list Z) (ls : list (list Z)) (loads : list Z) : Z * list Z :=
  match off, ls, loads with
  | q :: off', l' :: ls', load :: loads' =>
      let size := Z.abs (q + gain * dot_from 0 l l') in
      let (sum, rest) := owe gain l off' ls' loads' in
      (size + sum, (load + size) :: rest)
  | _, _, _ => (0, [])
  end.

(* Whether m I - Q - gain L L^T is diagonally dominant, its diagonal not negative; `loads` is what the rows above have off
   the diagonal, by column. *)
Fixpoint dominant (m gain : Z) (rows ls : list (list Z)) (loads : list Z) : bool :=
  match rows, ls, loads with
  | [], [], [] => true
  | (q :: off) :: rows', l :: ls', load :: loads' =>
      let (sum, rest) := owe gain l off ls' loads' in
      (load + sum <=? m - q - gain * dot_from 0 l l) && dominant m gain rows' ls' rest
  | _, _, _ => false
  end.

(* As many zeros as there are rows. *)
Definition nothing (rows : list (list Z)) : list Z := map (fun _ => 0) rows.

(* Every y within the radius that obeys the constraints has constant + linear . y + y . Q y / 2 <= upper. With
   M = m I - Q positive semidefinite, a what is left of the linear part and r = a - M v,
     a . y - y . M y / 2 <= v . M v / 2 + r . y,
   and r . y is at most the radius times ||r||. *)
Definition check_quadratic (root : Z -> Z) (q : quadratic) (e : evidence) (upper : Z) : outcome unit :=
  let m := shift_by e in
  let v := centre e in
  if reach q <? 0 then Bad RadiusNegative
  else if (m <? 0) || (gain e <? 0) then Bad ShiftNegative
  else if negb (triangle (matrix q) v && same_length (linear q) v) then Bad LengthsDiffer
  else if negb (dominant m (gain e) (matrix q) (factor e) (nothing (matrix q))) then Bad NotDominant
  else
    match charge (linear q) 0 (constraints q) with
    | Bad why => Bad why
    | Good (a, cost) =>
        let moved_by := product (matrix q) v in
        match dual_norm root L2 (subtract m (moved a moved_by) v) with
        | Bad why => Bad why
        | Good t =>
            if fine * (2 * (constant q + cost) + m * (reach q * reach q + dot_from 0 v v) - dot_from 0 v moved_by)
               + 2 * (reach q * t) <=? fine * (2 * upper)
            then Good tt
            else Bad BoundExceeded
        end
    end.
