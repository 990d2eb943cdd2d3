(** Adjoints of a chain of steps, and affine forms with error generators.
    Both carry what each step leaves out, exactly, to a readout at the end. *)
From mathcomp Require Import all_ssreflect all_algebra ring.
From SaeProofs Require Import Base.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Section Chain.
Variables (R : realFieldType) (d : nat -> nat).
Variables (A : forall k, 'M[R]_(d k.+1, d k)) (r : forall k, 'cV[R]_(d k) -> 'cV[R]_(d k.+1)).
Implicit Types z y lam : forall k, 'cV[R]_(d k).

(** The states of the chain up to step [n]. *)
Definition run n z := forall k, (k < n)%N -> z k.+1 = A k *m z k + r (z k).

(** The same chain without its remainders. *)
Definition linear_run n y := forall k, (k < n)%N -> y k.+1 = A k *m y k.

(** Adjoint states: [lam n] carried back through the later linear maps. *)
Definition adjoint n lam := forall k, (k < n)%N -> lam k = (A k)^T *m lam k.+1.

(** Any vector at the end has adjoints. *)
Theorem adjoint_exists n (a : 'cV[R]_(d n)) : exists2 lam, adjoint n lam & lam n = a.
Proof.
pose put m (v : 'cV[R]_(d m)) lam k : 'cV[R]_(d k) :=
  if k =P m is ReflectT e then ecast i 'cV_(d i) (esym e) v else lam k.
have putE m v lam : @put m v lam m = v.
  by rewrite /put; case: eqP => // e; rewrite (eq_irrelevance e (erefl _)).
have putN m v lam k : k != m -> @put m v lam k = lam k by rewrite /put; case: eqP.
elim: n a => [|n IH] a; first by exists (put 0%N a (fun k => 0)); rewrite ?putE.
have [lam hl el] := IH ((A n)^T *m a).
exists (put n.+1 a lam) => [k|]; last exact: putE.
rewrite ltnS leq_eqVlt => /orP[/eqP ->|lt]; first by rewrite putE (putN n.+1 a lam n) ?neq_ltn ?ltnSn // el.
have ne j : (j <= n)%N -> j != n.+1 by move=> le; rewrite neq_ltn ltnS le.
by rewrite (putN n.+1 a lam k (ne _ (ltnW lt))) (putN n.+1 a lam k.+1 (ne _ lt)); apply: hl.
Qed.

(** What the remainders add to a readout at the end is the sum of what each adds along its adjoint. *)
Theorem adjoint_identity n z y lam : run n z -> linear_run n y -> y 0%N = z 0%N -> adjoint n lam ->
  dot (lam n) (z n) = dot (lam n) (y n) + \sum_(k < n) dot (lam k.+1) (r (z k)).
Proof.
move=> hz hy h0 hl.
have base m : (m <= n)%N -> dot (lam m) (y m) = dot (lam 0%N) (y 0%N).
  by elim: m => // m IH lt; rewrite hy // dot_mulr -hl // IH // ltnW.
have step m : (m <= n)%N -> dot (lam m) (z m) = dot (lam m) (y m) + \sum_(k < m) dot (lam k.+1) (r (z k)).
  elim: m => [|m IH] lt; first by rewrite h0 big_ord0 addr0.
  rewrite base // big_ord_recr /= addrA -(base m (ltnW lt)) -IH ?(ltnW lt) //.
  by rewrite hz // dotDr dot_mulr -hl.
exact: step (leqnn n).
Qed.

(** A bound on each remainder along its adjoint bounds the readout. *)
Theorem adjoint_bound n z y lam (b : nat -> R) : run n z -> linear_run n y -> y 0%N = z 0%N -> adjoint n lam ->
  (forall k, (k < n)%N -> dot (lam k.+1) (r (z k)) <= b k) ->
  dot (lam n) (z n) <= dot (lam n) (y n) + \sum_(k < n) b k.
Proof.
by move=> hz hy h0 hl hb; rewrite (adjoint_identity hz hy h0 hl) ler_add2l; apply: ler_sum => k _; apply: hb.
Qed.

End Chain.

Section Generators.
Variables (R : realFieldType) (S : finType) (D : S -> nat).

(** [x = c + J y + q + sum_s G_s eps_s]: a linear step maps every part; what the step leaves out joins [q]. *)
Theorem generators_step d m n (W : 'M[R]_(m, d)) (b e : 'cV[R]_m) (c q : 'cV[R]_d) (J : 'M[R]_(d, n)) (y : 'cV[R]_n)
    (G : forall s, 'M[R]_(d, D s)) (eps : forall s, 'cV[R]_(D s)) :
  W *m (c + J *m y + q + \sum_s G s *m eps s) + b + e
    = (W *m c + b) + (W *m J) *m y + (W *m q + e) + \sum_s (W *m G s) *m eps s.
Proof.
rewrite 3!mulmxDr (mulmxA W J y) mulmx_sumr (eq_bigr (fun s => W *m G s *m eps s)) => [|s _]; last exact: mulmxA.
move: (\sum_s _) (W *m c) (W *m J *m y) (W *m q) => s c' j q'.
by rewrite [c' + b + j]addrAC addrA [in RHS](addrAC _ b q') (addrAC _ e s) (addrAC _ b s).
Qed.

End Generators.

Section GeneratorBound.
Variables (R : rcfType) (S : finType) (D : S -> nat).

(** A readout of such a form, with each generator's coefficients in the unit ball. *)
Theorem generators_bound d n (a c q : 'cV[R]_d) (J : 'M[R]_(d, n)) (y : 'cV[R]_n)
    (G : forall s, 'M[R]_(d, D s)) (eps : forall s, 'cV[R]_(D s)) :
  (forall s, norm (eps s) <= 1) ->
  dot a (c + J *m y + q + \sum_s G s *m eps s)
    <= dot a c + dot (J^T *m a) y + dot a q + \sum_s norm ((G s)^T *m a).
Proof.
move=> h; rewrite 3!dotDr dot_mulr ler_add2l.
have -> : dot a (\sum_s G s *m eps s) = \sum_s dot ((G s)^T *m a) (eps s).
  apply: (big_ind2 (fun u v => dot a u = v)) => [|u1 v1 u2 v2 e1 e2|s _]; first by rewrite dot0r.
    by rewrite dotDr e1 e2.
  by rewrite dot_mulr.
by apply: ler_sum => s _; rewrite -[X in _ <= X]mul1r; apply: dot_le_ball.
Qed.

End GeneratorBound.
