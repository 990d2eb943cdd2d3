(** Regions that hold every counter-example: a cap of an ellipsoid lies in a smaller ellipsoid, and a tree of regions
    with proved leaves proves its root. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
From SaeProofs Require SpectralGap Enclosure.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Convex.
Variable R : realFieldType.

(** A parabola that opens upwards is below the larger one of its values at two points between them. *)
Lemma parabola_le (a0 a1 a2 b t c : R) : 0 <= a2 -> b <= t <= c ->
  a0 + a1 * b + a2 * b ^+ 2 <= 1 -> a0 + a1 * c + a2 * c ^+ 2 <= 1 -> a0 + a1 * t + a2 * t ^+ 2 <= 1.
Proof.
move=> a20 /andP[bt tc] hb hc.
have [e|ne] := eqVneq b c; first by rewrite (_ : t = b) //; apply: le_anti; rewrite bt e tc.
have bc : 0 < c - b by rewrite subr_gt0 lt_neqAle ne (le_trans bt).
rewrite -subr_ge0 -(pmulr_rge0 _ bc).
set pb := 1 - (a0 + a1 * b + a2 * b ^+ 2); set pc := 1 - (a0 + a1 * c + a2 * c ^+ 2).
have -> : (c - b) * (1 - (a0 + a1 * t + a2 * t ^+ 2))
    = (c - t) * pb + (t - b) * pc + a2 * ((c - b) * ((c - t) * (t - b))) by rewrite /pb /pc; ring.
by rewrite !addr_ge0 // !mulr_ge0 ?subr_ge0 // (le_trans bt).
Qed.

End Convex.

Section Cap.
Variables (R : rcfType) (d : nat).
Implicit Types (n y : 'cV[R]_d).

(** The part of [y] orthogonal to the unit vector [n] has the squared norm [|y|^2 - (n.y)^2]. *)
Lemma perp_sq n y : norm n = 1 -> dot (y - dot n y *: n) (y - dot n y *: n) = dot y y - dot n y ^+ 2.
Proof. by move=> h; have := norm_sq n; rewrite h expr1n => e; rewrite !dot_lin (dotC y n) -e; ring. Qed.

(** The cap [dot n y >= b] of the unit ball lies in the ellipsoid around [tc n] with the half-axes [sn] along [n] and
    [sp] across, if both ends of the axis satisfy its inequality. *)
Theorem region_cap n y b tc sn sp : norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  norm y <= 1 -> b <= dot n y ->
  ((dot n y - tc) / sn) ^+ 2 + dot (y - dot n y *: n) (y - dot n y *: n) / sp ^+ 2 <= 1.
Proof.
move=> n1 sn0 snp hb h1 hy hby; have sp0 : 0 < sp by apply: lt_le_trans snp.
have t1 : dot n y <= 1 by apply: le_trans (dot_le_norm n y) _; rewrite n1 mul1r.
have y1 : dot y y <= 1 by rewrite -[X in _ <= X](expr1n _ 2) -norm_leP.
rewrite perp_sq //; move: (dot n y) hby t1 => t bt t1.
apply: le_trans (_ : ((t - tc) / sn) ^+ 2 + (1 - t ^+ 2) / sp ^+ 2 <= _).
  by rewrite ler_add2l ler_wpmul2r ?invr_ge0 ?sqr_ge0 // ler_add2r.
have q x : ((x - tc) / sn) ^+ 2 + (1 - x ^+ 2) / sp ^+ 2
    = (tc ^+ 2 / sn ^+ 2 + 1 / sp ^+ 2) + (- 2 * tc / sn ^+ 2) * x + (1 / sn ^+ 2 - 1 / sp ^+ 2) * x ^+ 2.
  by field; rewrite !gt_eqF.
move: hb; rewrite !q => hb; apply: (parabola_le _ (c := 1) _ hb); rewrite ?bt //.
  by rewrite subr_ge0 ler_pmul2l ?ltr01 // lef_pinv ?posrE ?exprn_gt0 // ler_pexpn2r ?nnegrE // ltW.
by rewrite -(q 1) expr1n subrr mul0r addr0.
Qed.

(** The same for the region [c + L y], [norm y <= 1]: its cap lies in a region of the same kind. *)
Theorem region_cut e (L : 'M[R]_(e, d)) (c : 'cV[R]_e) n y b tc sn sp : norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  norm y <= 1 -> b <= dot n y ->
  exists2 u : 'cV[R]_d, norm u <= 1
    & c + L *m y = (c + tc *: (L *m n)) + L *m (sp%:M + (sn - sp) *: (n *m n^T)) *m u.
Proof.
move=> n1 sn0 snp hb h1 hy hby; have sp0 : 0 < sp by apply: lt_le_trans snp.
have nn : dot n n = 1 by rewrite -norm_sq n1 expr1n.
have := region_cap n1 sn0 snp hb h1 hy hby.
set t := dot n y; set p := y - t *: n => le.
have np : dot n p = 0 by rewrite /p dotBr dotZr nn mulr1 subrr.
have -> : y = t *: n + p by rewrite /p addrCA subrr addr0.
move: (t) (p) np le => {hy hby} {}t {}p np le.
exists (((t - tc) / sn) *: n + sp^-1 *: p).
  rewrite norm_leP ?ler01 // expr1n; apply: le_trans le.
  rewrite !dot_lin [dot p n]dotC np nn le_eqVlt; apply/orP; left; apply/eqP.
  by field; rewrite !gt_eqF.
have nu : n^T *m (((t - tc) / sn) *: n + sp^-1 *: p) = ((t - tc) / sn)%:M.
  apply/matrixP => i j; rewrite (ord1 i) (ord1 j) -dotE dotDr !dotZr np nn mulr0 addr0 mulr1.
  by rewrite mxE eqxx mulr1n.
rewrite -mulmxA [(_ + _) *m (_ + _)]mulmxDl mul_scalar_mx -scalemxAl -mulmxA nu mul_mx_scalar.
rewrite -addrA; congr (_ + _); rewrite scalemxAr -mulmxDr; congr (_ *m _).
rewrite scalerDr !scalerA divff ?gt_eqF // scale1r addrAC addrA -!scalerDl; congr (_ *: _ + _).
by field; rewrite gt_eqF.
Qed.

(** A cut and its cap: where the enclosure's value at the cut is not positive, the region's positive points lie in the
    smaller one. [n] is a unit vector, [extra] whatever else the region's points satisfy. *)
Theorem contraction e (L : 'M[R]_(e, d)) (c : 'cV[R]_e) (extra : 'cV[R]_d -> Prop) (F : 'cV[R]_e -> R)
    kappa (g : 'cV[R]_d) (Q : 'M[R]_d) m nu b (n p : 'cV[R]_d) tc sn sp :
  (forall y, norm y <= 1 -> extra y -> F (c + L *m y) <= kappa + dot g y + 2^-1 * dot y (Q *m y)) ->
  Q^T = Q -> SpectralGap.psd (m%:M - Q) -> 0 <= m -> 0 <= nu ->
  kappa + nu * b + m / 2 + 2^-1 * dot p ((m%:M - Q) *m p) + norm (g - nu *: n - (m%:M - Q) *m p) <= 0 ->
  norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  forall y, norm y <= 1 -> extra y -> 0 < F (c + L *m y) ->
  exists2 u : 'cV[R]_d, norm u <= 1
    & c + L *m y = (c + tc *: (L *m n)) + L *m (sp%:M + (sn - sp) *: (n *m n^T)) *m u.
Proof.
move=> hF QT hQ m0 nu0 le n1 sn0 snp hb h1 y hy hx F0; apply: (@region_cut _ L c n y b) => //.
apply/ltW/(@Enclosure.cut R d (fun y => norm y <= 1 /\ extra y) (fun y => F (c + L *m y)) kappa g Q m nu b n p) => //.
- by move=> z [].
- by move=> z [hz ez]; apply: hF.
Qed.

End Cap.

Section Slabs.
Variables (R : rcfType) (d m : nat) (N : 'M[R]_(d, m)).
Implicit Types (l h t : 'cV[R]_m) (y p : 'cV[R]_d).

(** The distance of the interval from [l] to [h] from zero. *)
Definition slab_distance (l h : R) : R := Num.max 0 (Num.max l (- h)).

Lemma slab_distance_le (l h x : R) : l <= x <= h -> slab_distance l h ^+ 2 <= x ^+ 2.
Proof.
case/andP=> lx xh; rewrite -[X in _ <= X]real_normK ?num_real // ler_pexpn2r ?nnegrE ?le_maxr ?lexx //.
rewrite /slab_distance !le_maxl normr_ge0 (le_trans lx (ler_norm x)) /=.
by apply: le_trans (_ : - x <= _); [rewrite ler_opp2 | rewrite -normrN ler_norm].
Qed.

(** The part of a ball between slabs of orthonormal directions is in a box times a ball. *)
Theorem region_slabs l h y r : N^T *m N = 1%:M -> norm y <= r ->
  (forall i, l i 0 <= (N^T *m y) i 0 <= h i 0) ->
  let rest := r ^+ 2 - \sum_i slab_distance (l i 0) (h i 0) ^+ 2 in
  0 <= rest /\ exists t p, [/\ forall i, `|t i 0| <= 1, N^T *m p = 0, norm p <= 1
    & y = N *m (\col_i ((l i 0 + h i 0) / 2 + t i 0 * ((h i 0 - l i 0) / 2))) + Num.sqrt rest *: p].
Proof.
move=> NN hr hy rest; have r0 : 0 <= r by apply: le_trans hr; apply: norm_ge0.
set x := N^T *m y in hy; pose q := y - N *m x.
have Nq : N^T *m q = 0 by rewrite /q mulmxBr mulmxA NN mul1mx subrr.
have qq : dot q q = dot y y - dot x x.
  have e1 : dot (N *m x) q = 0 by rewrite dot_mull Nq dot0r.
  have e2 : dot y (N *m x) = dot x x by rewrite dot_mulr.
  by rewrite {1}/q dotBl e1 subr0 /q dotBr e2.
have le : dot q q <= rest.
  rewrite qq; apply: ler_sub; first by rewrite -norm_leP.
  by apply: ler_sum => i _; rewrite -expr2; apply: slab_distance_le.
have rest0 : 0 <= rest by apply: le_trans le; apply: dot_ge0.
split=> //; pose w i := (h i 0 - l i 0) / 2.
pose t : 'cV[R]_m := \col_i (if w i == 0 then 0 else (x i 0 - (l i 0 + h i 0) / 2) / w i).
have lh i : l i 0 <= h i 0 by case/andP: (hy i) => a b; apply: le_trans b.
have w0 i : 0 <= w i by rewrite divr_ge0 ?subr_ge0 ?ler0n.
have tE i : (l i 0 + h i 0) / 2 + t i 0 * w i = x i 0.
  rewrite mxE; case: ifPn => [/eqP z|nz]; last by rewrite divfK // addrC subrK.
  have e : h i 0 = l i 0 by move/eqP: z; rewrite mulf_eq0 invr_eq0 pnatr_eq0 orbF subr_eq0 => /eqP.
  by move: (hy i); rewrite e mul0r addr0 => hh; rewrite (le_anti hh); field.
have t1 i : `|t i 0| <= 1.
  rewrite mxE; case: ifPn => [_|nz]; first by rewrite normr0 ler01.
  have wp : 0 < w i by rewrite lt_neqAle eq_sym nz w0.
  rewrite normrM normfV (ger0_norm (w0 i)) ler_pdivr_mulr // mul1r ler_norml.
  rewrite ler_subr_addr ler_subl_addr /w.
  have -> : - ((h i 0 - l i 0) / 2) + (l i 0 + h i 0) / 2 = l i 0 by field.
  have -> : (h i 0 - l i 0) / 2 + (l i 0 + h i 0) / 2 = h i 0 by field.
  exact: hy.
have eN : N *m (\col_i ((l i 0 + h i 0) / 2 + t i 0 * w i)) = N *m x.
  by congr (_ *m _); apply/matrixP => i j; rewrite (ord1 j) [LHS]mxE tE.
exists t; have [z|nz] := eqVneq (Num.sqrt rest) 0.
  exists 0; rewrite mulmx0 norm0 ler01 scaler0 addr0 eN; split=> //.
  apply/eqP; rewrite -subr_eq0 -/q -dot_eq0 eq_le dot_ge0 andbT; apply: le_trans le _.
  by move/eqP: z; rewrite sqrtr_eq0.
exists ((Num.sqrt rest)^-1 *: q); split=> //; first by rewrite -scalemxAr Nq scaler0.
  2: by rewrite eN scalerA divff // scale1r /q addrC subrK.
have s0 : 0 < Num.sqrt rest by rewrite lt_neqAle eq_sym nz sqrtr_ge0.
rewrite normZ ger0_norm ?invr_ge0 ?sqrtr_ge0 // mulrC ler_pdivr_mulr // mul1r norm_leP ?sqrtr_ge0 //.
by rewrite sqr_sqrtr.
Qed.

(** Bounds along [n = N s + sigma n'] give bounds along [n']. *)
Theorem region_turn l h (s : 'cV[R]_m) (n n' y : 'cV[R]_d) sigma a b : 0 < sigma -> n = N *m s + sigma *: n' ->
  (forall i, l i 0 <= (N^T *m y) i 0 <= h i 0) -> a <= dot n y <= b ->
  (a - \sum_i Num.max (s i 0 * l i 0) (s i 0 * h i 0)) / sigma <= dot n' y
    <= (b - \sum_i Num.min (s i 0 * l i 0) (s i 0 * h i 0)) / sigma.
Proof.
move=> s0 en hy /andP[ha hb].
have e : dot n y = dot s (N^T *m y) + sigma * dot n' y by rewrite en dotDl dot_mull dotZl.
have sides i : Num.min (s i 0 * l i 0) (s i 0 * h i 0) <= s i 0 * (N^T *m y) i 0
    <= Num.max (s i 0 * l i 0) (s i 0 * h i 0).
  case/andP: (hy i) => u v; rewrite le_minl le_maxr; have [p|q] := lerP 0 (s i 0).
    by apply/andP; split; apply/orP; [left | right]; apply: ler_wpmul2l.
  by apply/andP; split; apply/orP; [right | left]; apply: ler_wnmul2l => //; apply: ltW.
rewrite ler_pdivr_mulr // ler_pdivl_mulr // mulrC.
rewrite [sigma * _](_ : _ = dot n y - dot s (N^T *m y)); last by rewrite e addrC addKr.
by rewrite !ler_sub //; apply: ler_sum => i _; case/andP: (sides i).
Qed.

End Slabs.

Section Tree.
Variables (T : Type) (bad : T -> Prop).

(** A tree of regions: a contraction is a node with one child, a split a node with several. *)
Inductive tree := Leaf (X : T -> Prop) | Node (X : T -> Prop) (m : nat) (children : 'I_m -> tree).

(** The region at the root. *)
Definition root t := match t with Leaf X => X | Node X _ _ => X end.

(** No leaf holds a counter-example, and the children of a node hold every counter-example of its region. *)
Fixpoint proved t : Prop :=
  match t with
  | Leaf X => forall x, X x -> ~ bad x
  | Node X m children =>
      (forall x, X x -> bad x -> exists i : 'I_m, root (children i) x) /\ forall i, proved (children i)
  end.

Theorem tree_sound t : proved t -> forall x, root t x -> ~ bad x.
Proof.
elim: t => [X h //|X m children IH] /= [hc hp] x hx hb.
by have [i hi] := hc x hx hb; apply: IH (hp i) _ hi hb.
Qed.

End Tree.
