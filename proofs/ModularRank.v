(** modular-rank: a minor that is not zero modulo a prime bounds the rank over the rationals and the reals.
    [phi] is any ring homomorphism from the ring of the stored numbers to a field; [iota] embeds that ring in another
    field. For integers modulo [p] see the last theorem: powers of two are scaled away first. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Minor.
Variables (F : fieldType) (n d r : nat) (A : 'M[F]_(n, d)) (rows : 'I_r -> 'I_n) (cols : 'I_r -> 'I_d).

(** The chosen rows and columns. *)
Definition minor : 'M[F]_r := \matrix_(i, j) A (rows i) (cols j).

(** A minor that is not zero makes the chosen rows independent ... *)
Theorem minor_rows_free : \det minor != 0 -> row_free (\matrix_(i, j) A (rows i) j).
Proof.
move=> h; pose C : 'M[F]_(d, r) := \matrix_(i, j) (i == cols j)%:R.
have e : (\matrix_(i, j) A (rows i) j) *m C = minor.
  apply/matrixP => i j; rewrite !mxE (bigD1 (cols j)) //= big1 ?addr0; first by rewrite !mxE eqxx mulr1.
  by move=> k ne; rewrite !mxE (negbTE ne) mulr0.
have u : minor \in unitmx by rewrite unitmxE unitfE.
by apply/row_freeP; exists (C *m invmx minor); rewrite mulmxA e mulmxV.
Qed.

(** ... and bounds the rank. *)
Theorem minor_rank : \det minor != 0 -> (r <= \rank A)%N.
Proof.
move=> /minor_rows_free /eqP <-; apply: mxrankS; apply/row_subP => i.
have -> : row i (\matrix_(i, j) A (rows i) j) = row (rows i) A by apply/rowP => j; rewrite !mxE.
exact: row_sub.
Qed.

End Minor.

Section Homomorphism.
Variables (Z : comRingType) (K F : fieldType) (phi : {rmorphism Z -> K}) (iota : {rmorphism Z -> F}).
Hypothesis iota_inj : injective iota.
Variables (n d r : nat) (A : 'M[Z]_(n, d)) (rows : 'I_r -> 'I_n) (cols : 'I_r -> 'I_d).

(** A minor that is not zero under [phi] is not zero. *)
Theorem minor_lifts : \det (minor (map_mx phi A) rows cols) != 0 -> \det (minor (map_mx iota A) rows cols) != 0.
Proof.
have e (T : fieldType) (f : {rmorphism Z -> T}) :
    \det (minor (map_mx f A) rows cols) = f (\det (\matrix_(i, j) A (rows i) (cols j))).
  by rewrite -det_map_mx; congr (\det _); apply/matrixP => i j; rewrite !mxE.
rewrite !e; apply: contraNneq; rewrite -(rmorph0 iota) => /iota_inj ->.
by rewrite rmorph0.
Qed.

Theorem modular_rank_morphism : \det (minor (map_mx phi A) rows cols) != 0 ->
  (r <= \rank (map_mx iota A))%N /\ row_free (\matrix_(i, j) map_mx iota A (rows i) j).
Proof. by move/minor_lifts => h; split; [apply: minor_rank h | apply: minor_rows_free h]. Qed.

End Homomorphism.

Section Integers.
Variables (F : numFieldType) (p n d r : nat) (B : 'M[int]_(n, d)) (e : F).
Variables (rows : 'I_r -> 'I_n) (cols : 'I_r -> 'I_d).
Hypotheses (p_prime : prime p) (e0 : e != 0).

(** Reduction of an integer modulo [p]. *)
Definition residue (x : int) : 'F_p := x%:~R.

(** [A = e * B] with an integer matrix [B] and one common factor [e] (a power of two, of either sign of exponent):
    a minor of [B] that is not zero modulo [p] bounds the rank of [A], and the chosen rows of [A] are independent. *)
Theorem modular_rank :
  \det (\matrix_(i, j) residue (B (rows i) (cols j))) != 0 ->
  let A := \matrix_(i, j) (e * (B i j)%:~R) : 'M[F]_(n, d) in
  (r <= \rank A)%N /\ row_free (\matrix_(i, j) A (rows i) j).
Proof.
move=> h A.
have inj : injective (intmul 1 : int -> F) by move=> x y /eqP; rewrite eqr_int => /eqP.
have h' : \det (minor (map_mx (intmul 1 : int -> 'F_p) B) rows cols) != 0.
  by rewrite [minor _ _ _](_ : _ = \matrix_(i, j) residue (B (rows i) (cols j))) //; apply/matrixP => i j; rewrite !mxE.
have [hr hf] := @modular_rank_morphism _ _ _ [rmorphism of intmul 1] [rmorphism of intmul 1] inj _ _ _ B rows cols h'.
have eA : A = e *: map_mx (intmul 1) B by apply/matrixP => i j; rewrite !mxE.
have eR : (\matrix_(i, j) A (rows i) j) = e *: \matrix_(i, j) map_mx (intmul 1) B (rows i) j.
  by apply/matrixP => i j; rewrite !mxE.
by rewrite eR eA /row_free !mxrank_scale_nz.
Qed.

End Integers.

Section Elimination.
Variables (K : fieldType) (m n : nat) (D : 'M[K]_m) (U : 'M[K]_(m, n)) (L : 'M[K]_(n, m)) (S : 'M[K]_n).

(** One block step of the elimination: the determinant is that of the pivot block times that of the Schur complement. *)
Theorem block_elimination : D \in unitmx ->
  \det (block_mx D U L S) = \det D * \det (S - L *m invmx D *m U).
Proof.
move=> u.
have -> : block_mx D U L S = block_mx 1%:M 0 (L *m invmx D) 1%:M *m block_mx D U 0 (S - L *m invmx D *m U).
  rewrite mulmx_block !mul1mx !mul0mx !addr0 -[_ *m invmx D *m D]mulmxA mulVmx // mulmx1.
  by rewrite addrC subrK.
by rewrite det_mulmx det_lblock det_ublock !det1 !mul1r.
Qed.

End Elimination.
