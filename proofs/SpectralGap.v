(** spectral-gap, by subspaces instead of eigenvalues.
    "At least [k] singular values are at most [t]" is said as: some subspace of dimension [k] has
    [norm (A x) <= t * norm x] for each of its vectors. For real matrices the two are the same (Courant-Fischer). *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Gap.
Variables (R : rcfType) (n d : nat).
Implicit Types (A : 'M[R]_(n, d)).

(** Positive semidefinite. *)
Definition psd m (M : 'M[R]_m) := forall x : 'cV_m, 0 <= dot x (M *m x).

(** A subspace of dimension at least [k] (rows of [U]) on which [A] is small, or large. *)
Definition small_on A k t := exists2 U : 'M[R]_d, (k <= \rank U)%N &
  forall x : 'rV_d, (x <= U)%MS -> norm (A *m x^T) <= t * norm x^T.
Definition large_on A k t := exists2 U : 'M[R]_d, (k <= \rank U)%N &
  forall x : 'rV_d, (x <= U)%MS -> t * norm x^T <= norm (A *m x^T).

(** (a) Independent directions on whose span [A] is small. *)
Theorem spectral_small A k (V : 'M[R]_(d, k)) t : \rank V = k ->
  (forall y : 'cV_k, norm (A *m (V *m y)) <= t * norm (V *m y)) -> small_on A k t.
Proof.
move=> rV h; exists <<V^T>>%MS => [|x]; rewrite genmxE ?mxrank_tr ?rV // => /submxP[y ->].
by rewrite trmx_mul trmxK; apply: h.
Qed.

(** (a) Nearly orthonormal directions suffice, with the stated loss. *)
Theorem spectral_small_near A k (V : 'M[R]_(d, k)) t c u : 0 <= t -> c < 1 ->
  opbound (V^T *m V - 1%:M) c -> opbound (A *m V) u -> 0 <= u -> u ^+ 2 <= t ^+ 2 * (1 - c) -> small_on A k t.
Proof.
move=> t0 c1 hV hA u0 hu.
have low (y : 'cV_k) : (1 - c) * dot y y <= dot (V *m y) (V *m y).
  have -> : dot (V *m y) (V *m y) = dot y y + dot y ((V^T *m V - 1%:M) *m y).
    by rewrite -dotDr mulmxBl mul1mx addrC subrK dot_mull mulmxA.
  rewrite mulrBl mul1r ler_add2l ler_oppl -dotNl.
  by apply: le_trans (dot_le_norm _ _) _; rewrite normN mulrC -norm_sq expr2 mulrA ler_wpmul2r.
apply: (@spectral_small A k V) => [|y].
  apply/eqP; rewrite -mxrank_tr; apply/negPn/negP => nf.
  have : kermx V^T != 0 by rewrite kermx_eq0.
  case/rowV0Pn=> v /sub_kermxP hv nv.
  have hv' : V *m v^T = 0 by apply: trmx_inj; rewrite trmx_mul trmxK trmx0.
  have := low v^T; rewrite hv' dot0l leNgt => /negP; apply.
  by rewrite mulr_gt0 ?subr_gt0 // dot_gt0 -trmx0 (inj_eq trmx_inj).
rewrite norm_leP ?mulr_ge0 // exprMn norm_sq mulmxA -norm_sq.
apply: le_trans (_ : (u * norm y) ^+ 2 <= _).
  by rewrite ler_pexpn2r ?nnegrE ?mulr_ge0 // hA.
rewrite exprMn norm_sq; apply: le_trans (ler_wpmul2r (dot_ge0 y) hu) _.
by rewrite -mulrA ler_wpmul2l ?sqr_ge0.
Qed.

(** (b) The quadratic form: what a certificate of positive semidefiniteness says off the directions [V]. *)
Theorem spectral_orthogonal A k (V : 'M[R]_(d, k)) t (x : 'cV[R]_d) :
  psd (A^T *m A + V *m V^T - (t ^+ 2)%:M) -> V^T *m x = 0 -> t ^+ 2 * dot x x <= dot (A *m x) (A *m x).
Proof.
move=> h e; have := h x.
rewrite mulmxBl mulmxDl -!mulmxA e mulmx0 addr0 mul_scalar_mx dotBr dotZr subr_ge0.
by rewrite [X in _ -> _ <= X]dot_mull.
Qed.

(** (b) At least [d - k] dimensions on which [A] is large. *)
Theorem spectral_large A k (V : 'M[R]_(d, k)) t : 0 <= t ->
  psd (A^T *m A + V *m V^T - (t ^+ 2)%:M) -> large_on A (d - k) t.
Proof.
move=> t0 h; exists (kermx V).
  by rewrite mxrank_ker leq_sub2l // rank_leq_col.
move=> x /sub_kermxP e.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 // exprMn !norm_sq.
by apply: (spectral_orthogonal h); rewrite -trmx_mul e trmx0.
Qed.

(** (c) The two counts cannot overlap. *)
Theorem spectral_disjoint A k m t1 t2 : t1 < t2 -> small_on A k t1 -> large_on A m t2 -> (k + m <= d)%N.
Proof.
move=> lt [U rU hU] [W rW hW]; apply: leq_trans (leq_add rU rW) _.
rewrite -mxrank_sum_cap [(U :&: W)%MS](_ : _ = 0) ?mxrank0 ?addn0 ?rank_leq_col //.
apply/eqP/rowV0P => x; rewrite sub_capmx => /andP[xU xW].
apply: trmx_inj; rewrite trmx0; apply/eqP; rewrite -norm_eq0 eq_le norm_ge0 andbT leNgt; apply/negP => p.
have := le_trans (hW x xW) (hU x xU); rewrite leNgt => /negP; apply.
by rewrite ltr_pmul2r.
Qed.

(** (c) With [k] from the one side and [d - k] from the other, both counts are exact. *)
Theorem spectral_exact A k t1 t2 : (k <= d)%N -> t1 < t2 ->
  small_on A k t1 -> large_on A (d - k) t2 ->
  (forall j, small_on A j t1 -> (j <= k)%N) /\ (forall j, large_on A j t2 -> (j <= d - k)%N).
Proof.
move=> kd lt hs hl; split=> j hj.
  by have := spectral_disjoint lt hj hl; rewrite -{2}(subnK kd) addnC leq_add2l.
by rewrite -(leq_add2l k j) subnKC // (spectral_disjoint lt hs hj).
Qed.

End Gap.

Section Definite.
Variables (R : rcfType) (d : nat).

(** (d) An approximate Cholesky factor bounds a quadratic form from below; nothing is assumed of [L]. *)
Theorem spectral_cholesky (T M L : 'M[R]_d) s e r :
  opbound (T - M - s%:M) e -> opbound (M - L *m L^T) r ->
  forall x : 'cV_d, (s - e - r) * dot x x <= dot x (T *m x).
Proof.
move=> hT hM x.
have -> : dot x (T *m x) = s * dot x x + dot x ((T - M - s%:M) *m x)
    + (dot x ((M - L *m L^T) *m x) + dot (L^T *m x) (L^T *m x)).
  have -> : dot (L^T *m x) (L^T *m x) = dot x (L *m L^T *m x) by rewrite dot_mull trmxK mulmxA.
  by rewrite !mulmxBl mul_scalar_mx !dotBr dotZr; ring.
have lb (B : 'M[R]_d) b : opbound B b -> - (b * dot x x) <= dot x (B *m x).
  move=> h; rewrite ler_oppl -dotNl; apply: le_trans (dot_le_norm _ _) _.
  by rewrite normN mulrC -norm_sq expr2 mulrA ler_wpmul2r // h.
rewrite !mulrBl; apply: ler_add; first by rewrite ler_add2l lb.
by apply: le_trans (lb _ _ hM) _; rewrite ler_addl dot_ge0.
Qed.

(** (d) Hence every eigenvalue is at least so large. *)
Theorem spectral_eigenvalue (T M L : 'M[R]_d) s e r a (x : 'cV_d) :
  opbound (T - M - s%:M) e -> opbound (M - L *m L^T) r -> T *m x = a *: x -> x != 0 -> s - e - r <= a.
Proof.
move=> hT hM ex n0; have := spectral_cholesky hT hM x.
by rewrite ex dotZr ler_pmul2r // dot_gt0.
Qed.

End Definite.
