(** first-order-closure: which further held directions close a linear effect. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base Bypass.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Closing.
Variables (F : realFieldType) (d s m : nat) (E : 'M[F]_(d, s)) (U : 'M[F]_(d, m)) (g : 'cV[F]_d).

(** The columns of [U] close the effect iff [g] is in the span of those of [E] and [U] together. *)
Theorem closing_span :
  (forall delta : 'cV[F]_d, E^T *m delta = 0 -> U^T *m delta = 0 -> dot g delta = 0) <->
  (g^T <= (row_mx E U)^T)%MS.
Proof.
rewrite -bypass_readout tr_row_mx; split=> h delta.
  rewrite mul_col_mx => /eqP; rewrite -col_mx0 => /eqP /eq_col_mx [hE hU].
  by apply/matrixP => i j; rewrite (ord1 i) (ord1 j) -dotE h // mxE.
by move=> hE hU; rewrite dotE h ?mxE // mul_col_mx hE hU col_mx0.
Qed.

(** The same in terms of projections: [P g] is in the span of the projected columns of [U]. *)
Theorem closing_projected (P : 'M[F]_d) : is_orthproj E P ->
  (forall delta : 'cV[F]_d, E^T *m delta = 0 -> U^T *m delta = 0 -> dot g delta = 0) <->
  ((P *m g)^T <= (P *m U)^T)%MS.
Proof.
move=> hP; have [PT PP PA PI] := hP.
split=> [h|/submxP[C e] delta hE hU].
  apply/bypass_readout => delta; rewrite trmx_mul PT -mulmxA => hU.
  apply/matrixP => i j; rewrite (ord1 i) (ord1 j) trmx_mul PT -mulmxA -dotE mxE.
  by apply: h; rewrite ?hU // (orthproj_null _ hP).
rewrite (orthproj_dot g hP hE) dotE e -mulmxA trmx_mul PT -mulmxA.
by rewrite (PI _ hE) hU mulmx0 mxE.
Qed.

End Closing.

Section Distance.
Variables (R : rcfType) (d s m : nat) (E : 'M[R]_(d, s)) (U : 'M[R]_(d, m)) (g : 'cV[R]_d).
Variables (P : 'M[R]_d) (Q : 'M[R]_d).
Hypotheses (hP : is_orthproj E P) (hQ : is_orthproj (P *m U) Q).

(** [Q (P g)], the part of [P g] orthogonal to the projected columns, obeys all the equalities. *)
Lemma closing_residual_held : E^T *m (Q *m (P *m g)) = 0 /\ U^T *m (Q *m (P *m g)) = 0.
Proof.
have [PT PP PA PI] := hP; have [QT QQ QA QI] := hQ.
set q := Q *m (P *m g).
have hq : (P *m U)^T *m q = 0 by apply: (orthproj_null _ hQ).
have EQ : E^T *m Q = E^T.
  have : Q *m E = E.
    apply/matrixP => i j; have : Q *m col j E = col j E.
      apply: QI; rewrite colE trmx_mul PT -!mulmxA [P *m (E *m _)]mulmxA PA mul0mx mulmx0 //.
    by rewrite colE mulmxA -!colE => /matrixP/(_ i 0); rewrite !mxE.
  by move=> e; rewrite -{2}e trmx_mul QT.
have hE : E^T *m q = 0 by rewrite /q mulmxA EQ (orthproj_null _ hP).
split=> //; move: hq; rewrite trmx_mul PT -mulmxA (PI _ hE) //.
Qed.

(** No admissible perturbation gains more than the radius times that distance ... *)
Theorem closing_bound r (delta : 'cV[R]_d) :
  E^T *m delta = 0 -> U^T *m delta = 0 -> norm delta <= r -> dot g delta <= r * norm (Q *m (P *m g)).
Proof.
have [PT PP PA PI] := hP; move=> hE hU hn.
rewrite (orthproj_dot g hP hE) (orthproj_dot _ hQ); first exact: dot_le_ball.
by rewrite trmx_mul PT -mulmxA (PI _ hE).
Qed.

(** ... and one gains it. *)
Theorem closing_attained r : 0 <= r -> exists delta : 'cV[R]_d,
  [/\ E^T *m delta = 0, U^T *m delta = 0, norm delta <= r & dot g delta = r * norm (Q *m (P *m g))].
Proof.
have [PT PP PA PI] := hP.
have [hE hU] := closing_residual_held; set q := Q *m (P *m g) in hE hU *; move=> r0.
have [z|n0] := eqVneq q 0.
  by exists 0; rewrite !mulmx0 norm0 dot0r z norm0 mulr0; split.
have nn : norm q != 0 by rewrite norm_eq0.
exists ((r / norm q) *: q); split.
- by rewrite -scalemxAr hE scaler0.
- by rewrite -scalemxAr hU scaler0.
- by rewrite normZ ger0_norm ?divr_ge0 // mulfVK.
rewrite dotZr (orthproj_dot g hP hE) (orthproj_dot _ hQ); first by rewrite -/q -norm_sq; field.
by rewrite trmx_mul PT -mulmxA (PI _ hE).
Qed.

(** [Q (P g)] is what is left of [P g] after its best approximation by the projected columns. *)
Theorem closing_distance : (exists c, P *m g - Q *m (P *m g) = P *m U *m c) /\
  forall c : 'cV[R]_m, norm (Q *m (P *m g)) <= norm (P *m g - P *m U *m c).
Proof.
have [QT QQ QA QI] := hQ; move: (P *m g) => p; split.
  have : ((p - Q *m p)^T <= (P *m U)^T)%MS.
    apply/bypass_readout => delta h; rewrite linearB /= trmx_mul QT mulmxBl -mulmxA QI // subrr //.
  by case/submxP=> C e; exists C^T; rewrite -[P *m U]trmxK -trmx_mul -e trmxK.
move=> c; have -> : Q *m p = Q *m (p - P *m U *m c) by rewrite mulmxBr mulmxA QA mul0mx subr0.
set y := p - _; rewrite norm_leP // norm_sq.
clearbody y; have : 0 <= dot (y - Q *m y) (y - Q *m y) by apply: dot_ge0.
have e : dot (Q *m y) (Q *m y) = dot y (Q *m y) by rewrite dot_mull QT mulmxA QQ.
by rewrite !dot_lin e (dotC (Q *m y) y) opprK addNr addr0 subr_ge0.
Qed.

End Distance.
