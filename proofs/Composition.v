(** Sound bounds compose: intersection, case splits over a cover, composition of enclosures, a tail with a remainder. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Bounds.
Variables (R : realFieldType) (T : Type).
Implicit Types (F : T -> R) (X Y : T -> Prop) (u v : R).

(** [u] is a sound upper bound of [F] over [X]. *)
Definition upper_bound F X u := forall x, X x -> F x <= u.

(** The better one of two bounds is a bound. *)
Theorem bound_intersection F X u v : upper_bound F X u -> upper_bound F X v -> upper_bound F X (Num.min u v).
Proof. by move=> hu hv x hx; rewrite le_minr hu ?hv. Qed.

(** A bound on a larger set is a bound. *)
Theorem bound_relaxation F X Y u : (forall x, X x -> Y x) -> upper_bound F Y u -> upper_bound F X u.
Proof. by move=> h hu x /h; apply: hu. Qed.

(** Case splits: parts that cover the set, each with a bound at most [u]. *)
Theorem bound_cover (I : Type) F X (part : I -> T -> Prop) (b : I -> R) u :
  (forall x, X x -> exists i, part i x) ->
  (forall i, upper_bound F (fun x => X x /\ part i x) (b i)) -> (forall i, b i <= u) -> upper_bound F X u.
Proof. by move=> hc hb hu x hx; have [i hi] := hc x hx; apply: le_trans (hu i); apply: (hb i). Qed.

(** Branching on one hyperplane. *)
Theorem bound_branch F X (a : T -> R) u :
  upper_bound F (fun x => X x /\ a x <= 0) u -> upper_bound F (fun x => X x /\ 0 <= a x) u -> upper_bound F X u.
Proof. by move=> h1 h2 x hx; have [n|p] := lerP (a x) 0; [apply: h1 | apply: h2; split=> //; apply: ltW]. Qed.

(** A concrete point refutes every smaller bound. *)
Theorem witness_refutes F X x t : X x -> t < F x -> ~ upper_bound F X t.
Proof. by move=> hx lt /(_ x hx); rewrite leNgt lt. Qed.

End Bounds.

Section Composition.
Variables (T U V : Type).

(** [f] maps [X] into [Y]. *)
Definition encloses (A B : Type) (f : A -> B) (X : A -> Prop) (Y : B -> Prop) := forall x, X x -> Y (f x).

(** Sound transformers compose. *)
Theorem enclosure_composition (f : T -> U) (g : U -> V) X Y Z :
  encloses f X Y -> encloses g Y Z -> encloses (g \o f) X Z.
Proof. by move=> hf hg x /hf /hg. Qed.

End Composition.

Section Affine.
Variables (R : realFieldType) (d : nat).

(** Back-substitution through a relaxation: [phi] is below the line [a x + b] entry by entry on the set, and the
    coefficients that meet it are non-negative; those that meet a lower line [a' x + b'] are not positive. *)
Theorem relaxation_step (X : 'cV[R]_d -> Prop) (phi : R -> R) (c a b a' b' : 'cV[R]_d) :
  (forall x i, X x -> phi (x i 0) <= a i 0 * x i 0 + b i 0) ->
  (forall x i, X x -> a' i 0 * x i 0 + b' i 0 <= phi (x i 0)) ->
  forall x, X x -> \sum_i c i 0 * phi (x i 0) <=
    \sum_i (if 0 <= c i 0 then c i 0 * (a i 0 * x i 0 + b i 0) else c i 0 * (a' i 0 * x i 0 + b' i 0)).
Proof.
move=> hu hl x hx; apply: ler_sum => i _; case: ifPn => [c0|].
  by rewrite ler_wpmul2l // hu.
by rewrite -ltNge => c0; rewrite ler_wnmul2l ?hl // ltW.
Qed.

(** The chord bounds a rectified linear unit from above on an interval that contains zero. *)
Theorem relu_chord (l u x : R) : l < 0 -> 0 < u -> l <= x <= u -> Num.max x 0 <= u / (u - l) * (x - l).
Proof.
move=> l0 u0 /andP[lx xu].
have ul : 0 < u - l by rewrite subr_gt0; apply: lt_trans u0.
rewrite le_maxl; apply/andP; split; last by rewrite mulr_ge0 ?subr_ge0 // divr_ge0 // ltW.
rewrite mulrAC ler_pdivl_mulr // -subr_ge0.
rewrite [X in 0 <= X](_ : _ = - l * (u - x)); last by ring.
by rewrite mulr_ge0 ?subr_ge0 // oppr_ge0 ltW.
Qed.

(** A line through the origin with slope between zero and one bounds it from below. *)
Theorem relu_below (a x : R) : 0 <= a <= 1 -> a * x <= Num.max x 0.
Proof.
case/andP=> a0 a1; rewrite le_maxr; have [x0|x0] := lerP 0 x.
  by rewrite -{2}(mul1r x) ler_wpmul2r.
by rewrite mulr_ge0_le0 ?orbT // ltW.
Qed.

End Affine.

Section Tail.
Variables (R : rcfType) (d s : nat) (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d).

(** A tail with a quadratic remainder: first order along the free directions, and [H / 2] times the squared radius. *)
Theorem curvature_bound (F : 'cV[R]_d -> R) H r : is_orthproj E P -> 0 <= H ->
  (forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + dot g delta + H / 2 * norm delta ^+ 2) ->
  forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + r * norm (P *m g) + H / 2 * r ^+ 2.
Proof.
move=> hP H0 h delta hE hr; apply: le_trans (h _ hE hr) _; rewrite -!addrA ler_add2l.
apply: ler_add; first by rewrite (orthproj_dot g hP hE); apply: dot_le_ball.
have r0 : 0 <= r by apply: le_trans hr; apply: norm_ge0.
by rewrite ler_wpmul2l ?divr_ge0 ?ler0n // ler_pexpn2r ?nnegrE.
Qed.

End Tail.
