(* Soundness of the quadratic bound, over every ordered field and for every choice of positive units. *)

From Coq Require Import ZArith.
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import zify ssrZ ring.
From SaeVerified Require Import Check Meaning Arithmetic Sound Quadratic QuadraticMeaning.

Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.

Import GRing.Theory Num.Theory Order.Theory.
Local Open Scope ring_scope.

Opaque fine.

Section Forms.

Variable F : realFieldType.

Notation cast := (@cast F).

(* The cast keeps opposites. *)
Lemma castN z : cast (Z.opp z) = - cast z.
Proof. by rewrite -[Z.opp z]/(Z.sub Z0 z) castB sub0r. Qed.

(* A sequence without its first entry. *)
Definition next (z : nat -> F) (i : nat) : F := z i.+1.

(* u . z up to n *)
Definition sum_to (n : nat) (u : seq Z) (z : nat -> F) : F := \sum_(i < n) cast_of F u i * z i.

(* Its first term comes out. *)
Lemma sum_to_cons n a u z : sum_to n.+1 (a :: u) z = cast a * z 0%N + sum_to n u (next z).
Proof. by rewrite /sum_to big_ord_recl. Qed.

(* It is linear in z. *)
Lemma sum_toB n u (z z' : nat -> F) : sum_to n u (fun i => z i - z' i) = sum_to n u z - sum_to n u z'.
Proof. by rewrite /sum_to -sumrB; apply: eq_bigr => i _; rewrite mulrBr. Qed.

(* The loop of products, which ends with the shorter list. *)
Lemma cast_dot_any start u v : cast (dot_from start u v) = cast start + \sum_(i < size v) cast_of F u i * cast_of F v i.
Proof.
elim: u v start => [|a u step] [|b v] start /=; rewrite ?big_ord0 ?addr0 //.
  by rewrite big1 ?addr0 // => i _; rewrite /cast_of nth_nil cast0 mul0r.
by rewrite step big_ord_recl castD castM addrA.
Qed.

(* y . Q y for the symmetric Q with this upper triangle, row by row. *)
Fixpoint form (rows : seq (seq Z)) (z : nat -> F) : F :=
  if rows is row :: rows' then
    cast (head Z0 row) * z 0%N ^+ 2 + 2%:R * z 0%N * sum_to (size rows') (behead row) (next z) + form rows' (next z)
  else 0.

(* That is what it is. *)
Lemma form_entries rows (z : nat -> F) :
  \sum_(i < size rows) \sum_(j < size rows) cast (entry rows i j) * z i * z j = form rows z.
Proof.
elim: rows z => [|row rows step] z; first by rewrite big_ord0.
have corner : entry (row :: rows) 0 0 = head Z0 row by rewrite /entry /= nth0.
have right j : entry (row :: rows) 0 j.+1 = nth Z0 (behead row) j by rewrite /entry /= nth_behead.
have below i : entry (row :: rows) i.+1 0 = nth Z0 (behead row) i by rewrite /entry /= nth_behead.
pose edge := sum_to (size rows) (behead row) (next z).
rewrite [LHS](_ : _ = cast (head Z0 row) * z 0%N * z 0%N + z 0%N * edge + (z 0%N * edge + form rows (next z))).
  by rewrite /= -/edge; ring.
rewrite big_ord_recl; congr (_ + _).
  rewrite big_ord_recl corner; congr (_ + _); rewrite mulr_sumr; apply: eq_bigr => j _.
  by rewrite lift0 right -mulrA mulrCA.
rewrite -step mulr_sumr -big_split; apply: eq_bigr => i _.
rewrite big_ord_recl lift0 below; by congr (_ + _); rewrite mulrC.
Qed.

(* Rows of a triangle are as many as v has entries, and so is Q v. *)
Lemma triangle_size rows v : triangle rows v -> size v = size rows.
Proof. by elim: rows v => [|row rows step] [|x v] //= /andP[_ /step ->]. Qed.

(* The same of Q v. *)
Lemma product_size rows v : triangle rows v -> size (product rows v) = size rows.
Proof.
elim: rows v => [|[|a off] rows step] [|x v] //= /andP[] //.
rewrite same_lengthP => /eqP osize rest; rewrite size_subtract ?osize; last by rewrite (triangle_size rest) step.
by rewrite (triangle_size rest).
Qed.

(* v . z becomes a sum up to any length that is long enough. *)
Lemma cast_of_out v i : (size v <= i)%N -> cast_of F v i = 0.
Proof. by move=> out; rewrite /cast_of nth_default. Qed.

(* Completing the square around v. *)
Lemma form_around rows v (z : nat -> F) : triangle rows v ->
  form rows (fun i => z i - cast_of F v i)
  = form rows z - 2%:R * sum_to (size rows) (product rows v) z + form rows (cast_of F v).
Proof.
elim: rows v z => [|[|a off] rows step] [|x v] z //=; first by rewrite /sum_to big_ord0 mulr0 subr0 addr0.
rewrite same_lengthP => /andP[/eqP osize rest].
have nsize := triangle_size rest; have psize := product_size rest.
rewrite sum_to_cons.
have -> : next (fun i => z i - cast_of F (x :: v) i) = fun i => next z i - cast_of F v i by [].
have -> : next (cast_of F (x :: v)) = cast_of F v by [].
rewrite sum_toB (step v) //.
have -> : cast (dot_from (Z.mul a x) off v) = cast a * cast x + sum_to (size rows) off (cast_of F v).
  by rewrite cast_dot_any castM /sum_to nsize.
have -> : sum_to (size rows) (subtract (Z.opp x) (product rows v) off) (next z)
  = sum_to (size rows) (product rows v) (next z) + cast x * sum_to (size rows) off (next z).
  rewrite /sum_to mulr_sumr -big_split; apply: eq_bigr => i _ /=.
  by rewrite cast_subtract ?psize ?osize // castN; ring.
have -> : cast_of F (x :: v) 0%N = cast x by [].
ring.
Qed.

(* v . Q v by the product. *)
Lemma form_product rows v : triangle rows v ->
  form rows (cast_of F v) = sum_to (size rows) (product rows v) (cast_of F v).
Proof.
elim: rows v => [|[|a off] rows step] [|x v] //=; first by rewrite /sum_to big_ord0.
rewrite same_lengthP => /andP[/eqP osize rest].
have nsize := triangle_size rest; have psize := product_size rest.
rewrite sum_to_cons.
have -> : next (cast_of F (x :: v)) = cast_of F v by [].
rewrite step //.
have -> : cast (dot_from (Z.mul a x) off v) = cast a * cast x + sum_to (size rows) off (cast_of F v).
  by rewrite cast_dot_any castM /sum_to nsize.
have -> : sum_to (size rows) (subtract (Z.opp x) (product rows v) off) (cast_of F v)
  = sum_to (size rows) (product rows v) (cast_of F v) + cast x * sum_to (size rows) off (cast_of F v).
  rewrite /sum_to mulr_sumr -big_split; apply: eq_bigr => i _ /=.
  by rewrite cast_subtract ?psize ?osize // castN; ring.
have -> : cast_of F (x :: v) 0%N = cast x by [].
ring.
Qed.

(* ||L^T z||^2, row by row of L. *)
Fixpoint gram (ls : seq (seq Z)) (z : nat -> F) : F :=
  if ls is l :: ls' then
    cast (dot_from Z0 l l) * z 0%N ^+ 2
    + 2%:R * z 0%N * (\sum_(i < size ls') cast (dot_from Z0 l (nth [::] ls' i)) * next z i) + gram ls' (next z)
  else 0.

(* A sum of squares: each is that of a column of L with z. *)
Lemma gram_squares ls (z : nat -> F) n : (forall l, l \in ls -> size l <= n)%N ->
  gram ls z = \sum_(k < n) (\sum_(i < size ls) cast_of F (nth [::] ls i) k * z i) ^+ 2.
Proof.
elim: ls z => [|l ls step] z short /=; first by rewrite big1 // => k _; rewrite big_ord0 expr0n.
have fits m : m \in ls -> (size m <= n)%N by move=> inside; apply: short; rewrite inE inside orbT.
have inner m : (size m <= n)%N -> cast (dot_from Z0 l m) = \sum_(k < n) cast_of F l k * cast_of F m k.
  move=> small; rewrite cast_dot_any cast0 add0r (big_ord_widen n (fun k => cast_of F l k * cast_of F m k) small).
  rewrite big_mkcond; apply: eq_bigr => k _; case: ltnP => // out; by rewrite (cast_of_out out) mulr0.
rewrite (step _ fits) inner; last by apply: short; rewrite inE eqxx.
have -> : \sum_(i < size ls) cast (dot_from Z0 l (nth [::] ls i)) * next z i
  = \sum_(k < n) cast_of F l k * \sum_(i < size ls) cast_of F (nth [::] ls i) k * next z i.
  under eq_bigr => i _ do rewrite inner ?mulr_suml ?fits ?mem_nth //.
  rewrite exchange_big; apply: eq_bigr => k _; rewrite mulr_sumr; apply: eq_bigr => i _; ring.
rewrite mulr_suml mulr_sumr -!big_split; apply: eq_bigr => k _; rewrite big_ord_recl /=.
rewrite -[\sum_(i < size ls) cast_of F _ k * z _]/(\sum_(i < size ls) cast_of F (nth [::] ls i) k * next z i).
by move: (\sum_(i < size ls) _) => rest; ring.
Qed.

(* Whatever L is, L L^T is positive semidefinite. *)
Lemma gram_ge0 ls z : 0 <= gram ls z.
Proof.
rewrite (@gram_squares ls z (\max_(l <- ls) size l)); last by move=> l inside; apply: leq_bigmax_seq.
by apply: sumr_ge0 => k _; apply: sqr_ge0.
Qed.

(* sum_i loads_i z_i^2 *)
Definition weighted (n : nat) (loads : seq Z) (z : nat -> F) : F := \sum_(i < n) cast_of F loads i * z i ^+ 2.

(* Its first term comes out. *)
Lemma weighted_cons n a loads z : weighted n.+1 (a :: loads) z = cast a * z 0%N ^+ 2 + weighted n loads (next z).
Proof. by rewrite /weighted big_ord_recl. Qed.

(* A row of Q + gain L L^T, off the diagonal, with z. *)
Definition crossed (g : Z) (l off : seq Z) (ls : seq (seq Z)) (z : nat -> F) : F :=
  \sum_(i < size ls) (cast_of F off i + cast g * cast (dot_from Z0 l (nth [::] ls i))) * z i.

(* Its first term comes out. *)
Lemma crossed_cons g l q off l' ls z :
  crossed g l (q :: off) (l' :: ls) z = cast (Z.add q (Z.mul g (dot_from Z0 l l'))) * z 0%N + crossed g l off ls (next z).
Proof. by rewrite /crossed big_ord_recl castD castM. Qed.

(* One row: what it owes pays for its entries off the diagonal, by 2 |z0 z_i| <= z0^2 + z_i^2. *)
Lemma owe_pays g l off ls loads (z0 : F) (z : nat -> F) : size off = size ls -> size loads = size ls ->
  size (owe g l off ls loads).2 = size ls /\
  (weighted (size ls) loads z + 2%:R * z0 * crossed g l off ls z
   <= cast (owe g l off ls loads).1 * z0 ^+ 2 + weighted (size ls) (owe g l off ls loads).2 z)%R.
Proof.
elim: ls off loads z => [|l' ls step] [|q off] [|load loads] z //=.
  by rewrite /weighted /crossed !big_ord0 cast0 !(mulr0, mul0r).
case=> osize [lsize]; have := step off loads (next z) osize lsize.
case: (owe g l off ls loads) => sum rest /= [rsize paid]; split; first by rewrite rsize.
rewrite !weighted_cons crossed_cons; move: (Z.add q _) => e; rewrite !castD cast_abs.
have pair : 2%:R * z0 * cast e * z 0%N <= `|cast e| * (z0 ^+ 2 + z 0%N ^+ 2).
  have [neg|pos] := ltP (cast e) 0.
    rewrite ltr0_norm // -subr_ge0; have := mulr_ge0 (_ : 0 <= - cast e) (sqr_ge0 (z0 + z 0%N)).
    by rewrite oppr_ge0 ltW // => /(_ isT); congr (0 <= _); ring.
  rewrite ger0_norm // -subr_ge0; have := mulr_ge0 pos (sqr_ge0 (z0 - z 0%N)); congr (0 <= _); ring.
have := ler_add pair paid; rewrite -subr_ge0 => gap; rewrite -subr_ge0; move: gap.
by congr (0 <= _); ring.
Qed.

(* The two parts of such a row. *)
Lemma crossed_parts g l off ls z : crossed g l off ls z
  = sum_to (size ls) off z + cast g * \sum_(i < size ls) cast (dot_from Z0 l (nth [::] ls i)) * z i.
Proof. by rewrite /crossed /sum_to mulr_sumr -big_split; apply: eq_bigr => i _ /=; ring. Qed.

(* L has as many rows as the matrix. *)
Lemma dominant_size m g rows ls loads : dominant m g rows ls loads -> size ls = size rows.
Proof.
elim: rows ls loads => [|[|q off] rows step] [|l ls] [|load loads] //=.
by case: owe => sum rest /andP[_ /step ->].
Qed.

(* Diagonal dominance: m |z|^2 - z . Q z - gain |L^T z|^2 >= sum_i loads_i z_i^2. *)
Lemma dominant_form m g rows ls loads v (z : nat -> F) :
  triangle rows v -> size loads = size rows -> dominant m g rows ls loads ->
  weighted (size rows) loads z <= cast m * (\sum_(i < size rows) z i ^+ 2) - form rows z - cast g * gram ls z.
Proof.
elim: rows ls loads v z => [|[|q off] rows step] [|l ls] [|load loads] [|x v] z //=.
  by move=> _ _ _; rewrite /weighted !big_ord0 !(mulr0, subr0).
move=> /andP[]; rewrite same_lengthP => /eqP osize rest [bsize]; have nsize := triangle_size rest.
case owed: (owe g l off ls loads) => [sum loads'] /andP[pays below].
have lsize := dominant_size below.
have := owe_pays g l (z 0%N) (next z) (etrans osize (etrans nsize (esym lsize))) (etrans bsize (esym lsize)).
rewrite owed /= => -[bsize' paid].
have tail := step _ _ _ (next z) rest (etrans bsize' lsize) below.
rewrite weighted_cons big_ord_recl /= lsize -[\sum_(i < size rows) z _ ^+ 2]/(\sum_(i < size rows) next z i ^+ 2).
move: paid; rewrite crossed_parts lsize => paid.
move: pays; rewrite (cast_le F) !(castD, castB, castM) => /(ler_wpmul2r (sqr_ge0 (z 0%N))) pays.
have := ler_add pays (ler_add paid tail); rewrite -subr_ge0 => gap; rewrite -subr_ge0; move: gap.
set ll := \sum_(i < size rows) cast _ * _; set zz := \sum_(i < size rows) _; set q' := form rows _; set g' := gram ls _.
by congr (0 <= _); ring.
Qed.

(* m I - Q is positive semidefinite where what is left of it after gain L L^T is diagonally dominant. *)
Lemma dominant_psd m g rows ls v (z : nat -> F) : 0 <= cast g -> triangle rows v ->
  dominant m g rows ls (nothing rows) -> form rows z <= cast m * \sum_(i < size rows) z i ^+ 2.
Proof.
move=> g_ge0 shape dominates.
have := dominant_form z shape (List.map_length _ _ : size (nothing rows) = size rows) dominates.
have -> : weighted (size rows) (nothing rows) z = 0.
  rewrite /weighted big1 // => i _.
  suff -> : cast_of F (nothing rows) i = 0 by rewrite mul0r.
  by rewrite /cast_of; elim: (rows) (val i) => [|row rows' step] [|n] //=; apply: step.
rewrite -addrA -opprD subr_ge0 => bound; apply: le_trans bound.
by rewrite ler_addl mulr_ge0 ?gram_ge0.
Qed.

(* Multiples come out ... *)
Lemma sum_to_subtract n m v w z : size v = size w ->
  sum_to n (subtract m v w) z = sum_to n v z - cast m * sum_to n w z.
Proof.
by move=> same; rewrite /sum_to mulr_sumr -sumrB; apply: eq_bigr => i _; rewrite cast_subtract // mulrBl mulrA.
Qed.

(* ... and sums fall apart. *)
Lemma sum_to_moved n v w z : size w = size v -> sum_to n (moved v w) z = sum_to n v z + sum_to n w z.
Proof. by move=> same; rewrite /sum_to -big_split; apply: eq_bigr => i _; rewrite cast_moved // mulrDl. Qed.

(* What a constraint says, without units. *)
Definition holds (n : nat) (z : nat -> F) (c : constraint) : Prop :=
  match acts_as c with
  | Equality => sum_to n (normal c) z = cast (level_of c)
  | HalfSpace => sum_to n (normal c) z <= cast (level_of c)
  end.

(* What is left of the linear part and the cost bound it. *)
Lemma charge_sound n z a cost cs a' cost' : (forall c, List.In c cs -> holds n z c) -> size a = n ->
  charge a cost cs = Good (a', cost') ->
  size a' = n /\ (sum_to n a z + cast cost <= sum_to n a' z + cast cost')%R.
Proof.
elim: cs a cost => [|c cs step] a cost obey asize /=; first by case=> <- <-.
rewrite same_lengthP; case: eqP => // csize; case priced: (match acts_as c with Equality => _ | HalfSpace => _ end) => //.
have same : size a = size (normal c) by rewrite csize.
move=> rest; have [|asize' bound] := step _ _ (fun e inside => obey e (or_intror inside)) _ rest.
  by rewrite (size_subtract _ same) csize.
split=> //; apply: le_trans bound; rewrite sum_to_subtract // castD castM.
have here : cast (price c) * sum_to n (normal c) z <= cast (price c) * cast (level_of c).
  have := obey c (or_introl erefl); rewrite /holds; case: (acts_as c) priced => priced; first by move->.
  by apply: ler_wpmul2l; rewrite -(cast0 F) -cast_le.
by rewrite -subr_ge0; move: here; rewrite -subr_ge0; congr (0 <= _); ring.
Qed.

(* The root bounds the Euclidean norm. *)
Lemma root_sound root n r t (z : nat -> F) c : 0 <= c -> size r = n -> \sum_(i < n) z i ^+ 2 <= c ^+ 2 ->
  dual_norm root L2 r = Good t -> cast fine * sum_to n r z <= cast t * c.
Proof.
move=> c_ge0 rsize inside; rewrite /dual_norm; set square := Z.mul _ _.
case: andP => // -[]; rewrite !(cast_le F) castM cast0 => t_ge0 enough [<-].
have -> : cast fine * sum_to n r z = dot (fun i : 'I_n => cast fine * cast_of F r i) (fun i => z i).
  by rewrite /sum_to /dot mulr_sumr; apply: eq_bigr => i _; rewrite mulrA.
apply: cauchy_schwarz => //.
rewrite expr2; apply: le_trans enough.
rewrite /square !castM cast_dot_from // cast0 add0r rsize /dot mulr_sumr le_eqVlt; apply/orP; left; apply/eqP.
by move: (cast fine) => f; apply: eq_bigr => i _; ring.
Qed.

(* How the parts add up: the bound as accepted, the norm, the square, the constraints, the ball. *)
Lemma collect (f m c k r v w t u a p x s l g : F) : 0 < f -> 0 <= m ->
  f * (2%:R * (c + k) + m * (r * r + v) - w) + 2%:R * (r * t) <= f * (2%:R * u) -> f * (a + p - m * x) <= t * r ->
  s - 2%:R * p + w <= m * (l - 2%:R * x + v) -> g <= a + k -> l <= r ^+ 2 -> 2%:R * (c + g) + s <= 2%:R * u.
Proof.
move=> f_gt0 m_ge0 accepted left_over square explained inside.
have twice_ge0 : 0 <= 2%:R * f by rewrite mulr_ge0 ?ler0n // ltW.
have first := ler_add accepted (ler_wpmul2l (ler0n F 2) left_over).
have second := ler_add (ler_wpmul2l (ltW f_gt0) square) (ler_wpmul2l twice_ge0 explained).
have third := ler_wpmul2l (mulr_ge0 (ltW f_gt0) m_ge0) inside.
rewrite -(ler_pmul2l f_gt0) -subr_ge0; move: (ler_add (ler_add first second) third).
by rewrite -subr_ge0; congr (0 <= _); ring.
Qed.

(* The whole, without units. *)
Lemma check_quadratic_bound root q e upper (z : nat -> F) : check_quadratic root q e upper = Good tt ->
  (forall c, List.In c (constraints q) -> holds (order q) z c) ->
  \sum_(i < order q) z i ^+ 2 <= cast (reach q) ^+ 2 ->
  2%:R * (cast (constant q) + sum_to (order q) (linear q) z) + form (matrix q) z <= 2%:R * cast upper.
Proof.
rewrite /check_quadratic /order; cbv zeta; case: Z.ltb_spec => // reach_ge0.
case: Z.ltb_spec => // m_ge0; case: Z.ltb_spec => // g_ge0; rewrite [orb _ _]/=.
case: ifP => // /negbFE/andP[shape]; rewrite same_lengthP => /eqP gsize; case: ifP => // /negbFE dominates.
case charged: (charge (linear q) Z0 (constraints q)) => [[a cost]|] //.
set r := subtract (shift_by e) _ _; case measured: (dual_norm root L2 r) => [t|] //.
case: Z.leb_spec => // accepted _ obey inside.
have vsize := triangle_size shape; have psize := product_size shape.
have [asize explained] := charge_sound obey (etrans gsize vsize) charged.
have {}reach_ge0 : 0 <= cast (reach q) by rewrite -(cast0 F) -cast_le; apply/Z.leb_le.
have {}m_ge0 : 0 <= cast (shift_by e) by rewrite -(cast0 F) -cast_le; apply/Z.leb_le.
have {}g_ge0 : 0 <= cast (gain e) by rewrite -(cast0 F) -cast_le; apply/Z.leb_le.
have msize : size (moved a (product (matrix q) (centre e))) = size (matrix q) by rewrite size_moved ?asize.
have rsize : size r = size (matrix q) by rewrite /r size_subtract ?msize.
have := root_sound reach_ge0 rsize inside measured.
rewrite /r sum_to_subtract ?msize // sum_to_moved ?asize // => left_over.
have := dominant_psd (fun i => z i - cast_of F (centre e) i) g_ge0 shape dominates.
rewrite form_around // form_product //.
have -> : \sum_(i < size (matrix q)) (z i - cast_of F (centre e) i) ^+ 2
  = \sum_(i < size (matrix q)) z i ^+ 2 - 2%:R * sum_to (size (matrix q)) (centre e) z
    + cast (dot_from Z0 (centre e) (centre e)).
  rewrite cast_dot_from // cast0 add0r vsize /sum_to mulr_sumr -sumrB -big_split.
  by apply: eq_bigr => i _ /=; ring.
have -> : sum_to (size (matrix q)) (product (matrix q) (centre e)) (cast_of F (centre e))
  = cast (dot_from Z0 (centre e) (product (matrix q) (centre e))).
  rewrite cast_dot_from ?vsize // cast0 add0r psize /sum_to.
  by apply: eq_bigr => i _; rewrite mulrC.
move=> square; move/Z.leb_le: accepted.
rewrite (cast_le F) !(castD, castB, castM) (_ : cast 2 = 2%:R) // => accepted.
rewrite cast0 addr0 in explained.
exact: (collect (fine_gt0 F) m_ge0 accepted left_over square explained inside).
Qed.

End Forms.

Section Units.

Variables (F : realFieldType) (ux ub uc : F).
Hypotheses (ux_gt0 : 0 < ux) (ub_gt0 : 0 < ub) (uc_gt0 : 0 < uc).

(* y in its unit, as a sequence. *)
Definition without_unit (n : nat) (y : 'I_n -> F) (i : nat) : F := if insub i is Some j then y j / ux else 0.

(* The unit brings it back. *)
Lemma with_unit n (y : 'I_n -> F) (i : 'I_n) : y i = without_unit y i * ux.
Proof. by rewrite /without_unit valK divfK // lt0r_neq0. Qed.

(* Inner products. *)
Lemma dot_units n (y : 'I_n -> F) (u : F) v : dot (vector u v) y = sum_to n v (without_unit y) * (u * ux).
Proof.
rewrite /dot /sum_to mulr_suml; apply: eq_bigr => i _.
by rewrite {1}(with_unit y i) /vector valueE /cast_of; ring.
Qed.

End Units.

(* Whatever stands for `root` and for the evidence: if the checker accepts, every y of the ball that obeys the constraints
   has constant + linear . y + y . Q y / 2 <= upper. *)
Theorem check_quadratic_sound (root : Z -> Z) (q : quadratic) (e : evidence) (upper : Z) :
  check_quadratic root q e upper = Good tt ->
  forall (F : realFieldType) (ux ub uc : F), 0 < ux -> 0 < ub -> 0 < uc ->
  forall y : 'I_(order q) -> F, obeys ux ub q y -> within_reach ux q y ->
  quadratic_at ux ub uc q y <= value (ub * uc * ux ^+ 2) upper.
Proof.
move=> accepted F ux ub uc ux_gt0 ub_gt0 uc_gt0 y obey inside.
pose z := without_unit ux y.
have obey' c : List.In c (constraints q) -> holds (order q) z c.
  have unit_gt0 : 0 < ub * ux ^+ 2 by rewrite mulr_gt0 ?exprn_gt0.
  move=> /obey; rewrite /holds /= !(dot_units ux_gt0) valueE -mulrA -expr2.
  by case: (acts_as c) => [/(mulIf (lt0r_neq0 unit_gt0))|]; rewrite ?ler_pmul2r.
have inside' : \sum_(i < order q) z i ^+ 2 <= cast F (reach q) ^+ 2.
  have unit_gt0 : 0 < ux ^+ 2 by rewrite exprn_gt0.
  rewrite -(ler_pmul2r unit_gt0) -exprMn mulr_suml; move: inside; rewrite /within_reach /dot valueE.
  congr (_ <= _); apply: eq_bigr => i _; by rewrite (with_unit ux_gt0 y i) -/z; ring.
have := check_quadratic_bound accepted obey' inside'.
have unit_gt0 : 0 < ub * uc * ux ^+ 2 by rewrite !mulr_gt0 ?exprn_gt0.
have -> : quadratic_at ux ub uc q y
  = (cast F (constant q) + sum_to (order q) (linear q) z + 2%:R^-1 * form (matrix q) z) * (ub * uc * ux ^+ 2).
  rewrite /quadratic_at (dot_units ux_gt0) !valueE -/z.
  have -> : \sum_(i < order q) \sum_(j < order q) value (ub * uc) (entry (matrix q) i j) * y i * y j
    = form (matrix q) z * (ub * uc * ux ^+ 2).
    rewrite -form_entries !mulr_suml; apply: eq_bigr => i _; rewrite mulr_suml; apply: eq_bigr => j _.
    rewrite (with_unit ux_gt0 y i) (with_unit ux_gt0 y j) -/z valueE.
    by move: (cast F _) (z i) (z j) => entry_ij zi zj; ring.
  by rewrite -!mulrA -expr2; ring.
rewrite valueE ler_pmul2r // => bound; rewrite -(ler_pmul2l (ltr0n F 2)); apply: le_trans bound.
rewrite le_eqVlt; apply/orP; left; apply/eqP; by field.
Qed.

(* The same with the units that IEEE floats have, powers of two, and with the Euclidean norm itself. *)
Corollary check_quadratic_floats (root : Z -> Z) (q : quadratic) (e : evidence) (upper : Z) :
  check_quadratic root q e upper = Good tt ->
  forall (R : rcfType) (p b c : nat) (y : 'I_(order q) -> R),
  obeys (power R p) (power R b) q y -> Num.sqrt (dot y y) <= value (power R p) (reach q) ->
  quadratic_at (power R p) (power R b) (power R c) q y <= value (power R b * power R c * power R p ^+ 2) upper.
Proof.
move=> accepted R p b c y obey inside.
apply: (check_quadratic_sound accepted _ _ _ obey); rewrite ?power_gt0 // /within_reach.
have size_ge0 : 0 <= dot y y by apply: sumr_ge0 => i _; rewrite -expr2 sqr_ge0.
by rewrite -(sqr_sqrtr size_ge0) ler_expn2r // nnegrE ?sqrtr_ge0 // (le_trans _ inside) ?sqrtr_ge0.
Qed.
