(** Bypass: perturbations that leave every held pre-activation unchanged. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Exists.
Variables (F : fieldType) (d s : nat) (E : 'M[F]_(d, s)).

(** A bypass other than zero exists iff the encoder columns do not span the space. *)
Theorem bypass_exists : (exists2 delta : 'cV[F]_d, delta != 0 & E^T *m delta = 0) <-> (\rank E < d)%N.
Proof.
split=> [[delta n0 h]|lt].
  rewrite ltn_neqAle rank_leq_row andbT; apply: contraNneq n0 => e.
  have fE : row_free E by apply/eqP.
  have h' : delta^T *m E = 0 by rewrite -[E]trmxK -trmx_mul h trmx0.
  by apply/eqP/trmx_inj; apply: (row_free_inj fE); rewrite h' trmx0 mul0mx.
have : kermx E != 0 by rewrite kermx_eq0 /row_free neq_ltn lt.
case/rowV0Pn=> v /sub_kermxP h n0; exists v^T; first by rewrite -trmx0 (inj_eq trmx_inj).
by rewrite -trmx_mul h trmx0.
Qed.

(** The bypasses have at least [d - s] dimensions. *)
Theorem bypass_dimension : (d - s <= \rank (kermx E))%N.
Proof. by rewrite mxrank_ker leq_sub2l // rank_leq_col. Qed.

(** Every bypass leaves the readout [g] alone iff [g] is in the span of the held columns. *)
Theorem bypass_readout (g : 'cV[F]_d) :
  (forall delta : 'cV[F]_d, E^T *m delta = 0 -> g^T *m delta = 0) <-> (g^T <= E^T)%MS.
Proof.
split=> [h|/submxP[C ->] delta e]; last by rewrite -mulmxA e mulmx0.
rewrite submxE; apply/eqP/matrixP => i j.
have := mulmx_coker E^T; move: (cokermx E^T) => K hK.
have e : E^T *m (K *m (delta_mx j 0 : 'cV_d)) = 0 by rewrite mulmxA hK mul0mx.
by have := h _ e; rewrite mulmxA -colE => /matrixP /(_ i 0); rewrite !mxE.
Qed.

End Exists.

Section WorstCase.
Variables (R : rcfType) (d s : nat) (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d).
Hypothesis hP : is_orthproj E P.

(** No bypass of length [eps] moves the readout by more than [eps * norm (P *m g)]. *)
Theorem bypass_bound eps (delta : 'cV[R]_d) :
  E^T *m delta = 0 -> norm delta <= eps -> dot g delta <= eps * norm (P *m g).
Proof. by move=> h hn; rewrite (orthproj_dot g hP h); apply: dot_le_ball. Qed.

(** Some bypass of length at most [eps] moves it by just that much. *)
Theorem bypass_attained eps : 0 <= eps ->
  exists delta : 'cV[R]_d, [/\ E^T *m delta = 0, norm delta <= eps & dot g delta = eps * norm (P *m g)].
Proof.
move=> e0; set q := P *m g.
have hq : E^T *m q = 0 by apply: (orthproj_null _ hP).
have [z|n0] := eqVneq q 0.
  by exists 0; rewrite mulmx0 norm0 dot0r z norm0 mulr0; split.
have nn : norm q != 0 by rewrite norm_eq0.
exists ((eps / norm q) *: q); split.
- by rewrite -scalemxAr hq scaler0.
- by rewrite normZ ger0_norm ?divr_ge0 // mulfVK.
by rewrite dotZr (orthproj_dot g hP hq) -/q -norm_sq; field.
Qed.

(** To move the readout by [c] costs a length of exactly [|c| / norm (P *m g)]: at least so much ... *)
Theorem bypass_cost (delta : 'cV[R]_d) : E^T *m delta = 0 ->
  P *m g != 0 -> `|dot g delta| / norm (P *m g) <= norm delta.
Proof.
move=> h n0; rewrite ler_pdivr_mulr ?norm_gt0 // (orthproj_dot g hP h) mulrC.
exact: cauchy_schwarz.
Qed.

(** ... and this much is enough. *)
Theorem bypass_cost_attained c : P *m g != 0 ->
  exists delta : 'cV[R]_d, [/\ E^T *m delta = 0, dot g delta = c & norm delta = `|c| / norm (P *m g)].
Proof.
set q := P *m g => n0; have nn : norm q != 0 by rewrite norm_eq0.
have hq : E^T *m q = 0 by apply: (orthproj_null _ hP).
exists ((c / norm q ^+ 2) *: q); split.
- by rewrite -scalemxAr hq scaler0.
- by rewrite dotZr (orthproj_dot g hP hq) -/q -norm_sq; field.
rewrite normZ normrM normfV (ger0_norm (sqr_ge0 _)) -mulrA; congr (_ * _); field; exact: nn.
Qed.

End WorstCase.
