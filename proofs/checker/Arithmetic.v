(* From the checker's integers and lists to sums in an ordered field, and the two inequalities behind the dual norms. *)

From Coq Require Import ZArith.
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import zify ssrZ ring.
From SaeVerified Require Import Check Meaning.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory Num.Theory Order.Theory.
Local Open Scope ring_scope.

Section Arithmetic.

Variable F : realFieldType.

(* An integer in the field. *)
Definition cast (z : Z) : F := (int_of_Z z)%:~R.

(* A list of integers as a vector in the field. *)
Definition cast_of (v : seq Z) (i : nat) : F := cast (nth Z0 v i).

(* v . delta, for a list v *)
Definition along (d : nat) (v : seq Z) (delta : 'I_d -> F) : F := \sum_(i < d) cast_of v i * delta i.

(* The cast keeps zero ... *)
Lemma cast0 : cast Z0 = 0. Proof. by []. Qed.

(* ... sums ... *)
Lemma castD x y : cast (Z.add x y) = cast x + cast y.
Proof. by rewrite /cast -rmorphD -[int_of_Z x + _]rmorphD. Qed.

(* ... differences ... *)
Lemma castB x y : cast (Z.sub x y) = cast x - cast y.
Proof. by rewrite /cast -rmorphB -[int_of_Z x - _]rmorphB. Qed.

(* ... products ... *)
Lemma castM x y : cast (Z.mul x y) = cast x * cast y.
Proof. by rewrite /cast -rmorphM -[int_of_Z x * _]rmorphM. Qed.

(* ... and the order, in both directions. *)
Lemma cast_le x y : (Z.leb x y) = (cast x <= cast y).
Proof. by rewrite /cast ler_int; lia. Qed.

(* The same for the strict order. *)
Lemma cast_lt x y : (Z.ltb x y) = (cast x < cast y).
Proof. by rewrite /cast ltr_int; lia. Qed.

(* Equality is equality. *)
Lemma cast_inj x y : (Z.eqb x y) = (cast x == cast y).
Proof. by rewrite /cast eqr_int; lia. Qed.

(* Absolute values are kept ... *)
Lemma cast_abs x : cast (Z.abs x) = `|cast x|.
Proof. by rewrite /cast -intr_norm; congr (_%:~R); lia. Qed.

(* ... and the larger of two. *)
Lemma cast_max x y : cast (Z.max x y) = Num.max (cast x) (cast y).
Proof.
case: (leP (cast x) (cast y)).
  by rewrite -cast_le => /Z.leb_le xy; rewrite Z.max_r.
by rewrite -cast_lt => /Z.ltb_lt xy; rewrite Z.max_l //; lia.
Qed.

(* `same_length` says what its name says. *)
Lemma same_lengthP (A B : Type) (u : seq A) (v : seq B) : same_length u v = (size u == size v).
Proof. by elim: u v => [|a u step] [|b v] //=; rewrite step eqSS. Qed.

(* The loop of products is the inner product. *)
Lemma cast_dot_from start u v : size u = size v ->
  cast (dot_from start u v) = cast start + \sum_(i < size v) cast_of u i * cast_of v i.
Proof.
elim: u v start => [|a u step] [|b v] start //= => [_|[same]]; first by rewrite big_ord0 addr0.
by rewrite step // big_ord_recl castD castM addrA.
Qed.

(* The loop of absolute values is their sum. *)
Lemma cast_total_from start u : cast (total_from start u) = cast start + \sum_(i < size u) `|cast_of u i|.
Proof.
elim: u start => [|a u step] start /=; first by rewrite big_ord0 addr0.
by rewrite step // big_ord_recl castD cast_abs addrA.
Qed.

(* Subtracting a multiple keeps the length ... *)
Lemma size_subtract m v w : size v = size w -> size (subtract m v w) = size w.
Proof. by elim: v w => [|a v step] [|b w] //= [] /step ->. Qed.

(* ... and is entry by entry what it should be. *)
Lemma cast_subtract m v w i : size v = size w -> cast_of (subtract m v w) i = cast_of v i - cast m * cast_of w i.
Proof.
rewrite /cast_of; elim: v w i => [|a v step] [|b w] [|i] //= => [_|_|_|[] /step //]; rewrite ?mulr0 ?subr0 //.
by rewrite castB castM.
Qed.

(* The encoder's input has the residual's length ... *)
Lemma size_encoder_input s y b : size b = size y -> size (encoder_input s y b) = size y.
Proof. by elim: y b => [|a y step] [|c b] //= [] /step ->. Qed.

(* ... and is s y - b. *)
Lemma cast_encoder_input s y b i : size b = size y ->
  cast_of (encoder_input s y b) i = cast s * cast_of y i - cast_of b i.
Proof.
rewrite /cast_of; elim: y b i => [|a y step] [|c b] [|i] //= => [_|_|_|[] /step //]; rewrite ?mulr0 ?subr0 //.
by rewrite castB castM.
Qed.

(* A moved residual has the residual's length ... *)
Lemma size_moved y delta : size delta = size y -> size (moved y delta) = size y.
Proof. by elim: y delta => [|a y step] [|b delta] //= [] /step ->. Qed.

(* ... and is y + delta. *)
Lemma cast_moved y delta i : size delta = size y -> cast_of (moved y delta) i = cast_of y i + cast_of delta i.
Proof.
rewrite /cast_of; elim: y delta i => [|a y step] [|b delta] [|i] //= => [_|_|_|[] /step //]; rewrite ?addr0 //.
by rewrite castD.
Qed.

(* `within` bounds every entry. *)
Lemma cast_within r u (i : nat) : within r u -> (i < size u)%N -> `|cast_of u i| <= cast r.
Proof.
rewrite /cast_of; elim: u i => [|a u step] [|i] //= /andP[here rest] inside.
  by rewrite -cast_abs -cast_le.
exact: step.
Qed.

(* Multiples come out of v . delta. *)
Lemma along_subtract d m v w (delta : 'I_d -> F) : size v = size w ->
  along (subtract m v w) delta = along v delta - cast m * along w delta.
Proof.
move=> same; rewrite /along mulr_sumr -sumrB; apply: eq_bigr => i _.
by rewrite cast_subtract // mulrBl mulrA.
Qed.

(* Cauchy-Schwarz: where u . u <= t^2 and delta . delta <= r^2, u . delta <= t r. *)
Lemma cauchy_schwarz d (u delta : 'I_d -> F) (t r : F) : 0 <= t -> 0 <= r ->
  dot u u <= t ^+ 2 -> dot delta delta <= r ^+ 2 -> dot u delta <= t * r.
Proof.
move=> t0 r0 ut dr.
have pos (w : 'I_d -> F) : 0 <= dot w w by apply: sumr_ge0 => i _; rewrite -expr2 sqr_ge0.
have square : dot u delta ^+ 2 <= dot u u * dot delta delta.
  have [none|some] := eqVneq (dot delta delta) 0.
    have zero i : delta i = 0.
      move/eqP: none; rewrite psumr_eq0 => [/allP/(_ i)|j _]; last by rewrite -expr2 sqr_ge0.
      by rewrite mem_index_enum mulf_eq0 orbb => /(_ isT)/eqP.
    by rewrite none mulr0 /dot big1 ?expr0n // => i _; rewrite zero mulr0.
  have positive : 0 < dot delta delta by rewrite lt_def some pos.
  have expand a b : dot (fun i => a * u i - b * delta i) (fun i => a * u i - b * delta i) =
                    a ^+ 2 * dot u u - 2%:R * a * b * dot u delta + b ^+ 2 * dot delta delta.
    by rewrite /dot !mulr_sumr -sumrB -big_split /=; apply: eq_bigr => i _; ring.
  have := pos (fun i => dot delta delta * u i - dot u delta * delta i); rewrite expand.
  have -> : dot delta delta ^+ 2 * dot u u - 2%:R * dot delta delta * dot u delta * dot u delta +
            dot u delta ^+ 2 * dot delta delta = dot delta delta * (dot u u * dot delta delta - dot u delta ^+ 2).
    by ring.
  by rewrite pmulr_rge0 // subr_ge0.
have bound : dot u delta ^+ 2 <= (t * r) ^+ 2.
  by rewrite exprMn; apply: le_trans square _; apply: ler_pmul => //; apply: pos.
have [negative|nonnegative] := ltP (dot u delta) 0; first by rewrite (le_trans (ltW negative)) ?mulr_ge0.
by rewrite -(@ler_pexpn2r _ 2) // nnegrE mulr_ge0.
Qed.

(* Hoelder: where every |delta_i| <= r, u . delta <= r sum |u_i|. *)
Lemma hoelder d (u delta : 'I_d -> F) (r : F) : (forall i, `|delta i| <= r) -> dot u delta <= (\sum_i `|u i|) * r.
Proof.
move=> bound; rewrite mulr_suml; apply: ler_sum => i _.
by apply: le_trans (ler_norm _) _; rewrite normrM ler_wpmul2l.
Qed.

End Arithmetic.
