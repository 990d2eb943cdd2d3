(* Soundness: what the checker accepts is true, over every ordered field and for every choice of positive units. *)

From Coq Require Import ZArith.
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import zify ssrZ ring.
From SaeVerified Require Import Check Meaning Arithmetic.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory Num.Theory Order.Theory.
Local Open Scope ring_scope.

(* `fine` is positive; nothing else about it matters, and nothing shall unfold it. *)
Lemma fine_gt0 (F : realFieldType) : 0 < cast F fine.
Proof. by rewrite -(cast0 F) -cast_lt. Qed.

Opaque fine.

Section Sound.

Variables (F : realFieldType) (ux us uw um : F).
Hypotheses (ux_gt0 : 0 < ux) (us_gt0 : 0 < us) (uw_gt0 : 0 < uw) (um_gt0 : 0 < um).
Variable q : question.
Hypothesis good : well_formed q = Good tt.

Notation cast := (@cast F).
Notation width := (width q).
Notation encoder := (encoder_input (scale q)).
Notation pre := (preactivation_at ux us uw q).
Notation code := (code_at ux us uw q).
Notation x := (residual ux q).
Notation ua := (ux * us * uw).

(* An integer's value is its cast times the unit. *)
Lemma valueE (u : F) z : value u z = cast z * u. Proof. by []. Qed.

(* What `well_formed` has tested. *)
Lemma well_formedP : [/\ 0 < cast (scale q), 0 <= cast (radius q), size (shift q) = width & size (direction q) = width].
Proof.
move: good; rewrite /well_formed; case: Z.leb_spec => // scale_gt0; case: Z.ltb_spec => // radius_ge0.
rewrite !same_lengthP; case: andP => // -[/eqP ? /eqP ?] _; split=> //.
  by rewrite -(cast0 F) -cast_lt; apply/Z.ltb_lt.
by rewrite -(cast0 F) -cast_le; apply/Z.leb_le.
Qed.

(* The integer pre-activation is the pre-activation. *)
Lemma preactivation_value c y : size y = width -> size (weights c) = width ->
  pre c (vector ux y) = value ua (preactivation (encoder y (shift q)) c).
Proof.
move=> ysize csize; have [_ _ bsize _] := well_formedP.
rewrite /preactivation_at /preactivation !valueE cast_dot_from ?size_encoder_input ?bsize ?ysize // mulrDl addrC.
congr (_ + _); rewrite mulr_suml; apply: eq_bigr => i _.
rewrite cast_encoder_input ?bsize ?ysize // /vector !valueE /cast_of; ring.
Qed.

(* A perturbation moves it by s w . delta. *)
Lemma preactivation_plus c delta :
  pre c (plus x delta) = pre c x + value us (scale q) * uw * along (weights c) delta.
Proof.
rewrite /preactivation_at addrAC; congr (_ + _).
rewrite /along mulr_sumr -big_split /=; apply: eq_bigr => i _.
by rewrite /plus /vector !valueE /cast_of; ring.
Qed.

(* ReLU and JumpReLU: the pre-activation where it exceeds the level, else zero. *)
Lemma code_level c y : code c y = if value ua (level (arch q) c) < pre c y then pre c y else 0.
Proof.
have ua_gt0 : 0 < ua by rewrite !mulr_gt0.
rewrite /code_at /level; move: (pre c y) => a; case: (arch q) => /=.
  by rewrite valueE cast0 mul0r; case: ltP.
rewrite !valueE cast_max cast0 maxr_pmull ?(ltW ua_gt0) // mul0r lt_maxl andbC.
by case: ltP => //= _; case: ltP.
Qed.

(* The level is not negative. *)
Lemma level_ge0 c : 0 <= value ua (level (arch q) c).
Proof.
rewrite valueE; apply: mulr_ge0; last by rewrite ltW // !mulr_gt0.
rewrite /level; case: (arch q); first by rewrite cast0.
by rewrite cast_max cast0 le_maxr lexx.
Qed.

Variable delta : 'I_width -> F.
Hypothesis keep : keeps ux us uw q delta.

(* An equality that is taken holds. *)
Lemma equality_holds c : List.In c (columns q) -> size (weights c) = width ->
  (kept q = Preactivations \/
   kept q = Code /\ Z.ltb (level (arch q) c) (preactivation (encoder (point q) (shift q)) c)) ->
  along (weights c) delta = 0.
Proof.
move=> /keep held csize how; have [scale_gt0 _ _ _] := well_formedP.
have factor_neq0 : value us (scale q) * uw != 0 by rewrite !mulf_neq0 // lt0r_neq0.
suff: pre c (plus x delta) = pre c x.
  by rewrite preactivation_plus -[RHS]addr0 => /addrI/eqP; rewrite mulf_eq0 (negPf factor_neq0) => /eqP.
case: how => [mode|[mode on]]; rewrite mode in held => //.
have on_x : value ua (level (arch q) c) < pre c x.
  by rewrite preactivation_value // !valueE ltr_pmul2r ?mulr_gt0 // -cast_lt.
move: held; rewrite !code_level on_x; case: ifP => // _ zero.
by move: on_x; rewrite -zero ltNge level_ge0.
Qed.

(* A half-space that is taken holds, with the clipped room. *)
Lemma half_space_holds c : List.In c (columns q) -> size (weights c) = width -> kept q = Code ->
  cast (scale q) * along (weights c) delta
  <= cast (Z.max 0 (level (arch q) c - preactivation (encoder (point q) (shift q)) c)) * ux.
Proof.
move=> inside csize mode; have [scale_gt0 _ _ _] := well_formedP.
set a := preactivation _ c; set room := Z.max _ _.
have room_ge0 : 0 <= cast room * ux by apply: mulr_ge0 (ltW ux_gt0); rewrite /room cast_max cast0 le_maxr lexx.
case on: (Z.ltb (level (arch q) c) a).
  by rewrite (equality_holds inside csize) ?mulr0 //; right.
have held := keep inside; rewrite mode in held.
have off_x : pre c x <= value ua (level (arch q) c).
  rewrite preactivation_value // !valueE ler_pmul2r ?mulr_gt0 // -cast_le; apply/Z.leb_le.
  by move/Z.ltb_ge: on.
have off : pre c (plus x delta) <= value ua (level (arch q) c).
  move: held; rewrite !code_level [_ < pre c x]ltNge off_x /=; case: ltP => // above zero.
  by move: above; rewrite zero ltNge level_ge0.
have u_gt0 : 0 < us * uw by rewrite mulr_gt0.
have room_le : cast (level (arch q) c) - cast a <= cast room by rewrite /room cast_max castB le_maxr lexx orbT.
rewrite -(ler_pmul2r u_gt0).
apply: (@le_trans _ _ ((cast (level (arch q) c) - cast a) * ux * (us * uw))); last first.
  by rewrite ler_pmul2r // ler_pmul2r.
move: off; rewrite preactivation_plus preactivation_value // -/a !valueE -ler_subr_addl => off.
by apply: le_trans (le_trans off _); rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
Qed.

(* One column: what is left of the direction and the cost bound the direction, up to the input scale. *)
Lemma take_sound v cost c v' cost' : List.In c (columns q) -> size v = width ->
  take q (encoder (point q) (shift q)) v cost c = Good (v', cost') ->
  size v' = width /\
  cast (scale q) * along v delta + cast cost * ux <= cast (scale q) * along v' delta + cast cost' * ux.
Proof.
have [scale_gt0 _ bsize _] := well_formedP.
move=> inside vsize; rewrite /take same_lengthP size_encoder_input // -/width.
case: eqP => // csize; case: (used_as c); case mode: (kept q) => //.
- case=> <- <-; rewrite size_subtract ?vsize ?csize //; split=> //.
  by rewrite along_subtract ?vsize ?csize // (equality_holds inside) ?mulr0 ?subr0 //; left.
- case on: Z.ltb => // -[<- <-]; rewrite size_subtract ?vsize ?csize //; split=> //.
  by rewrite along_subtract ?vsize ?csize // (equality_holds inside) ?mulr0 ?subr0 //; right.
case positive: Z.leb => // -[<- <-]; rewrite size_subtract ?vsize ?csize //; split=> //.
rewrite along_subtract ?vsize ?csize // castD castM.
have := half_space_holds inside csize mode; set room := Z.max _ _ => bound.
have m_ge0 : 0 <= cast (multiplier c) by rewrite -(cast0 F) -cast_le.
rewrite -subr_ge0; have := ler_wpmul2l m_ge0 bound; rewrite -subr_ge0; congr (0 <= _).
by ring.
Qed.

(* All of them. *)
Lemma take_all_sound cs v cost v' cost' : (forall c, List.In c cs -> List.In c (columns q)) -> size v = width ->
  take_all q (encoder (point q) (shift q)) v cost cs = Good (v', cost') ->
  size v' = width /\
  cast (scale q) * along v delta + cast cost * ux <= cast (scale q) * along v' delta + cast cost' * ux.
Proof.
elim: cs v cost => [|c cs step] v cost inside vsize /=; first by case=> <- <-.
case taken: take => [[w price]|] // rest.
have [wsize first] := take_sound (inside c (or_introl erefl)) vsize taken.
have [vsize' second] := step w price (fun e within => inside e (or_intror within)) wsize rest.
by split=> //; apply: le_trans first second.
Qed.

(* The dual norm bounds what is left. *)
Lemma dual_norm_sound root v t : small ux q delta -> size v = width -> dual_norm root (ball q) v = Good t ->
  cast fine * along v delta <= cast t * (cast (radius q) * ux).
Proof.
have [_ radius_ge0 _ _] := well_formedP.
have r_ge0 : 0 <= cast (radius q) * ux by rewrite mulr_ge0 // ltW.
have fine_ge0 : 0 <= cast fine := ltW (fine_gt0 F).
move=> inside vsize; move: inside; rewrite /small /dual_norm; case: (ball q) => inside.
  set square := Z.mul _ _; case: andP => // -[]; rewrite !(cast_le F) castM cast0 => t_ge0 enough [<-].
  have -> : cast fine * along v delta = dot (fun i => cast fine * cast_of F v i) delta.
    by rewrite /along /dot mulr_sumr; apply: eq_bigr => i _; rewrite mulrA.
  apply: cauchy_schwarz => //; rewrite expr2; apply: le_trans enough.
  rewrite /square !castM cast_dot_from // cast0 add0r vsize /dot mulr_sumr le_eqVlt; apply/orP; left; apply/eqP.
  by move: (cast fine) => f; apply: eq_bigr => i _; ring.
move=> taken; have <- : Z.mul fine (total_from Z0 v) = t by case: taken.
rewrite castM cast_total_from cast0 add0r vsize -mulrA ler_wpmul2l //.
exact: hoelder.
Qed.

End Sound.

(* The upper side. Whatever stands for `root`: if the checker accepts, then every delta that keeps what is held of the
   listed features and lies in the ball has objective . delta <= upper. *)
Theorem check_upper_sound (root : Z -> Z) (q : question) (upper : Z) :
  check_upper root q upper = Good tt ->
  forall (F : realFieldType) (ux us uw um : F), 0 < ux -> 0 < us -> 0 < uw -> 0 < um ->
  forall delta : 'I_(width q) -> F,
  keeps ux us uw q delta -> small ux q delta ->
  dot (objective uw um q) delta <= value (um * uw * ux) upper.
Proof.
rewrite /check_upper; case good: (well_formed q) => [[]|] //.
case taken: take_all => [[v cost]|] //; case measured: dual_norm => [t|] //; case: Z.leb_spec => // accepted _.
move=> F ux us uw um ux_gt0 us_gt0 uw_gt0 um_gt0 delta keep inside.
have [scale_gt0 radius_ge0 bsize gsize] := well_formedP F good.
have [vsize explained] := take_all_sound ux_gt0 us_gt0 uw_gt0 good keep (fun _ h => h) gsize taken.
have left_over := dual_norm_sound ux_gt0 good inside vsize measured.
rewrite cast0 mul0r addr0 in explained.
have claim : along (direction q) delta <= cast F upper * ux.
  move/Z.leb_le: accepted; rewrite (cast_le F) castD !castM => /(ler_wpmul2r (ltW ux_gt0)).
  move: left_over (fine_gt0 F); move: (cast F fine) => f left_over f_gt0 accepted.
  rewrite -(ler_pmul2l scale_gt0) -(ler_pmul2l f_gt0); apply: (le_trans (ler_wpmul2l (ltW f_gt0) explained)).
  have := ler_add accepted (ler_wpmul2l (ltW scale_gt0) left_over).
  rewrite -subr_ge0 => gap; rewrite -subr_ge0.
  by apply: (le_trans gap); rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
have -> : dot (objective uw um q) delta = um * uw * along (direction q) delta.
  rewrite /dot /along mulr_sumr; apply: eq_bigr => i _; rewrite /objective /vector valueE /cast_of; ring.
rewrite valueE; have u_gt0 : 0 < um * uw by rewrite mulr_gt0.
by have := ler_wpmul2l (ltW u_gt0) claim; rewrite mulrCA mulrA [cast F upper * _]mulrC -mulrA.
Qed.

(* 2^-e is positive. *)
Lemma power_gt0 (F : realFieldType) e : 0 < power F e.
Proof. by rewrite /power invr_gt0 exprn_gt0 ?ltr0n. Qed.

(* The same with the units that IEEE floats have, powers of two, and with the Euclidean norm itself. *)
Corollary check_upper_floats (root : Z -> Z) (q : question) (upper : Z) :
  check_upper root q upper = Good tt -> ball q = L2 ->
  forall (R : rcfType) (p k w n : nat) (delta : 'I_(width q) -> R),
  keeps (power R p) (power R k) (power R w) q delta ->
  Num.sqrt (dot delta delta) <= value (power R p) (radius q) ->
  dot (objective (power R w) (power R n) q) delta <= value (power R n * power R w * power R p) upper.
Proof.
move=> accepted shape R p k w n delta keep inside.
apply: (check_upper_sound accepted _ _ _ _ keep); rewrite ?power_gt0 // /small shape.
have size_ge0 : 0 <= dot delta delta by apply: sumr_ge0 => i _; rewrite -expr2 sqr_ge0.
by rewrite -(sqr_sqrtr size_ge0) ler_expn2r // nnegrE ?sqrtr_ge0 // (le_trans _ inside) ?sqrtr_ge0.
Qed.

(* What every feature's test says. *)
Lemma all_unmovedP q input input' cs c : all_unmoved q input input' cs = Good tt -> List.In c cs ->
  unmoved q input input' c = Good tt.
Proof. by elim: cs => //= e cs step; case here: unmoved => [[]|] // /step rest [<-|]. Qed.

(* The lower side: if the checker accepts, then delta itself keeps what is held of the listed features, lies in the ball
   and has objective . delta >= lower. *)
Theorem check_lower_sound (q : question) (lower : Z) (delta : seq Z) :
  check_lower q lower delta = Good tt ->
  forall (F : realFieldType) (ux us uw um : F), 0 < ux -> 0 < us -> 0 < uw -> 0 < um ->
  [/\ keeps ux us uw q (vector ux delta), small ux q (vector ux delta) &
      value (um * uw * ux) lower <= dot (objective uw um q) (vector ux delta)].
Proof.
rewrite /check_lower; case good: (well_formed q) => [[]|] //.
rewrite same_lengthP -/(width q); case: eqP => //= dsize; case inside: in_ball => //=.
case reached: Z.leb => //= kept_all F ux us uw um ux_gt0 us_gt0 uw_gt0 um_gt0.
have [scale_gt0 radius_ge0 bsize gsize] := well_formedP F good.
split; last first.
- have -> : dot (objective uw um q) (vector ux delta) = cast F (dot_from Z0 (direction q) delta) * (um * uw * ux).
    rewrite cast_dot_from ?dsize // cast0 add0r mulr_suml; apply: eq_bigr => i _.
    by rewrite /objective /vector !valueE /cast_of; ring.
  by rewrite valueE ler_pmul2r ?mulr_gt0 // -cast_le.
- move: inside; rewrite /in_ball /small; case: (ball q) => inside.
    have -> : dot (vector ux delta) (vector ux delta : 'I_(width q) -> F) = cast F (dot_from Z0 delta delta) * ux ^+ 2.
      rewrite cast_dot_from // dsize cast0 add0r mulr_suml; apply: eq_bigr => i _.
      by rewrite /vector !valueE /cast_of; ring.
    by rewrite valueE exprMn ler_pmul2r ?exprn_gt0 // expr2 -castM -cast_le.
  move=> i; rewrite /vector !valueE normrM (gtr0_norm ux_gt0) ler_pmul2r //.
  by apply: (cast_within F inside); rewrite dsize.
move=> c /(all_unmovedP kept_all); rewrite /unmoved same_lengthP size_encoder_input // -/(width q).
case: eqP => // csize.
have at_x : preactivation_at ux us uw q c (residual ux q)
    = value (ux * us * uw) (preactivation (encoder_input (scale q) (point q) (shift q)) c).
  exact: preactivation_value.
have at_moved : preactivation_at ux us uw q c (plus (residual ux q) (vector ux delta))
    = value (ux * us * uw) (preactivation (encoder_input (scale q) (moved (point q) delta) (shift q)) c).
  rewrite -preactivation_value ?size_moved //; congr (_ + _); apply: eq_bigr => i _; congr (_ * (_ * _ - _)).
  by rewrite /plus /vector !valueE -mulrDl -/(cast_of F _ _) -cast_moved.
case: (kept q) => //.
  by case: Z.eqb_spec => // same _; rewrite at_x at_moved same.
rewrite !(code_level ux_gt0 us_gt0 uw_gt0) at_x at_moved /activation !valueE.
have ua_gt0 : 0 < ux * us * uw by rewrite !mulr_gt0.
rewrite !ltr_pmul2r // !(cast_lt F); case: Z.eqb_spec => // same _; move: same.
case: ifP => _; case: ifP => _ same //.
- by rewrite same.
- by rewrite same cast0 mul0r.
by rewrite -same cast0 mul0r.
Qed.
