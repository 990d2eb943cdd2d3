(** Decoder blindness: what no setting of the features can move, and that the error term survives every clamp. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Clamp.
Variables (F : fieldType) (d n : nat) (D : 'M[F]_(d, n)) (b x : 'cV[F]_d).
Implicit Types f : 'cV[F]_n.

(** The residual after a clamp from the code [f] to the code [f']: decode [f'], add the error term of [f]. *)
Definition clamp f f' := (D *m f' + b) + (x - (D *m f + b)).

Lemma clampE f f' : clamp f f' = x + D *m (f' - f).
Proof.
by rewrite /clamp mulmxBr addrCA opprD addrACA subrr addr0.
Qed.

(** The part of the residual that the decoder cannot reach is the same after every clamp. *)
Theorem blindness_projection (P : 'M[F]_d) f f' : P *m D = 0 -> P *m clamp f f' = P *m x.
Proof. by move=> h; rewrite clampE mulmxDr mulmxA h mul0mx addr0. Qed.

(** A readout is blind to every clamp exactly if the decoder is orthogonal to it. *)
Theorem blindness_iff (y : 'cV[F]_d) f :
  (forall f1 f2, y^T *m clamp f f1 = y^T *m clamp f f2) <-> D^T *m y = 0.
Proof.
split=> [h|h f1 f2].
  apply: trmx_inj; rewrite trmx_mul trmxK trmx0; apply/matrixP => i j.
  have := h (f + delta_mx j 0) f; rewrite !clampE subrr mulmx0 addr0 (addrC f) addrK mulmxDr.
  move/eqP; rewrite -subr_eq0 addrAC subrr add0r mulmxA -colE => /eqP/matrixP/(_ i 0).
  by rewrite !mxE.
have e : y^T *m D = 0 by rewrite -[D]trmxK -trmx_mul h trmx0.
by rewrite !clampE !mulmxDr !mulmxA e !mul0mx.
Qed.

(** The error term is the same for the clamped residual as for the plain one. *)
Theorem error_survives f f' : clamp f f' - (D *m f' + b) = x - (D *m f + b).
Proof. by rewrite /clamp addrAC subrr add0r. Qed.

(** Undo: exactly one perturbation of the clamped residual brings the plain residual back. *)
Theorem undo_iff f f' delta : clamp f f' + delta = x <-> delta = D *m (f - f').
Proof.
rewrite clampE -addrA; split=> [h|->]; last by rewrite -mulmxDr addrA subrK subrr mulmx0 addr0.
have : x + (D *m (f' - f) + delta) - x = x - x by rewrite h.
rewrite addrAC !subrr add0r => /eqP; rewrite addrC addr_eq0 => /eqP ->.
by rewrite -mulmxN opprB.
Qed.

(** Columns of the decoder named by [S]; the others are zero. *)
Definition columns (S : {set 'I_n}) : 'M[F]_(d, n) := \matrix_(i, j) (if j \in S then D i j else 0).

(** A clamp that changes only the features in [S] moves the residual within the span of their rows. *)
Theorem clamp_span (S : {set 'I_n}) f f' :
  (forall j, j \notin S -> f' j 0 = f j 0) -> clamp f f' - x = columns S *m (f' - f).
Proof.
move=> h; rewrite clampE addrAC subrr add0r; apply/matrixP => i j.
rewrite !mxE; apply: eq_bigr => k _; rewrite !mxE (ord1 j).
by case: ifP => // /negbT /h ->; rewrite subrr !mulr0.
Qed.

(** The span has at most as many dimensions as [S] has features. *)
Theorem clamp_span_rank (S : {set 'I_n}) : (\rank (columns S) <= #|S|)%N.
Proof.
pose C : 'M[F]_(d, #|S|) := \matrix_(i, k) D i (enum_val k).
pose X : 'M[F]_(#|S|, n) := \matrix_(k, j) (enum_val k == j)%:R.
have -> : columns S = C *m X.
  apply/matrixP => i j; rewrite !mxE; case: ifPn => hj.
    rewrite (bigD1 (enum_rank_in hj j)) //= big1 ?addr0.
      by rewrite !mxE enum_rankK_in // eqxx mulr1.
    move=> k ne; rewrite !mxE; case: eqP => [e|]; last by rewrite mulr0.
    by case/eqP: ne; apply: enum_val_inj; rewrite e enum_rankK_in.
  rewrite big1 // => k _; rewrite !mxE; case: eqP => [e|]; last by rewrite mulr0.
  by case/negP: hj; rewrite -e enum_valP.
exact: leq_trans (mulmx_max_rank _ _) (leqnn _).
Qed.

End Clamp.
