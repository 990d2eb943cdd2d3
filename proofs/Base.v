(** Inner product, norm, Cauchy-Schwarz, invertibility near the identity.
    Vectors are columns ['cV[R]_d]; everything holds for all dimensions. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Dot.
Variable R : realFieldType.

(** The inner product. *)
Definition dot n (u v : 'cV[R]_n) : R := \sum_i u i 0 * v i 0.

(** All entries are non-negative. *)
Definition nonneg n (u : 'cV[R]_n) := forall i, 0 <= u i 0.

Lemma dotE n (u v : 'cV[R]_n) : dot u v = (u^T *m v) 0 0.
Proof. by rewrite mxE; apply: eq_bigr => i _; rewrite mxE. Qed.

Lemma dotC n (u v : 'cV[R]_n) : dot u v = dot v u.
Proof. by apply: eq_bigr => i _; rewrite mulrC. Qed.

Lemma dotDl n (u v w : 'cV[R]_n) : dot (u + v) w = dot u w + dot v w.
Proof. by rewrite -big_split; apply: eq_bigr => i _; rewrite mxE mulrDl. Qed.

Lemma dotZl n a (u v : 'cV[R]_n) : dot (a *: u) v = a * dot u v.
Proof. by rewrite mulr_sumr; apply: eq_bigr => i _; rewrite mxE mulrA. Qed.

Lemma dotNl n (u v : 'cV[R]_n) : dot (- u) v = - dot u v.
Proof. by rewrite -scaleN1r dotZl mulN1r. Qed.

Lemma dotBl n (u v w : 'cV[R]_n) : dot (u - v) w = dot u w - dot v w.
Proof. by rewrite dotDl dotNl. Qed.

Lemma dot0l n (u : 'cV[R]_n) : dot 0 u = 0.
Proof. by rewrite -(scale0r u) dotZl mul0r. Qed.

Lemma dotDr n (u v w : 'cV[R]_n) : dot u (v + w) = dot u v + dot u w.
Proof. by rewrite dotC dotDl !(dotC u). Qed.

Lemma dotZr n a (u v : 'cV[R]_n) : dot u (a *: v) = a * dot u v.
Proof. by rewrite dotC dotZl dotC. Qed.

Lemma dotNr n (u v : 'cV[R]_n) : dot u (- v) = - dot u v.
Proof. by rewrite dotC dotNl dotC. Qed.

Lemma dotBr n (u v w : 'cV[R]_n) : dot u (v - w) = dot u v - dot u w.
Proof. by rewrite dotDr dotNr. Qed.

Lemma dot0r n (u : 'cV[R]_n) : dot u 0 = 0.
Proof. by rewrite dotC dot0l. Qed.

Definition dot_lin := (dotDl, dotDr, dotNl, dotNr, dotZl, dotZr).

Lemma dot_mull m n (A : 'M[R]_(m, n)) u v : dot (A *m u) v = dot u (A^T *m v).
Proof. by rewrite !dotE trmx_mul mulmxA. Qed.

Lemma dot_mulr m n (A : 'M[R]_(m, n)) u v : dot u (A *m v) = dot (A^T *m u) v.
Proof. by rewrite dotC dot_mull dotC. Qed.

Lemma dot_ge0 n (u : 'cV[R]_n) : 0 <= dot u u.
Proof. by apply: sumr_ge0 => i _; rewrite -expr2 sqr_ge0. Qed.

Lemma dot_eq0 n (u : 'cV[R]_n) : (dot u u == 0) = (u == 0).
Proof.
apply/eqP/eqP => [h|->]; last by rewrite dot0l.
apply/matrixP => i j; rewrite (ord1 j) [RHS]mxE.
have p (k : 'I_n) : true -> 0 <= u k 0 * u k 0 by rewrite -expr2 sqr_ge0.
by move/eqP: (psumr_eq0P p h isT : u i 0 * u i 0 = 0); rewrite -expr2 sqrf_eq0 => /eqP.
Qed.

Lemma dot_gt0 n (u : 'cV[R]_n) : (0 < dot u u) = (u != 0).
Proof. by rewrite lt_def dot_ge0 andbT dot_eq0. Qed.

Lemma dot_delta n (u : 'cV[R]_n) i : dot (delta_mx i 0) u = u i 0.
Proof.
rewrite /dot (bigD1 i) //= big1 ?addr0 => [|j ne]; first by rewrite mxE !eqxx mul1r.
by rewrite mxE (negbTE ne) mul0r.
Qed.

Lemma mulmx_dot m n (A : 'M[R]_(m, n)) u i : (A *m u) i 0 = dot (row i A)^T u.
Proof. by rewrite mxE; apply: eq_bigr => j _; rewrite !mxE. Qed.

(** The inner product of non-negative vectors is monotone. *)
Lemma dot_mono n (c u v : 'cV[R]_n) :
  nonneg c -> (forall i, u i 0 <= v i 0) -> dot c u <= dot c v.
Proof. by move=> c0 h; apply: ler_sum => i _; apply: ler_wpmul2l. Qed.

(** Cauchy-Schwarz without square roots. *)
Lemma cauchy_schwarz_sq n (u v : 'cV[R]_n) : dot u v ^+ 2 <= dot u u * dot v v.
Proof.
have [->|v0] := eqVneq v 0; first by rewrite !dot0r expr0n mulr0.
have a0 : 0 < dot v v by rewrite dot_gt0.
have := dot_ge0 (dot v v *: u - dot u v *: v).
rewrite [X in 0 <= X](_ : _ = dot v v * (dot u u * dot v v - dot u v ^+ 2)); last first.
  by rewrite !dot_lin (dotC v u); ring.
by rewrite (pmulr_rge0 _ a0) subr_ge0.
Qed.

(** A square matrix without kernel is invertible. *)
Lemma unitmx_inj n (A : 'M[R]_n) : (forall x : 'cV_n, A *m x = 0 -> x = 0) -> A \in unitmx.
Proof.
move=> h; rewrite -unitmx_tr -row_free_unit -kermx_eq0; apply/eqP/row_matrixP => i.
rewrite row0; apply: trmx_inj; rewrite trmx0; apply: h.
by apply: trmx_inj; rewrite trmx_mul trmxK trmx0 -row_mul mulmx_ker row0.
Qed.

(** The Gram matrix of independent rows is invertible. *)
Lemma gram_unit m n (B : 'M[R]_(m, n)) : row_free B -> B *m B^T \in unitmx.
Proof.
move=> fB; apply: unitmx_inj => x h.
have e : dot (B^T *m x) (B^T *m x) = 0 by rewrite dot_mulr trmxK mulmxA h dot0l.
move/eqP: e; rewrite dot_eq0 => /eqP e.
apply: trmx_inj; apply: (row_free_inj fB).
by rewrite trmx0 mul0mx -[B]trmxK -trmx_mul e trmx0.
Qed.

(** [P] is the orthogonal projector onto the null space of [A^T]. *)
Definition is_orthproj d k (A : 'M[R]_(d, k)) (P : 'M[R]_d) :=
  [/\ P^T = P, P *m P = P, P *m A = 0 & forall v : 'cV_d, A^T *m v = 0 -> P *m v = v].

Lemma orthproj_exists d k (A : 'M[R]_(d, k)) : exists P, is_orthproj A P.
Proof.
have [B fB [eBA eAB]] : exists2 B : 'M_(\rank A^T, d), row_free B & (B <= A^T)%MS /\ (A^T <= B)%MS.
  by exists (row_base A^T); rewrite ?row_base_free // !eq_row_base.
have uG := gram_unit fB.
have [G GT GV] : exists2 G, G^T = G & G *m (B *m B^T) = 1%:M.
  by exists (invmx (B *m B^T)); rewrite ?mulVmx // trmx_inv trmx_mul trmxK.
pose Q := B^T *m G *m B.
have QT : Q^T = Q by rewrite /Q !trmx_mul GT trmxK mulmxA.
have QB : Q *m B^T = B^T by rewrite /Q -!mulmxA GV mulmx1.
have QQ : Q *m Q = Q by rewrite {2}/Q !mulmxA QB.
have /submxP[C eC] := eAB.
have /submxP[C' eB] := eBA.
have QA : Q *m A = A by rewrite -[A]trmxK eC trmx_mul mulmxA QB.
exists (1%:M - Q); split.
- by rewrite linearB /= trmx1 QT.
- by rewrite mulmxBl mul1mx mulmxBr mulmx1 QQ subrr subr0.
- by rewrite mulmxBl mul1mx QA subrr.
move=> v h; rewrite mulmxBl mul1mx -mulmxA.
by rewrite [B *m v](_ : _ = 0) ?mulmx0 ?subr0 // eB -mulmxA h mulmx0.
Qed.

Lemma orthproj_null d k (A : 'M[R]_(d, k)) P v : is_orthproj A P -> A^T *m (P *m v) = 0 :> 'cV_k.
Proof. by case=> PT _ PA _; rewrite mulmxA -{1}PT -trmx_mul PA trmx0 mul0mx. Qed.

Lemma orthproj_unique d k (A : 'M[R]_(d, k)) P Q : is_orthproj A P -> is_orthproj A Q -> P = Q.
Proof.
move=> hP hQ; have [PT PP PA PI] := hP; have [QT QQ QA QI] := hQ.
have QP : Q *m P = P.
  apply/matrixP => i j.
  have e : Q *m (P *m delta_mx j 0) = P *m (delta_mx j 0 : 'cV_d).
    by apply: QI; apply: orthproj_null.
  by move: e; rewrite mulmxA -!colE => /matrixP /(_ i 0); rewrite !mxE.
have PQ : P *m Q = Q.
  apply/matrixP => i j.
  have e : P *m (Q *m delta_mx j 0) = Q *m (delta_mx j 0 : 'cV_d).
    by apply: PI; apply: orthproj_null.
  by move: e; rewrite mulmxA -!colE => /matrixP /(_ i 0); rewrite !mxE.
by rewrite -QP -{1}QT -{1}PT -trmx_mul PQ QT.
Qed.

(** On the null space the projector moves to the other side of the inner product. *)
Lemma orthproj_dot d k (A : 'M[R]_(d, k)) P (g v : 'cV_d) :
  is_orthproj A P -> A^T *m v = 0 -> dot g v = dot (P *m g) v.
Proof. by case=> PT _ _ PI h; rewrite dot_mull PT PI. Qed.

End Dot.

Section Norm.
Variable R : rcfType.

(** The Euclidean norm. *)
Definition norm n (u : 'cV[R]_n) : R := Num.sqrt (dot u u).

Lemma norm_ge0 n (u : 'cV[R]_n) : 0 <= norm u.
Proof. exact: sqrtr_ge0. Qed.
Hint Resolve norm_ge0 : core.

Lemma norm_sq n (u : 'cV[R]_n) : norm u ^+ 2 = dot u u.
Proof. by rewrite sqr_sqrtr // dot_ge0. Qed.

Lemma norm_eq0 n (u : 'cV[R]_n) : (norm u == 0) = (u == 0).
Proof. by rewrite -(@sqrf_eq0 _ (norm u)) norm_sq dot_eq0. Qed.

Lemma norm_gt0 n (u : 'cV[R]_n) : (0 < norm u) = (u != 0).
Proof. by rewrite lt_def norm_ge0 andbT norm_eq0. Qed.

Lemma norm0 n : norm (0 : 'cV[R]_n) = 0.
Proof. by apply/eqP; rewrite norm_eq0. Qed.

Lemma normN n (u : 'cV[R]_n) : norm (- u) = norm u.
Proof. by rewrite /norm !dot_lin opprK. Qed.

Lemma normZ n a (u : 'cV[R]_n) : norm (a *: u) = `|a| * norm u.
Proof. by rewrite /norm !dot_lin mulrA -expr2 sqrtrM ?sqr_ge0 // sqrtr_sqr. Qed.

Lemma norm_leP n (u : 'cV[R]_n) r : 0 <= r -> (norm u <= r) = (dot u u <= r ^+ 2).
Proof. by move=> r0; rewrite -norm_sq ler_pexpn2r ?nnegrE. Qed.

Lemma cauchy_schwarz n (u v : 'cV[R]_n) : `|dot u v| <= norm u * norm v.
Proof.
rewrite -(@ler_pexpn2r _ 2) ?nnegrE ?mulr_ge0 //.
by rewrite exprMn !norm_sq real_normK ?num_real // cauchy_schwarz_sq.
Qed.

Lemma dot_le_norm n (u v : 'cV[R]_n) : dot u v <= norm u * norm v.
Proof. exact: le_trans (ler_norm _) (cauchy_schwarz u v). Qed.

Lemma dot_ge_norm n (u v : 'cV[R]_n) : - (norm u * norm v) <= dot u v.
Proof. by have := cauchy_schwarz u v; rewrite ler_norml => /andP[]. Qed.

(** Cauchy-Schwarz on a ball. *)
Lemma dot_le_ball n (u v : 'cV[R]_n) r : norm v <= r -> dot u v <= r * norm u.
Proof. by move=> h; apply: le_trans (dot_le_norm u v) _; rewrite mulrC ler_wpmul2r. Qed.

Lemma norm_triangle n (u v : 'cV[R]_n) : norm (u + v) <= norm u + norm v.
Proof.
rewrite norm_leP ?addr_ge0 //.
have -> : (norm u + norm v) ^+ 2 = dot u u + dot v v + 2 * (norm u * norm v).
  by rewrite -!norm_sq; ring.
have -> : dot (u + v) (u + v) = dot u u + dot v v + 2 * dot u v by rewrite !dot_lin (dotC v u); ring.
by rewrite ler_add2l ler_pmul2l ?ltr0n // dot_le_norm.
Qed.

Lemma norm_triangleB n (u v : 'cV[R]_n) : norm u <= norm (u - v) + norm v.
Proof. by rewrite -{1}(subrK v u) norm_triangle. Qed.

Lemma norm_sum n (I : finType) (F : I -> 'cV[R]_n) : norm (\sum_i F i) <= \sum_i norm (F i).
Proof.
apply: (big_ind2 (fun x y => norm x <= y)) => //; first by rewrite norm0.
by move=> u a v b hu hv; apply: le_trans (norm_triangle _ _) (ler_add hu hv).
Qed.

(** [c] bounds the operator norm of [A]. *)
Definition opbound m n (A : 'M[R]_(m, n)) (c : R) := forall x : 'cV_n, norm (A *m x) <= c * norm x.

(** The Frobenius norm, which is such a bound. *)
Definition fro m n (A : 'M[R]_(m, n)) : R := Num.sqrt (\sum_i \sum_j A i j ^+ 2).

Lemma fro_ge0 m n (A : 'M[R]_(m, n)) : 0 <= fro A.
Proof. exact: sqrtr_ge0. Qed.

Lemma fro_opbound m n (A : 'M[R]_(m, n)) : opbound A (fro A).
Proof.
move=> x; rewrite norm_leP ?mulr_ge0 ?fro_ge0 // exprMn norm_sq sqr_sqrtr; last first.
  by apply: sumr_ge0 => i _; apply: sumr_ge0 => j _; apply: sqr_ge0.
rewrite mulr_suml; apply: ler_sum => i _; rewrite mulmx_dot -expr2.
apply: le_trans (cauchy_schwarz_sq _ _) _; rewrite ler_wpmul2r ?dot_ge0 //.
by apply: ler_sum => j _; rewrite !mxE expr2.
Qed.

(** A matrix closer to the identity than one is invertible, and its inverse is not large. *)
Lemma near_one_unit n (E : 'M[R]_n) c : opbound E c -> c < 1 -> 1%:M + E \in unitmx.
Proof.
move=> hE c1; apply: unitmx_inj => x; rewrite mulmxDl mul1mx => h.
have e : x = - (E *m x) by apply/eqP; rewrite -addr_eq0 h.
apply/eqP; rewrite -norm_eq0 eq_le norm_ge0 andbT leNgt; apply/negP => x0.
have := hE x; rewrite -normN -e leNgt => /negP; apply.
by rewrite -{2}(mul1r (norm x)) ltr_pmul2r.
Qed.

Lemma near_one_inv n (E : 'M[R]_n) c y : opbound E c -> c < 1 ->
  norm (invmx (1%:M + E) *m y) <= norm y / (1 - c).
Proof.
move=> hE c1; have u := near_one_unit hE c1; set x := _ *m y.
have e : y = x + E *m x by rewrite -{1}[x]mul1mx -mulmxDl mulKVmx.
rewrite ler_pdivl_mulr ?subr_gt0 // mulrBr mulr1 ler_subl_addr e.
have -> : x = (x + E *m x) + - (E *m x) by rewrite addrK.
have -> : x + E *m x + - (E *m x) + E *m (x + E *m x + - (E *m x)) = x + E *m x by rewrite addrK.
apply: le_trans (norm_triangle _ _) _; rewrite addrK normN ler_add2l mulrC; exact: hE.
Qed.

End Norm.
#[global] Hint Extern 0 (is_true (@Order.le _ _ _ (@norm _ _ _))) => exact: norm_ge0 : core.
#[global] Hint Extern 0 (is_true (@Order.le _ _ _ (@fro _ _ _ _))) => exact: fro_ge0 : core.
