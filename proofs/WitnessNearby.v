(** witness-nearby and pinned: approximate one-sided inverses. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Pinned.
Variables (R : rcfType) (d n : nat) (M : 'M[R]_(n, d)) (L : 'M[R]_(d, n)) (c : R).

(** A left inverse with a defect below one proves that the rows of [M] leave only zero. *)
Theorem pinned (delta : 'cV[R]_d) : fro (1%:M - L *m M) < 1 -> M *m delta = 0 -> delta = 0.
Proof.
move=> h e; have /(_ delta) := fro_opbound (1%:M - L *m M).
rewrite mulmxBl mul1mx -mulmxA e mulmx0 subr0 => k; apply/eqP; rewrite -norm_eq0 eq_le norm_ge0 andbT leNgt.
apply/negP => p; move: k; rewrite leNgt => /negP; apply.
by rewrite -{2}(mul1r (norm delta)) ltr_pmul2r.
Qed.

(** It also proves that [M] has full rank. *)
Theorem pinned_rank : fro (1%:M - L *m M) < 1 -> \rank M = d.
Proof.
move=> h; apply/eqP; rewrite -mxrank_tr; apply/row_freeP.
have u : L *m M \in unitmx.
  apply: unitmx_inj => x; rewrite -mulmxA => e.
  have /(_ x) := fro_opbound (1%:M - L *m M).
  rewrite mulmxBl mul1mx -mulmxA e subr0 => k; apply/eqP; rewrite -norm_eq0 eq_le norm_ge0 andbT leNgt.
  apply/negP => p; move: k; rewrite leNgt => /negP; apply.
  by rewrite -{2}(mul1r (norm x)) ltr_pmul2r.
exists (L^T *m (invmx (L *m M))^T).
by rewrite mulmxA -trmx_mul -trmx_mul mulVmx ?trmx1.
Qed.

End Pinned.

Section Nearby.
Variables (R : rcfType) (d n : nat) (M : 'M[R]_(n, d)) (Q : 'M[R]_(d, n)) (c q : R).
Hypotheses (hE : opbound (M *m Q - 1%:M) c) (c1 : c < 1) (hQ : opbound Q q) (q0 : 0 <= q).

(** A right inverse with a defect below one: every vector is near one that obeys the equalities exactly. *)
Theorem witness_nearby (v : 'cV[R]_d) :
  exists2 v' : 'cV[R]_d, M *m v' = 0 & norm (v' - v) <= q * norm (M *m v) / (1 - c).
Proof.
pose G := invmx (1%:M + (M *m Q - 1%:M)).
have u : 1%:M + (M *m Q - 1%:M) \in unitmx := near_one_unit hE c1.
have e : M *m Q *m G = 1%:M by rewrite -{1}(subrK 1%:M (M *m Q)) addrC mulmxV.
exists (v - Q *m (G *m (M *m v))).
  by rewrite mulmxBr !mulmxA e mul1mx subrr.
rewrite addrAC subrr add0r normN -mulrA; apply: le_trans (hQ _) _.
by rewrite ler_wpmul2l // near_one_inv.
Qed.

(** The rows of [M] are independent. *)
Theorem witness_independent : row_free M.
Proof.
have u : 1%:M + (M *m Q - 1%:M) \in unitmx := near_one_unit hE c1.
rewrite addrC subrK in u.
by apply/row_freeP; exists (Q *m invmx (M *m Q)); rewrite mulmxA mulmxV.
Qed.

(** If the recorded vector has room to spare, the exact one near it is admissible. [strict] says which
    half-spaces do not contain their boundary. *)
Theorem witness_admissible m (W : 'M[R]_(d, m)) (t : 'cV[R]_m) (strict : pred 'I_m) r (v : 'cV[R]_d) :
  let k := q * norm (M *m v) / (1 - c) in
  (forall j, let b := dot (col j W) v + norm (col j W) * k in if strict j then b < t j 0 else b <= t j 0) ->
  norm v + k <= r ->
  exists v' : 'cV[R]_d, [/\ M *m v' = 0, norm (v' - v) <= k, norm v' <= r
    & forall j, if strict j then dot (col j W) v' < t j 0 else dot (col j W) v' <= t j 0].
Proof.
move=> k hw hr; have [v' e h] := witness_nearby v; rewrite -/k in h; exists v'; split=> //.
  by apply: le_trans hr; apply: le_trans (norm_triangleB v' v) _; rewrite addrC ler_add2l.
move=> j; have b : dot (col j W) v' <= dot (col j W) v + norm (col j W) * k.
  have -> : dot (col j W) v' = dot (col j W) v + dot (col j W) (v' - v) by rewrite -dotDr addrC subrK.
  by rewrite ler_add2l; apply: le_trans (dot_le_norm _ _) _; rewrite ler_wpmul2l.
by move: (hw j) => /=; case: ifP => _; [apply: le_lt_trans b | apply: le_trans b].
Qed.

(** A linear readout changes by no more than its norm times the distance. *)
Theorem witness_readout (w : 'cV[R]_d) (v v' : 'cV[R]_d) k : norm (v' - v) <= k ->
  dot w v - k * norm w <= dot w v'.
Proof.
move=> h; have -> : dot w v' = dot w v + dot w (v' - v) by rewrite -dotDr addrC subrK.
by rewrite ler_add2l ler_oppl -dotNl -(normN w); apply: dot_le_ball.
Qed.

End Nearby.
