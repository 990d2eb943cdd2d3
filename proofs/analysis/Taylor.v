(** Taylor remainders on a segment, from bounds on the second or the third derivative. Real analysis. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import boolp classical_sets functions reals signed topology normedtype derive realfun.
From mathcomp Require Import ring.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory numFieldNormedType.Exports.
Local Open Scope ring_scope.
Local Open Scope classical_set_scope.

Section Taylor.
Variable R : realType.
Implicit Types (f df : R -> R) (t : R).

(** [df] is the derivative of [f] at every point of the unit interval. *)
Definition derives f df := forall t, 0 <= t <= 1 -> is_derive t 1 f (df t).

Lemma derives_ge0 f df : derives f df -> 0 <= f 0 -> (forall t, 0 <= t <= 1 -> 0 <= df t) ->
  forall t, 0 <= t <= 1 -> 0 <= f t.
Proof.
move=> hd f0 h t /andP[t0 t1].
have sub x : x \in `[0, t]%R -> 0 <= x <= 1.
  by rewrite in_itv /= => /andP[x0 xt]; rewrite x0 (le_trans xt).
have [x|x hx|c hc e] := @MVT_segment R f df 0 t t0.
- by rewrite in_itv /= => /andP[x0 xt]; apply: hd; rewrite ltW //= (le_trans (ltW xt)).
- apply: continuous_in_subspaceT => y; rewrite inE /= => /sub hy.
  by apply/differentiable_continuous/derivable1_diffP; have := hd _ hy; case.
- have : 0 <= f t - f 0 by rewrite e subr0 mulr_ge0 // h // sub.
  by rewrite subr_ge0; apply: le_trans.
Qed.

Lemma derives_le f df g dg : derives f df -> derives g dg -> f 0 <= g 0 ->
  (forall t, 0 <= t <= 1 -> df t <= dg t) -> forall t, 0 <= t <= 1 -> f t <= g t.
Proof.
move=> hf hg h0 h t ht; rewrite -subr_ge0.
have d : derives (fun t => g t - f t) (fun t => dg t - df t).
  by move=> x hx; exact: (is_deriveB (hg _ hx) (hf _ hx)).
have d0 : 0 <= g 0 - f 0 by rewrite subr_ge0.
by apply: (derives_ge0 d d0 _ ht) => x hx; rewrite subr_ge0 h.
Qed.

Lemma derives_poly a b c d : derives (fun t => a + b * t + c * t ^+ 2 + d * t ^+ 3)
  (fun t => b + 2 * c * t + 3 * d * t ^+ 2).
Proof.
move=> t _.
have -> : (fun t => a + b * t + c * t ^+ 2 + d * t ^+ 3)
  = cst a + b *: (id : R -> R) + c *: ((id : R -> R) ^+ 2) + d *: ((id : R -> R) ^+ 3) by apply/funext.
apply: is_derive_eq; rewrite /GRing.scale /= !mulr1 expr1 add0r.
by rewrite !mulrA (mulrC c 2) (mulrC d 3).
Qed.

(** Upper bounds: only an upper bound of the last derivative is used. *)
Theorem taylor_second f f1 f2 K : derives f f1 -> derives f1 f2 -> (forall t, 0 <= t <= 1 -> f2 t <= K) ->
  f 1 <= f 0 + f1 0 + K / 2.
Proof.
move=> h1 h2 hK.
have s1 t : 0 <= t <= 1 -> f1 t <= f1 0 + K * t + 0 * t ^+ 2 + 0 * t ^+ 3.
  move: t; apply: (derives_le h2 (derives_poly _ _ _ _)) => [|t ht]; first by rewrite mulr0 !expr0n !mulr0 !addr0.
  by rewrite mulr0 !mul0r !addr0 mulr0 mul0r addr0 hK.
have := @derives_le _ _ _ _ h1 (derives_poly (f 0) (f1 0) (K / 2) 0) _ _ 1.
rewrite !expr1n !mulr1 addr0; apply; rewrite ?ler01 ?lexx //; first by rewrite mulr0 !expr0n !mulr0 !addr0.
move=> t ht; apply: le_trans (s1 t ht) _; rewrite le_eqVlt; apply/orP; left; apply/eqP; by field.
Qed.

Theorem taylor_third f f1 f2 f3 K : derives f f1 -> derives f1 f2 -> derives f2 f3 ->
  (forall t, 0 <= t <= 1 -> f3 t <= K) -> f 1 <= f 0 + f1 0 + f2 0 / 2 + K / 6.
Proof.
move=> h1 h2 h3 hK.
have s2 t : 0 <= t <= 1 -> f2 t <= f2 0 + K * t + 0 * t ^+ 2 + 0 * t ^+ 3.
  move: t; apply: (derives_le h3 (derives_poly _ _ _ _)) => [|t ht]; first by rewrite mulr0 !expr0n !mulr0 !addr0.
  by rewrite mulr0 !mul0r !addr0 mulr0 mul0r addr0 hK.
have s1 t : 0 <= t <= 1 -> f1 t <= f1 0 + f2 0 * t + K / 2 * t ^+ 2 + 0 * t ^+ 3.
  move: t; apply: (derives_le h2 (derives_poly _ _ _ _)) => [|t ht]; first by rewrite mulr0 !expr0n !mulr0 !addr0.
  by apply: le_trans (s2 t ht) _; rewrite le_eqVlt; apply/orP; left; apply/eqP; field.
have := @derives_le _ _ _ _ h1 (derives_poly (f 0) (f1 0) (f2 0 / 2) (K / 6)) _ _ 1.
rewrite !expr1n !mulr1; apply; rewrite ?ler01 ?lexx //; first by rewrite mulr0 !expr0n !mulr0 !addr0.
move=> t ht; apply: le_trans (s1 t ht) _; rewrite le_eqVlt; apply/orP; left; apply/eqP; by field.
Qed.

End Taylor.
