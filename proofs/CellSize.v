(** cell-size: balls inside a held cell, and whether and where it ends.
    The cell: [A *m delta = 0] and [W *m delta <= s] entry by entry. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base Duality.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Inner.
Variables (R : rcfType) (d k n : nat) (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s : 'cV[R]_n).
Let w j := (row j W)^T.

Lemma cellE delta : in_cell A W s delta <-> A *m delta = 0 /\ forall j, dot (w j) delta <= s j 0.
Proof. by split=> -[h1 h2]; split=> // j; move: (h2 j); rewrite mulmx_dot. Qed.

(** (a) The ball of radius [r] within the equalities lies in the cell iff [r] times the projected normals fit. *)
Theorem cell_inner_radius (P : 'M[R]_d) r : is_orthproj A^T P -> 0 <= r ->
  (forall delta, A *m delta = 0 -> norm delta <= r -> in_cell A W s delta) <->
  (forall j, r * norm (P *m w j) <= s j 0).
Proof.
move=> hP r0; split=> h => [j|delta hA hr].
  have hq : A *m (P *m w j) = 0 by rewrite -[A]trmxK (orthproj_null _ hP).
  have [z|n0] := eqVneq (P *m w j) 0.
    have h0 := h 0 (mulmx0 _ _); rewrite norm0 in h0; have /cellE[_ /(_ j)] := h0 r0.
    by rewrite dot0r z norm0 mulr0.
  have nn : norm (P *m w j) != 0 by rewrite norm_eq0.
  have := h ((r / norm (P *m w j)) *: (P *m w j)).
  rewrite -scalemxAr hq scaler0 normZ ger0_norm ?divr_ge0 // mulfVK // => /(_ erefl (lexx _)) /cellE[_ /(_ j)].
  rewrite dotZr (orthproj_dot _ hP) ?trmxK // -norm_sq.
  by have -> : r / norm (P *m w j) * norm (P *m w j) ^+ 2 = r * norm (P *m w j) by field.
apply/cellE; split=> // j; apply: le_trans (h j).
by rewrite (orthproj_dot _ hP) ?trmxK //; apply: dot_le_ball.
Qed.

(** (b) A ball around a point near [c]; any multipliers. With [c = 0] and [e = 0] this is the sufficient half of (a). *)
Theorem cell_ball (mu : 'I_n -> 'cV[R]_k) (c c' delta : 'cV[R]_d) r e :
  (forall j, dot (w j - A^T *m mu j) c + (r + e) * norm (w j - A^T *m mu j) <= s j 0) ->
  norm (c' - c) <= e -> A *m delta = 0 -> norm (delta - c') <= r -> in_cell A W s delta.
Proof.
move=> h he hA hr; apply/cellE; split=> // j; apply: le_trans (h j).
have -> : dot (w j) delta = dot (w j - A^T *m mu j) delta.
  by rewrite dotBl dot_mull trmxK hA dot0r subr0.
move: (w j - _) => v.
have -> : dot v delta = dot v c + dot v (delta - c) by rewrite -dotDr addrC subrK.
rewrite ler_add2l; apply: dot_le_ball.
have -> : delta - c = (delta - c') + (c' - c) by rewrite addrA subrK.
by apply: le_trans (norm_triangle _ _) (ler_add hr he).
Qed.

(** (d) A direction that no half-space stops. *)
Theorem cell_unbounded (strict : pred 'I_n) (delta : 'cV[R]_d) t :
  nonneg s -> A *m delta = 0 -> (forall j, dot (w j) delta <= 0) ->
  (forall j, strict j -> dot (w j) delta < 0 \/ 0 < s j 0) -> 0 < t ->
  A *m (t *: delta) = 0 /\
  forall j, if strict j then dot (w j) (t *: delta) < s j 0 else dot (w j) (t *: delta) <= s j 0.
Proof.
move=> s0 hA hw hs t0; split=> [|j]; first by rewrite -scalemxAr hA scaler0.
rewrite dotZr; case: ifP => [/hs[h|h]|_]; last 1 first.
- by apply: le_trans (s0 j); apply: mulr_ge0_le0 => //; apply: ltW.
- by apply: lt_le_trans (s0 j); rewrite pmulr_rlt0.
by apply: le_lt_trans h; apply: mulr_ge0_le0 => //; apply: ltW.
Qed.

End Inner.

Section Bounded.
Variables (R : rcfType) (d k n : nat) (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s f : 'cV[R]_n).
Variables (mu : 'cV[R]_k) (LA : 'M[R]_(d, k)) (L : 'M[R]_(d, n)) (c V T : R).
Let eta := norm (A^T *m mu + W^T *m f).
Let S := dot f s.
Hypotheses (n0 : (0 < n)%N) (f0 : forall j, 0 < f j 0).
Hypothesis defect : opbound (1%:M - LA *m A - L *m W) c.
Hypothesis hV : forall j, norm (L *m s - (S / f j 0) *: col j L) <= V.
Hypothesis hT : forall j, norm (col j L) / f j 0 <= T.

(** (c) Positive multipliers and an approximate left inverse bound every point of the cell. *)
Theorem cell_bounded delta : c + eta * T < 1 -> in_cell A W s delta -> norm delta <= V / (1 - c - eta * T).
Proof.
move=> lt1 [hA hW]; have j0 : 'I_n := Ordinal n0.
pose u := \col_j (f j 0 * (s j 0 - (W *m delta) j 0)); pose U := \sum_j u j 0.
have u0 j : 0 <= u j 0 by rewrite mxE mulr_ge0 ?subr_ge0 // ltW.
have U0 : 0 <= U by apply: sumr_ge0 => j _.
have T0 : 0 <= T by apply: le_trans (hT j0); rewrite divr_ge0 // ltW.
have eU : U = S - dot (A^T *m mu + W^T *m f) delta.
  rewrite dotDl !dot_mull !trmxK hA dot0r add0r /S -dotBr /U.
  by apply: eq_bigr => j _; rewrite !mxE.
have dU : `|U - S| <= eta * norm delta.
  by rewrite eU addrAC subrr add0r normrN; apply: cauchy_schwarz.
have hu : W *m delta = s - \col_j (u j 0 / f j 0).
  have eu j : u j 0 / f j 0 = s j 0 - (W *m delta) j 0 by rewrite [u j 0]mxE mulrC mulKf // lt0r_neq0.
  apply/matrixP => j z; rewrite (ord1 z) [RHS]mxE [X in _ + X]mxE [X in _ - X]mxE eu.
  by rewrite opprB addrC subrK.
have dec : norm delta <= norm (L *m (W *m delta)) + c * norm delta.
  have {1}-> : delta = L *m (W *m delta) + (1%:M - LA *m A - L *m W) *m delta.
    by rewrite !mulmxBl mul1mx -!mulmxA hA mulmx0 subr0 addrC subrK.
  by apply: le_trans (norm_triangle _ _) _; rewrite ler_add2l.
pose K := V + eta * norm delta * T.
have hK j : norm (L *m s - (U / f j 0) *: col j L) <= K.
  have -> : L *m s - (U / f j 0) *: col j L
          = (L *m s - (S / f j 0) *: col j L) + ((S - U) / f j 0) *: col j L.
    by rewrite mulrBl scalerBl addrA subrK.
  apply: le_trans (norm_triangle _ _) (ler_add (hV j) _).
  rewrite normZ normrM normfV (gtr0_norm (f0 j)) -mulrA distrC.
  apply: ler_pmul => //; last by rewrite mulrC.
  by rewrite mulr_ge0 ?norm_ge0 // invr_ge0 ltW.
have hv : L *m (W *m delta) = L *m s - \sum_j (u j 0 / f j 0) *: col j L.
  rewrite hu mulmxBr; congr (_ - _); apply/matrixP => i z; rewrite (ord1 z) summxE [LHS]mxE.
  by apply: eq_bigr => j _; rewrite [(\col_j _) j 0]mxE [RHS]mxE [col j L i 0]mxE mulrC.
have hLW : norm (L *m (W *m delta)) <= K.
  move: U0; rewrite le_eqVlt => /orP[/eqP z|Upos].
    have uz j : u j 0 = 0 by apply: (psumr_eq0P (fun i _ => u0 i) (esym z)).
    rewrite hv big1 => [|j _]; last by rewrite uz mul0r scale0r.
    by have := hK j0; rewrite -z mul0r scale0r.
  rewrite -(ler_pmul2l Upos) -{1}(gtr0_norm Upos) -normZ hv.
  have -> : U *: (L *m s - \sum_j (u j 0 / f j 0) *: col j L)
          = \sum_j u j 0 *: (L *m s - (U / f j 0) *: col j L).
    rewrite scalerBr scaler_sumr scaler_suml -sumrB; apply: eq_bigr => j _.
    by rewrite scalerBr !scalerA mulrA [U * _]mulrC mulrA.
  apply: le_trans (norm_sum _) _; rewrite mulr_suml; apply: ler_sum => j _.
  by rewrite normZ ger0_norm // ler_wpmul2l.
rewrite ler_pdivl_mulr; last by rewrite -addrA -opprD subr_gt0.
have -> : norm delta * (1 - c - eta * T) = norm delta - (c * norm delta + eta * norm delta * T) by ring.
rewrite ler_subl_addr; apply: le_trans dec _.
by rewrite (addrC (c * _)) addrA ler_add2r.
Qed.

End Bounded.
