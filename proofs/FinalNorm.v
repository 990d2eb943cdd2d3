(** final-norm and all-radius-cap: a readout behind the last normalisation.
    [h] is the defended state, [P] removes the mean (LayerNorm) or is the identity (RMSNorm); [c] stands for [d * eps0].
    The readout is [dot w z / rho + b] with [z = P *m (h + delta)] and [rho = sqrt (|z|^2 + c)]. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section FinalNorm.
Variables (R : rcfType) (d : nat).
Implicit Types (w z q h delta : 'cV[R]_d) (P : 'M[R]_d) (b c t : R).

(** The divisor and the readout. *)
Definition rho c z := Num.sqrt (dot z z + c).
Definition readout w b c z := dot w z / rho c z + b.

Lemma rho_ge0 c z : 0 <= rho c z.
Proof. exact: sqrtr_ge0. Qed.

Lemma rho_sq c z : 0 <= c -> rho c z ^+ 2 = dot z z + c.
Proof. by move=> c0; rewrite sqr_sqrtr // addr_ge0 // dot_ge0. Qed.

Lemma norm_le_rho c z : 0 <= c -> norm z <= rho c z.
Proof. by move=> c0; rewrite ler_wsqrtr // ler_addl. Qed.

(** A level for the readout is a linear inequality between [dot w z] and [rho]. *)
Lemma readout_le w b c z t : 0 < c -> (readout w b c z <= t + b) = (dot w z <= t * rho c z).
Proof.
move=> c0; rewrite /readout ler_add2r ler_pdivr_mulr // sqrtr_gt0.
by rewrite ltr_paddl ?dot_ge0.
Qed.

(** The cap: whatever the perturbation, the readout is at most [norm w + b]. *)
Theorem all_radius_cap w b c z : 0 < c -> readout w b c z <= norm w + b.
Proof.
move=> c0; rewrite readout_le //; apply: le_trans (dot_le_norm w z) _.
by rewrite ler_wpmul2l // norm_le_rho // ltW.
Qed.

(** The divisor is above each of its tangents. *)
Lemma rho_tangent c z q : 0 <= c -> norm q <= 1 ->
  dot q z + Num.sqrt (1 - dot q q) * Num.sqrt c <= rho c z.
Proof.
move=> c0 hq; have q1 : dot q q <= 1 by rewrite -norm_sq expr_le1.
set a := dot q z; set u := Num.sqrt _; set v := Num.sqrt _.
have u2 : u ^+ 2 = 1 - dot q q by rewrite sqr_sqrtr // subr_ge0.
have v2 : v ^+ 2 = c by rewrite sqr_sqrtr.
have [neg|pos] := ltrP (a + u * v) 0; first exact: le_trans (ltW neg) (rho_ge0 c z).
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?rho_ge0 // rho_sq //.
(* Cauchy-Schwarz for [z / 1] and [v] against [q] and [u], completed to squares *)
have key : a * a * 1 <= dot q q * dot z z by rewrite mulr1 -expr2; apply: cauchy_schwarz_sq.
have k0 : 0 <= dot (v *: q - u *: z) (v *: q - u *: z) by apply: dot_ge0.
rewrite -subr_ge0.
rewrite [X in 0 <= X](_ : _ = (dot q q * dot z z - a * a * 1) + dot (v *: q - u *: z) (v *: q - u *: z)).
  by rewrite addr_ge0 // subr_ge0.
rewrite !dot_lin (dotC z q) -/a -v2; clearbody u v.
have -> : dot q q = 1 - u ^+ 2 by rewrite u2 opprB addrC subrK.
ring.
Qed.

(** (a) A level [t >= 0]: one linear inequality over the admissible perturbations. *)
Theorem final_norm_tangent w b c t q P h (admissible : 'cV[R]_d -> Prop) :
  0 < c -> 0 <= t -> norm q <= 1 -> P^T = P ->
  (forall delta, admissible delta ->
    dot (P *m (w - t *: q)) (h + delta) <= t * (Num.sqrt (1 - norm q ^+ 2) * Num.sqrt c)) ->
  forall delta, admissible delta -> readout w b c (P *m (h + delta)) <= t + b.
Proof.
move=> c0 t0 hq PT H delta /H; rewrite readout_le // dot_mull PT norm_sq; set z := P *m _ => hz.
have := ler_wpmul2l t0 (rho_tangent z (ltW c0) hq); rewrite mulrDr => k; apply: le_trans k.
by move: hz; rewrite dotBl dotZl ler_subl_addl addrC.
Qed.

(** (b) A level [t < 0]: the divisor is below its secants [(rho^2 + s^2) / (2 s)]. *)
Lemma rho_secant c z s : 0 <= c -> 0 < s -> rho c z <= (dot z z + c + s ^+ 2) / (2 * s).
Proof.
move=> c0 s0; rewrite ler_pdivl_mulr ?mulr_gt0 ?ltr0n // -rho_sq // -subr_ge0.
rewrite [X in 0 <= X](_ : _ = (rho c z - s) ^+ 2); first exact: sqr_ge0.
by ring.
Qed.

(** (b), for any bound [K] of [|z|^2 + c] by a function that is affine in [delta]. *)
Lemma final_norm_secant_gen w b c t s z K :
  0 < c -> t < 0 -> 0 < s -> dot z z + c <= K ->
  dot w z + - t / (2 * s) * (K + s ^+ 2) <= 0 -> readout w b c z <= t + b.
Proof.
move=> c0 t0 s0 hK H; rewrite readout_le //.
have s2 : 0 < 2 * s by rewrite mulr_gt0 ?ltr0n.
have k : rho c z <= (K + s ^+ 2) / (2 * s).
  by apply: le_trans (rho_secant z (ltW c0) s0) _; rewrite ler_pmul2r ?invr_gt0 // ler_add2r.
have := ler_wnmul2l (ltW t0) k; apply: le_trans.
by rewrite -subr_ge0 -[X in 0 <= X]opprK oppr_ge0 opprB; move: H; rewrite !mulNr mulrAC mulrA mulrAC.
Qed.

(** (b) RMSNorm: [P] is the identity. *)
Theorem final_norm_secant_rms w b c t s r h (admissible : 'cV[R]_d -> Prop) :
  0 < c -> t < 0 -> 0 < s ->
  (forall delta, admissible delta -> norm delta <= r) ->
  (forall delta, admissible delta ->
    dot w h + - t / (2 * s) * (norm h ^+ 2 + r ^+ 2 + c + s ^+ 2) + dot (w + (- t / s) *: h) delta <= 0) ->
  forall delta, admissible delta -> readout w b c (h + delta) <= t + b.
Proof.
move=> c0 t0 s0 hr H delta ad.
have r0 : 0 <= r by apply: le_trans (hr _ ad); apply: norm_ge0.
apply: (@final_norm_secant_gen _ _ _ _ s _ (norm h ^+ 2 + 2 * dot h delta + r ^+ 2 + c)) => //.
  rewrite ler_add2r !dot_lin (dotC delta h) norm_sq -addrA.
  have := hr _ ad; rewrite norm_leP // => k.
  by rewrite -[X in _ <= X]addrA ler_add2l mulr_natl mulr2n -addrA !ler_add2l.
apply: le_trans (H _ ad); rewrite le_eqVlt; apply/orP; left; apply/eqP.
rewrite !dot_lin; field; exact: lt0r_neq0.
Qed.

(** The mean-removing projector: subtracts the mean of the entries. *)
Definition ones : 'cV[R]_d := const_mx 1.
Definition center : 'M[R]_d := 1%:M - d%:R^-1 *: (ones *m ones^T).

Lemma center_sym : center^T = center.
Proof. by rewrite /center linearB /= linearZ /= trmx1 trmx_mul trmxK. Qed.

Lemma dot_dim0 (u v : 'cV[R]_d) : d = 0%N -> dot u v = 0.
Proof. by rewrite /dot; move: u v; case: d => // u v _; rewrite big_ord0. Qed.

Lemma dot_ones : dot ones ones = d%:R.
Proof.
rewrite /dot (eq_bigr (fun=> 1)) => [|i _]; last by rewrite !mxE mulr1.
by rewrite sumr_const card_ord.
Qed.

Lemma centerE (v : 'cV[R]_d) : center *m v = v - (dot ones v / d%:R) *: ones.
Proof.
rewrite mulmxBl mul1mx -scalemxAl -mulmxA; congr (_ - _).
have -> : ones^T *m v = (dot ones v)%:M by rewrite [LHS]mx11_scalar -dotE.
by rewrite mul_mx_scalar scalerA mulrC.
Qed.

Lemma center_dot (u v : 'cV[R]_d) : dot (center *m u) (center *m v) = dot (center *m u) v.
Proof.
case: (posnP d) => [d0|dp]; first by rewrite !dot_dim0.
have dr : (d%:R : R) != 0 by rewrite pnatr_eq0 -lt0n.
by rewrite !centerE !dot_lin !(dotC _ ones) dot_ones; field.
Qed.

(** The length left after removing the mean has, for every [m], a bound that is affine in [delta]. *)
Lemma center_norm_le delta m : dot (center *m delta) (center *m delta) <=
  dot delta delta - 2 * m * dot ones delta + d%:R * m ^+ 2.
Proof.
case: (posnP d) => [d0|dp]; first by rewrite !dot_dim0 // mulr0 subr0 d0 mul0r addr0.
have dr : (d%:R : R) != 0 by rewrite pnatr_eq0 -lt0n.
rewrite center_dot centerE -subr_ge0.
rewrite [X in 0 <= X](_ : _ = d%:R * (dot ones delta / d%:R - m) ^+ 2); last by rewrite !dot_lin; field.
by rewrite mulr_ge0 ?ler0n ?sqr_ge0.
Qed.

(** (b) LayerNorm: [P] removes the mean, [m] is any number. *)
Theorem final_norm_secant_layer w b c t s m r h (admissible : 'cV[R]_d -> Prop) :
  0 < c -> t < 0 -> 0 < s -> center *m w = w ->
  (forall delta, admissible delta -> norm delta <= r) ->
  (forall delta, admissible delta ->
    dot w (center *m h) + - t / (2 * s) * (norm (center *m h) ^+ 2 + r ^+ 2 + d%:R * m ^+ 2 + c + s ^+ 2)
    + dot (w + (- t / s) *: (center *m h - m *: ones)) delta <= 0) ->
  forall delta, admissible delta -> readout w b c (center *m (h + delta)) <= t + b.
Proof.
move=> c0 t0 s0 hw hr H delta ad.
have r0 : 0 <= r by apply: le_trans (hr _ ad); apply: norm_ge0.
apply: (@final_norm_secant_gen _ _ _ _ s _ (norm (center *m h) ^+ 2 + 2 * dot (center *m h) delta
    + (r ^+ 2 - 2 * m * dot ones delta + d%:R * m ^+ 2) + c)) => //.
  rewrite ler_add2r mulmxDr !dotDl !dotDr (dotC (center *m delta) (center *m h)) (center_dot h delta) norm_sq.
  have k := center_norm_le delta m; have := hr _ ad; rewrite norm_leP // => k'.
  have -> : forall a b e : R, a + b + (b + e) = a + 2 * b + e by move=> *; ring.
  by rewrite ler_add2l; apply: le_trans k _; rewrite !ler_add2r.
apply: le_trans (H _ ad); rewrite le_eqVlt; apply/orP; left; apply/eqP.
have hd v : dot w (center *m v) = dot w v by rewrite dot_mulr center_sym hw.
rewrite !hd !dot_lin (dotC ones); field; exact: lt0r_neq0.
Qed.

End FinalNorm.
