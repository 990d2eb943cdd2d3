(** Remainders of a smooth activation, and of a tail, from bounds on derivatives along the segment. Real analysis. *)
From mathcomp Require Import all_ssreflect all_algebra.
From mathcomp Require Import boolp classical_sets functions reals signed topology normedtype derive realfun.
From mathcomp Require Import ring.
From SaeProofs Require Import Base.
From SaeProofs Require Composition.
From SaeProofs.analysis Require Import Taylor.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory numFieldNormedType.Exports.
Local Open Scope ring_scope.

Section Activation.
Variable R : realType.
Implicit Types (f : R -> R) (c u M : R).

(** [df] is the derivative of [f] at every point of the segment from [c] to [c + u]. *)
Definition derives_along c u f (df : R -> R) := forall t, 0 <= t <= 1 -> is_derive (c + t * u) 1 f (df (c + t * u)).

Lemma derives_line c u f df k : derives_along c u f df ->
  derives (fun t => k * f (c + t * u)) (fun t => k * u * df (c + t * u)).
Proof.
move=> h t ht.
have hl : is_derive t 1 (fun x : R => c + x * u) u.
  have := @derives_poly R c u 0 0 t ht; rewrite !mulr0 !mul0r !addr0.
  by congr (is_derive _ _ _ _); apply/funext => x; rewrite !mul0r !addr0 mulrC.
have hc := @is_derive1_comp R f (fun x : R => c + x * u) t (df (c + t * u)) u (h _ ht) hl.
have hk := @is_deriveZ _ _ _ (f \o (fun x : R => c + x * u)) k t 1 _ hc.
by move: hk; rewrite /GRing.scale /= -mulrA (mulrC u).
Qed.

Theorem activation_second f f1 f2 c u M : derives_along c u f f1 -> derives_along c u f1 f2 ->
  (forall t, 0 <= t <= 1 -> `|f2 (c + t * u)| <= M) -> `|f (c + u) - f c - f1 c * u| <= M * u ^+ 2 / 2.
Proof.
move=> h1 h2 hM.
have one k : `|k| = 1 -> k * (f (c + u) - f c - f1 c * u) <= M * u ^+ 2 / 2.
  move=> k1; have := taylor_second (derives_line k h1) (derives_line (k * u) h2) (K := M * u ^+ 2).
  rewrite !mul1r !mul0r !addr0 => h; rewrite -(ler_add2r (k * f c + k * u * f1 c)) [X in _ <= X]addrC.
  apply: le_trans (_ : k * f (c + u) <= _); first by rewrite le_eqVlt; apply/orP; left; apply/eqP; ring.
  apply: h => t ht; apply: le_trans (ler_norm _) _; rewrite !normrM k1 mul1r -expr2 real_normK ?num_real //.
  by rewrite mulrC ler_wpmul2r ?sqr_ge0 // hM.
have up := one 1 (normr1 _); have down := one (-1) (normrN1 _).
by rewrite mul1r in up; rewrite mulN1r in down; rewrite ler_norml ler_oppl down.
Qed.

Theorem activation_third f f1 f2 f3 c u M :
  derives_along c u f f1 -> derives_along c u f1 f2 -> derives_along c u f2 f3 ->
  (forall t, 0 <= t <= 1 -> `|f3 (c + t * u)| <= M) ->
  `|f (c + u) - f c - f1 c * u - f2 c * u ^+ 2 / 2| <= M * `|u| ^+ 3 / 6.
Proof.
move=> h1 h2 h3 hM.
have one k : `|k| = 1 -> k * (f (c + u) - f c - f1 c * u - f2 c * u ^+ 2 / 2) <= M * `|u| ^+ 3 / 6.
  move=> k1; have := taylor_third (derives_line k h1) (derives_line (k * u) h2) (derives_line (k * u * u) h3)
    (K := M * `|u| ^+ 3).
  rewrite !mul1r !mul0r !addr0 => h.
  rewrite -(ler_add2r (k * f c + k * u * f1 c + k * u * u * f2 c / 2)) [X in _ <= X]addrC.
  apply: le_trans (_ : k * f (c + u) <= _); first by rewrite le_eqVlt; apply/orP; left; apply/eqP; field.
  apply: h => t ht; apply: le_trans (ler_norm _) _; rewrite !normrM k1 mul1r mulrC.
  by rewrite -expr2 -exprSr ler_wpmul2r ?exprn_ge0 // hM.
have up := one 1 (normr1 _); have down := one (-1) (normrN1 _).
by rewrite mul1r in up; rewrite mulN1r in down; rewrite ler_norml ler_oppl down.
Qed.

End Activation.

Section Curvature.
Variables (R : realType) (d s : nat) (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d).

(** The hypothesis of [curvature_bound] from second derivatives along the rays of the held set. *)
Theorem curvature_derived (F : 'cV[R]_d -> R) (F1 F2 : 'cV[R]_d -> R -> R) H r : is_orthproj E P -> 0 <= H ->
  (forall delta, E^T *m delta = 0 -> norm delta <= r ->
    [/\ derives (fun t => F (t *: delta)) (F1 delta), derives (F1 delta) (F2 delta), F1 delta 0 = dot g delta
      & forall t, 0 <= t <= 1 -> F2 delta t <= H * norm delta ^+ 2]) ->
  forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + r * norm (P *m g) + H / 2 * r ^+ 2.
Proof.
move=> hP H0 h; apply: Composition.curvature_bound hP H0 _ => delta hE hr.
have [h1 h2 e hK] := h _ hE hr; have := taylor_second h1 h2 hK.
by rewrite scale1r scale0r e mulrAC.
Qed.

End Curvature.
