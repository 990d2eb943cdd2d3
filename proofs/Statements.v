(** All theorems, restated so that they can be checked without reading a proof. Each proof is one reference.
    The registry theory/theorems.toml names the theorems of this file; those that need real analysis are in
    analysis/StatementsAnalysis.v.

    What has to be read besides: [dot] (inner product), [norm], [nonneg], [fro] (Frobenius norm), [is_orthproj] in
    Base.v; [jumprelu], [gated], [gate], [magnitude] in HeldCell.v; [selection], [on], [code], [score] in TopK.v;
    [ones] and [center] in FinalNorm.v; [psd], [small_on], [large_on] in SpectralGap.v; [pos] in Cones.v; [tree],
    [root], [proved] in Regions.v. Vectors are columns; [M *m v] is a product, [M^T] a transpose, [c%:M] is [c] times
    the identity. [realFieldType] is any ordered field, [rcfType] any real closed field; the reals are one. *)
From mathcomp Require Import all_ssreflect all_algebra.
From SaeProofs Require Import Base.
From SaeProofs Require Blindness Bypass Closing HeldCell TopK Duality FinalNorm WitnessNearby ModularRank.
From SaeProofs Require SpectralGap Cones WholeCone CellSize Composition TrustRegion.
From SaeProofs Require Adjoint Enclosure Regions Softmax Normalisation Drift.
Set Implicit Arguments.
Unset Strict Implicit.
Unset Printing Implicit Defensive.
Import Order.TTheory GRing.Theory Num.Theory.
Local Open Scope ring_scope.

(** * Clamps, blindness, undo. A clamp decodes [f'] and adds the error term of [f]. *)

Theorem blindness_iff (F : fieldType) d n (D : 'M[F]_(d, n)) (b x y : 'cV[F]_d) (f : 'cV[F]_n) :
  let clamped f' := (D *m f' + b) + (x - (D *m f + b)) in
  (forall f1 f2, y^T *m clamped f1 = y^T *m clamped f2) <-> D^T *m y = 0.
Proof. exact: Blindness.blindness_iff. Qed.

Theorem blindness_projection (F : fieldType) d n (D : 'M[F]_(d, n)) (b x : 'cV[F]_d) (f f' : 'cV[F]_n) (P : 'M[F]_d) :
  P *m D = 0 -> P *m ((D *m f' + b) + (x - (D *m f + b))) = P *m x.
Proof. exact: Blindness.blindness_projection. Qed.

Theorem clamp_span (F : fieldType) d n (D : 'M[F]_(d, n)) (b x : 'cV[F]_d) (S : {set 'I_n}) (f f' : 'cV[F]_n) :
  (forall j, j \notin S -> f' j 0 = f j 0) ->
  let columns : 'M[F]_(d, n) := \matrix_(i, j) (if j \in S then D i j else 0) in
  (D *m f' + b) + (x - (D *m f + b)) - x = columns *m (f' - f) /\ (\rank columns <= #|S|)%N.
Proof. by move=> h; split; [apply: Blindness.clamp_span | apply: Blindness.clamp_span_rank]. Qed.

Theorem error_survives (F : fieldType) d n (D : 'M[F]_(d, n)) (b x : 'cV[F]_d) (f f' : 'cV[F]_n) :
  ((D *m f' + b) + (x - (D *m f + b))) - (D *m f' + b) = x - (D *m f + b).
Proof. exact: Blindness.error_survives. Qed.

Theorem undo_iff (F : fieldType) d n (D : 'M[F]_(d, n)) (b x delta : 'cV[F]_d) (f f' : 'cV[F]_n) :
  (D *m f' + b) + (x - (D *m f + b)) + delta = x <-> delta = D *m (f - f').
Proof. exact: Blindness.undo_iff. Qed.

(** * Bypasses. [E] holds the encoder columns of what is held. *)

Theorem projector_exists (R : realFieldType) d k (A : 'M[R]_(d, k)) :
  exists P, [/\ P^T = P, P *m P = P, P *m A = 0 & forall v : 'cV_d, A^T *m v = 0 -> P *m v = v].
Proof. exact: orthproj_exists. Qed.

Theorem projector_unique (R : realFieldType) d k (A : 'M[R]_(d, k)) P Q :
  is_orthproj A P -> is_orthproj A Q -> P = Q.
Proof. exact: orthproj_unique. Qed.

Theorem bypass_exists (F : fieldType) d s (E : 'M[F]_(d, s)) :
  ((exists2 delta : 'cV[F]_d, delta != 0 & E^T *m delta = 0) <-> (\rank E < d)%N) /\ (d - s <= \rank (kermx E))%N.
Proof. by split; [apply: Bypass.bypass_exists | apply: Bypass.bypass_dimension]. Qed.

Theorem bypass_readout (F : fieldType) d s (E : 'M[F]_(d, s)) (g : 'cV[F]_d) :
  (forall delta : 'cV[F]_d, E^T *m delta = 0 -> g^T *m delta = 0) <-> (g^T <= E^T)%MS.
Proof. exact: Bypass.bypass_readout. Qed.

Theorem bypass_bound (R : rcfType) d s (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d) eps : is_orthproj E P ->
  forall delta : 'cV[R]_d, E^T *m delta = 0 -> norm delta <= eps -> dot g delta <= eps * norm (P *m g).
Proof. by move=> hP delta; apply: Bypass.bypass_bound hP _ _. Qed.

Theorem bypass_attained (R : rcfType) d s (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d) eps : is_orthproj E P ->
  0 <= eps -> exists delta : 'cV[R]_d,
    [/\ E^T *m delta = 0, norm delta <= eps & dot g delta = eps * norm (P *m g)].
Proof. by move=> hP; apply: Bypass.bypass_attained. Qed.

Theorem bypass_cost (R : rcfType) d s (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d) c : is_orthproj E P ->
  P *m g != 0 ->
  (forall delta : 'cV[R]_d, E^T *m delta = 0 -> dot g delta = c -> `|c| / norm (P *m g) <= norm delta) /\
  (exists delta : 'cV[R]_d, [/\ E^T *m delta = 0, dot g delta = c & norm delta = `|c| / norm (P *m g)]).
Proof.
by move=> hP n0; split=> [delta h <-|]; [exact: (Bypass.bypass_cost hP h n0) | apply: Bypass.bypass_cost_attained].
Qed.

(** * held-cell *)

Theorem preactivation_shift (R : realFieldType) d n (W : 'M[R]_(d, n)) (b : 'cV[R]_n) (c y delta : 'cV[R]_d) s j :
  (W^T *m (s *: (y + delta) - c) + b) j 0 = (W^T *m (s *: y - c) + b) j 0 + s * dot (col j W) delta.
Proof. exact: HeldCell.preactivation_shift. Qed.

(** ReLU is the case [t = 0]; [jumprelu t a] is [a] where [a > max t 0], else zero. *)
Theorem held_cell_jumprelu (R : realFieldType) d n (W : 'M[R]_(d, n)) (b t : 'cV[R]_n) (c y delta : 'cV[R]_d) (s : R) :
  0 < s -> forall S : pred 'I_n,
  let a z j := (W^T *m (s *: z - c) + b) j 0 in
  (forall j, S j -> HeldCell.jumprelu (t j 0) (a (y + delta) j) = HeldCell.jumprelu (t j 0) (a y j)) <->
  (forall j, S j -> if Num.max (t j 0) 0 < a y j then dot (col j W) delta = 0
                    else s * dot (col j W) delta <= Num.max (t j 0) 0 - a y j).
Proof. by move=> s0 S; apply: HeldCell.held_cell_jumprelu. Qed.

(** Gate [dot w (s y - c) + bp], magnitude [e * dot w (s y - c) + bm] with [e > 0]. *)
Theorem held_cell_gated (R : realFieldType) d n (W : 'M[R]_(d, n)) (bp bm e : 'cV[R]_n) (c y delta : 'cV[R]_d) (s : R) :
  0 < s -> (forall j, 0 < e j 0) -> forall S : pred 'I_n,
  let p z j := dot (col j W) (s *: z - c) + bp j 0 in
  let m z j := e j 0 * dot (col j W) (s *: z - c) + bm j 0 in
  (forall j, S j -> HeldCell.gated (p (y + delta) j) (m (y + delta) j) = HeldCell.gated (p y j) (m y j)) <->
  (forall j, S j -> if (0 < p y j) && (0 < m y j) then dot (col j W) delta = 0
                    else s * dot (col j W) delta <= Num.max (- p y j) (- m y j / e j 0)).
Proof. by move=> s0 e0 S; apply: HeldCell.held_cell_gated. Qed.

(** TopK with any rule for ties that is the same before and after. *)
Theorem held_cell_topk (R : realFieldType) n k (nu : 'I_n -> R) (tie : rel 'I_n) (a a' : 'I_n -> R)
    (S S' : {set 'I_n}) :
  (forall j, 0 < nu j) -> (forall i j, tie i j -> ~~ tie j i) ->
  TopK.selection k nu tie a S -> TopK.selection k nu tie a' S' ->
  let on := TopK.on a S in
  ((forall j, TopK.code a' S' j = TopK.code a S j) ->
     (forall j, j \in on -> a' j = a j) /\
     (forall j, j \notin on ->
        if #|on| == k then forall i, i \in on -> a' j * nu j <= a i * nu i else a' j <= 0)) /\
  ((forall j, j \in on -> a' j = a j) ->
     (forall j, j \notin on ->
        if #|on| == k then forall i, i \in on -> a' j * nu j < a i * nu i else a' j <= 0) ->
     (forall j, TopK.code a' S' j = TopK.code a S j)).
Proof.
by move=> nu0 ta hS hS' o; split; [apply: TopK.topk_code_held_necessary hS hS'
  | apply: TopK.topk_code_held_sufficient hS hS'].
Qed.

Theorem held_cell_topk_set (R : realFieldType) n k (nu : 'I_n -> R) (tie : rel 'I_n) (a a' : 'I_n -> R)
    (S S' : {set 'I_n}) (H : pred 'I_n) :
  (forall j, 0 < nu j) -> (forall i j, tie i j -> ~~ tie j i) ->
  TopK.selection k nu tie a S -> TopK.selection k nu tie a' S' ->
  let on := TopK.on a S in
  (forall j, H j -> j \in on -> a' j = a j) ->
  (#|on| = k -> forall i j, i \in S -> j \notin S ->
     a' j * nu j < a' i * nu i \/ (a' i * nu i = a i * nu i /\ a' j * nu j = a j * nu j)) ->
  ((#|on| < k)%N -> forall j, j \notin on -> a' j <= 0) ->
  forall j, H j -> TopK.code a' S' j = TopK.code a S j.
Proof. by move=> nu0 ta hS hS' o; apply: TopK.topk_set_held nu0 ta _ _ _ _ hS hS' H. Qed.

(** * linear-dual *)

Theorem linear_dual (R : rcfType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d))
    (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) r (delta : 'cV[R]_d) :
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) -> norm delta <= r -> nonneg nu ->
  dot v delta <= dot nu s + r * norm (v - A^T *m mu - B^T *m nu).
Proof. by move=> h1 h2; apply: Duality.linear_dual; split. Qed.

Theorem linear_dual_checked (R : rcfType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d))
    (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) r t (delta : 'cV[R]_d) :
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) -> norm delta <= r -> nonneg nu ->
  0 <= t -> dot (v - A^T *m mu - B^T *m nu) (v - A^T *m mu - B^T *m nu) <= t ^+ 2 ->
  dot v delta <= dot nu s + r * t.
Proof. by move=> h1 h2; apply: Duality.linear_dual_checked; split. Qed.

Theorem linear_dual_support (R : realFieldType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d))
    (ball : 'cV[R]_d -> Prop) (sigma : 'cV[R]_d -> R) (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) delta :
  (forall u x, ball x -> dot u x <= sigma u) ->
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) -> ball delta -> nonneg nu ->
  dot v delta <= dot nu s + sigma (v - A^T *m mu - B^T *m nu).
Proof. by move=> hs h1 h2; apply: Duality.linear_dual_support hs _; split. Qed.

Theorem linear_dual_linf (R : realFieldType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d))
    (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) r (delta : 'cV[R]_d) :
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) -> (forall i, `|delta i 0| <= r) -> nonneg nu ->
  dot v delta <= dot nu s + r * (\sum_i `|(v - A^T *m mu - B^T *m nu) i 0|).
Proof. by move=> h1 h2; apply: Duality.linear_dual_linf; split. Qed.

Theorem linear_dual_ellipsoid (R : rcfType) d k n m (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)) (L : 'M[R]_(d, m))
    (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) r (delta : 'cV[R]_d) :
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) ->
  (exists2 y, norm y <= r & delta = L *m y) -> nonneg nu ->
  dot v delta <= dot nu s + r * norm (L^T *m (v - A^T *m mu - B^T *m nu)).
Proof. by move=> h1 h2; apply: Duality.linear_dual_ellipsoid; split. Qed.

(** Equality: multipliers that fit a feasible [delta] on the sphere prove it the best. *)
Theorem linear_dual_optimal (R : rcfType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d))
    (v : 'cV[R]_d) (mu : 'cV[R]_k) (nu s : 'cV[R]_n) r t (delta : 'cV[R]_d) :
  A *m delta = 0 -> (forall i, (B *m delta) i 0 <= s i 0) -> norm delta = r -> nonneg nu ->
  dot nu (s - B *m delta) = 0 -> v - A^T *m mu - B^T *m nu = t *: delta -> 0 <= t ->
  dot v delta = dot nu s + r * norm (v - A^T *m mu - B^T *m nu).
Proof.
move=> h1 h2 hr nu0 hs ht t0.
by apply: (Duality.linear_dual_optimal (conj h1 h2) _ nu0 hs ht t0 hr); rewrite hr.
Qed.

(** * final-norm and all-radius-cap. [c] stands for [d * eps0]; readout [dot w z / sqrt (|z|^2 + c) + b]. *)

Theorem all_radius_cap (R : rcfType) d (w z : 'cV[R]_d) b c : 0 < c ->
  dot w z / Num.sqrt (dot z z + c) + b <= norm w + b.
Proof. exact: FinalNorm.all_radius_cap. Qed.

Theorem final_norm_tangent (R : rcfType) d (w q h : 'cV[R]_d) (P : 'M[R]_d) b c t (admissible : 'cV[R]_d -> Prop) :
  0 < c -> 0 <= t -> norm q <= 1 -> P^T = P ->
  (forall delta, admissible delta ->
    dot (P *m (w - t *: q)) (h + delta) <= t * (Num.sqrt (1 - norm q ^+ 2) * Num.sqrt c)) ->
  forall delta, admissible delta ->
    let z := P *m (h + delta) in dot w z / Num.sqrt (dot z z + c) + b <= t + b.
Proof. by move=> *; apply: (@FinalNorm.final_norm_tangent _ _ w b c t q P h admissible). Qed.

Theorem final_norm_secant_rms (R : rcfType) d (w h : 'cV[R]_d) b c t s r (admissible : 'cV[R]_d -> Prop) :
  0 < c -> t < 0 -> 0 < s ->
  (forall delta, admissible delta -> norm delta <= r) ->
  (forall delta, admissible delta ->
    dot w h + - t / (2 * s) * (norm h ^+ 2 + r ^+ 2 + c + s ^+ 2) + dot (w + (- t / s) *: h) delta <= 0) ->
  forall delta, admissible delta ->
    let z := h + delta in dot w z / Num.sqrt (dot z z + c) + b <= t + b.
Proof. by move=> *; apply: (@FinalNorm.final_norm_secant_rms _ _ w b c t s r h admissible). Qed.

(** [center d] removes the mean, [ones d] has the entries one. *)
Theorem final_norm_secant_layer (R : rcfType) d (w h : 'cV[R]_d) b c t s m r (admissible : 'cV[R]_d -> Prop) :
  let P := FinalNorm.center R d in
  0 < c -> t < 0 -> 0 < s -> P *m w = w ->
  (forall delta, admissible delta -> norm delta <= r) ->
  (forall delta, admissible delta ->
    dot w (P *m h) + - t / (2 * s) * (norm (P *m h) ^+ 2 + r ^+ 2 + d%:R * m ^+ 2 + c + s ^+ 2)
    + dot (w + (- t / s) *: (P *m h - m *: FinalNorm.ones R d)) delta <= 0) ->
  forall delta, admissible delta ->
    let z := P *m (h + delta) in dot w z / Num.sqrt (dot z z + c) + b <= t + b.
Proof. by move=> *; apply: (@FinalNorm.final_norm_secant_layer _ _ w b c t s m r h admissible). Qed.

(** * pinned and witness-nearby *)

Theorem pinned (R : rcfType) d n (M : 'M[R]_(n, d)) (L : 'M[R]_(d, n)) : fro (1%:M - L *m M) < 1 ->
  (forall delta : 'cV[R]_d, M *m delta = 0 -> delta = 0) /\ \rank M = d.
Proof. by move=> h; split=> [delta|]; [apply: WitnessNearby.pinned h | apply: WitnessNearby.pinned_rank h]. Qed.

Theorem witness_nearby (R : rcfType) d n (M : 'M[R]_(n, d)) (Q : 'M[R]_(d, n)) (v : 'cV[R]_d) :
  let c := fro (M *m Q - 1%:M) in c < 1 ->
  row_free M /\ exists2 v', M *m v' = 0 & norm (v' - v) <= fro Q * norm (M *m v) / (1 - c).
Proof.
move=> c c1; split; first exact: WitnessNearby.witness_independent (fro_opbound _) c1.
exact: WitnessNearby.witness_nearby (fro_opbound _) c1 (fro_opbound _) (fro_ge0 _) v.
Qed.

Theorem witness_admissible (R : rcfType) d n m (M : 'M[R]_(n, d)) (Q : 'M[R]_(d, n)) (W : 'M[R]_(d, m))
    (t : 'cV[R]_m) (strict : pred 'I_m) r (v : 'cV[R]_d) :
  let c := fro (M *m Q - 1%:M) in let k := fro Q * norm (M *m v) / (1 - c) in c < 1 ->
  (forall j, let b := dot (col j W) v + norm (col j W) * k in if strict j then b < t j 0 else b <= t j 0) ->
  norm v + k <= r ->
  exists v' : 'cV[R]_d, [/\ M *m v' = 0, norm (v' - v) <= k, norm v' <= r
    & forall j, if strict j then dot (col j W) v' < t j 0 else dot (col j W) v' <= t j 0].
Proof.
by move=> c k c1; apply: WitnessNearby.witness_admissible (fro_opbound _) c1 (fro_opbound _) (fro_ge0 _) _ _ _ _ _ _.
Qed.

(** * modular-rank *)

(** [A = e B] with an integer matrix [B]; [x%:~R : 'F_p] is the residue of an integer modulo [p]. *)
Theorem modular_rank (F : numFieldType) p n d r (B : 'M[int]_(n, d)) (e : F)
    (rows : 'I_r -> 'I_n) (cols : 'I_r -> 'I_d) :
  prime p -> e != 0 ->
  \det (\matrix_(i, j) (B (rows i) (cols j))%:~R : 'M['F_p]_r) != 0 ->
  let A : 'M[F]_(n, d) := \matrix_(i, j) (e * (B i j)%:~R) in
  (r <= \rank A)%N /\ row_free (\matrix_(i, j) A (rows i) j).
Proof. by move=> hp e0 h; apply: ModularRank.modular_rank e0 h. Qed.

Theorem block_elimination (K : fieldType) m n (D : 'M[K]_m) (U : 'M[K]_(m, n)) (L : 'M[K]_(n, m)) (S : 'M[K]_n) :
  D \in unitmx -> \det (block_mx D U L S) = \det D * \det (S - L *m invmx D *m U).
Proof. exact: ModularRank.block_elimination. Qed.

(** * spectral-gap, by dimensions of subspaces on which [A] is small or large *)

Theorem spectral_small (R : rcfType) n d k (A : 'M[R]_(n, d)) (V : 'M[R]_(d, k)) t c u : 0 <= t -> c < 1 ->
  (forall y : 'cV_k, norm ((V^T *m V - 1%:M) *m y) <= c * norm y) ->
  (forall y : 'cV_k, norm (A *m V *m y) <= u * norm y) -> 0 <= u -> u ^+ 2 <= t ^+ 2 * (1 - c) ->
  SpectralGap.small_on A k t.
Proof. exact: SpectralGap.spectral_small_near. Qed.

Theorem spectral_large (R : rcfType) n d k (A : 'M[R]_(n, d)) (V : 'M[R]_(d, k)) t : 0 <= t ->
  SpectralGap.psd (A^T *m A + V *m V^T - (t ^+ 2)%:M) ->
  (forall x : 'cV_d, V^T *m x = 0 -> t ^+ 2 * dot x x <= dot (A *m x) (A *m x)) /\
  SpectralGap.large_on A (d - k) t.
Proof.
by move=> t0 h; split=> [x|]; [apply: SpectralGap.spectral_orthogonal h | apply: SpectralGap.spectral_large t0 h].
Qed.

Theorem spectral_exact (R : rcfType) n d k (A : 'M[R]_(n, d)) t1 t2 : (k <= d)%N -> t1 < t2 ->
  SpectralGap.small_on A k t1 -> SpectralGap.large_on A (d - k) t2 ->
  (forall j, SpectralGap.small_on A j t1 -> (j <= k)%N) /\ (forall j, SpectralGap.large_on A j t2 -> (j <= d - k)%N).
Proof. exact: SpectralGap.spectral_exact. Qed.

Theorem spectral_cholesky (R : rcfType) d (T M L : 'M[R]_d) s e r :
  (forall x : 'cV_d, norm ((T - M - s%:M) *m x) <= e * norm x) ->
  (forall x : 'cV_d, norm ((M - L *m L^T) *m x) <= r * norm x) ->
  (forall x : 'cV_d, (s - e - r) * dot x x <= dot x (T *m x)) /\
  (forall a (x : 'cV_d), T *m x = a *: x -> x != 0 -> s - e - r <= a).
Proof.
by move=> hT hM; split; [apply: SpectralGap.spectral_cholesky hT hM
  | move=> a x; apply: SpectralGap.spectral_eigenvalue hT hM].
Qed.

(** * cone-membership and whole-cone. The rows of [W] are the [d_j]; [W^T *m f] is what the code [f] writes. *)

Theorem cone_distance (R : rcfType) d n (W : 'M[R]_(n, d)) (x y : 'cV[R]_d) (f u : 'cV[R]_n) (bounded : pred 'I_n)
    (active : {set 'I_n}) (t T : R) : y != 0 -> nonneg f -> 0 <= t -> t * (\sum_j f j 0) <= T ->
  (forall j, bounded j -> f j 0 <= u j 0) -> (forall j, ~~ bounded j -> (W *m y) j 0 <= t) ->
  (forall j, j \notin active -> f j 0 = 0) ->
  (dot x y - (T + \sum_(j in active | bounded j) u j 0 * Num.max ((W *m y) j 0 - t) 0)) / norm y
    <= norm (x - W^T *m f).
Proof. exact: Cones.cone_distance_bounded. Qed.

Theorem single_distance (R : rcfType) d (r v : 'cV[R]_d) s : v != 0 ->
  dot r r - dot r v ^+ 2 / dot v v <= dot (r - s *: v) (r - s *: v) /\
  (s * dot r v <= 0 -> dot r r <= dot (r - s *: v) (r - s *: v)).
Proof. by move=> v0; split; [apply: Cones.single_distance | apply: Cones.single_distance_end]. Qed.

Theorem sparse_distance (R : rcfType) d n (W : 'M[R]_(n, d)) mu (active : {set 'I_n}) (x : 'cV[R]_d) (g : 'cV[R]_n) a :
  let e j := (row j W)^T in
  0 <= mu -> (forall j, dot (e j) (e j) = 1) -> (forall i j, i != j -> - mu <= dot (e i) (e j)) ->
  nonneg g -> (forall j, j \notin active -> g j 0 = 0) -> a = 1 - (#|active|%:R - 1) * mu -> 0 < a ->
  dot x x - a^-1 * (\sum_(j in active) Num.max (dot x (e j)) 0 ^+ 2) <= dot (x - W^T *m g) (x - W^T *m g).
Proof. by move=> e mu0 un co g0 ga ea a0; apply: (Cones.sparse_distance (W := W) mu0 un co x g0 ga ea a0). Qed.

Theorem whole_cone_exact (R : realFieldType) d n (W : 'M[R]_(n, d)) (f : 'cV[R]_n) :
  \rank W = d -> (forall j, 0 < f j 0) -> W^T *m f = 0 ->
  forall x : 'cV[R]_d, exists2 g : 'cV[R]_n, nonneg g & W^T *m g = x.
Proof. exact: WholeCone.whole_cone_exact. Qed.

Theorem whole_cone (R : rcfType) d n (W : 'M[R]_(n, d)) (Q : 'M[R]_(d, n)) (f l w : 'cV[R]_n) c eta m :
  let rho j := norm (col j Q) / (1 - c) in
  fro (Q *m W - 1%:M) <= c -> c < 1 -> norm (W^T *m f) <= eta ->
  (forall j, 0 < l j 0) -> (forall j, l j 0 <= f j 0 - rho j * eta) ->
  (forall j, f j 0 + rho j * eta <= w j 0) -> (forall j, rho j / l j 0 <= m) ->
  forall x : 'cV[R]_d, exists g : 'cV[R]_n,
    [/\ nonneg g, W^T *m g = x & forall j, g j 0 <= norm x * (rho j + w j 0 * m)].
Proof.
move=> rho hE c1 hf l0 hl hw hm x; apply: (WholeCone.whole_cone (l := l) (f := f) (eta := eta)) => // y.
by apply: le_trans (fro_opbound _ y) _; rewrite ler_wpmul2r.
Qed.

(** * cell-size. The cell: [A *m delta = 0] and [W *m delta <= s] entry by entry. *)

Theorem cell_inner_radius (R : rcfType) d k n (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s : 'cV[R]_n) (P : 'M[R]_d) r :
  is_orthproj A^T P -> 0 <= r ->
  (forall delta, A *m delta = 0 -> norm delta <= r -> A *m delta = 0 /\ forall j, (W *m delta) j 0 <= s j 0) <->
  (forall j, r * norm (P *m (row j W)^T) <= s j 0).
Proof. exact: CellSize.cell_inner_radius. Qed.

Theorem cell_ball (R : rcfType) d k n (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s : 'cV[R]_n) (mu : 'I_n -> 'cV[R]_k)
    (c c' delta : 'cV[R]_d) r e :
  (forall j, dot ((row j W)^T - A^T *m mu j) c + (r + e) * norm ((row j W)^T - A^T *m mu j) <= s j 0) ->
  norm (c' - c) <= e -> A *m delta = 0 -> norm (delta - c') <= r ->
  A *m delta = 0 /\ forall j, (W *m delta) j 0 <= s j 0.
Proof. exact: CellSize.cell_ball. Qed.

Theorem cell_bounded (R : rcfType) d k n (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s f : 'cV[R]_n) (mu : 'cV[R]_k)
    (LA : 'M[R]_(d, k)) (L : 'M[R]_(d, n)) c V T :
  let eta := norm (A^T *m mu + W^T *m f) in
  (0 < n)%N -> (forall j, 0 < f j 0) ->
  (forall x : 'cV_d, norm ((1%:M - LA *m A - L *m W) *m x) <= c * norm x) ->
  (forall j, norm (L *m s - (dot f s / f j 0) *: col j L) <= V) -> (forall j, norm (col j L) / f j 0 <= T) ->
  forall delta, c + eta * T < 1 -> A *m delta = 0 -> (forall j, (W *m delta) j 0 <= s j 0) ->
  norm delta <= V / (1 - c - eta * T).
Proof.
by move=> eta n0 f0 hc hV hT delta lt hA hW; apply: CellSize.cell_bounded n0 f0 hc hV hT _ lt (conj hA hW).
Qed.

Theorem cell_unbounded (R : rcfType) d k n (A : 'M[R]_(k, d)) (W : 'M[R]_(n, d)) (s : 'cV[R]_n) (strict : pred 'I_n)
    (delta : 'cV[R]_d) t :
  nonneg s -> A *m delta = 0 -> (forall j, dot (row j W)^T delta <= 0) ->
  (forall j, strict j -> dot (row j W)^T delta < 0 \/ 0 < s j 0) -> 0 < t ->
  A *m (t *: delta) = 0 /\
  forall j, if strict j then dot (row j W)^T (t *: delta) < s j 0 else dot (row j W)^T (t *: delta) <= s j 0.
Proof. exact: CellSize.cell_unbounded. Qed.

(** * first-order-closure *)

Theorem closing_iff (F : realFieldType) d s m (E : 'M[F]_(d, s)) (U : 'M[F]_(d, m)) (g : 'cV[F]_d) (P : 'M[F]_d) :
  is_orthproj E P ->
  let closed := forall delta : 'cV[F]_d, E^T *m delta = 0 -> U^T *m delta = 0 -> dot g delta = 0 in
  (closed <-> (g^T <= (row_mx E U)^T)%MS) /\ (closed <-> ((P *m g)^T <= (P *m U)^T)%MS).
Proof. by move=> hP; split; [apply: Closing.closing_span | apply: Closing.closing_projected]. Qed.

(** [Q (P g)] is the part of [P g] orthogonal to the span of the projected columns; its norm is the distance. *)
Theorem closing_worst_case (R : rcfType) d s m (E : 'M[R]_(d, s)) (U : 'M[R]_(d, m)) (g : 'cV[R]_d) (P Q : 'M[R]_d) r :
  is_orthproj E P -> is_orthproj (P *m U) Q -> 0 <= r ->
  [/\ forall delta : 'cV[R]_d, E^T *m delta = 0 -> U^T *m delta = 0 -> norm delta <= r ->
        dot g delta <= r * norm (Q *m (P *m g)),
      exists delta : 'cV[R]_d, [/\ E^T *m delta = 0, U^T *m delta = 0, norm delta <= r
        & dot g delta = r * norm (Q *m (P *m g))],
      exists c, P *m g - Q *m (P *m g) = P *m U *m c
    & forall c : 'cV[R]_m, norm (Q *m (P *m g)) <= norm (P *m g - P *m U *m c)].
Proof.
move=> hP hQ r0; have [h1 h2] := Closing.closing_distance g hQ.
by split=> // [delta|]; [apply: Closing.closing_bound | apply: Closing.closing_attained].
Qed.

(** * Composition and other bounds *)

Theorem bound_intersection (R : realFieldType) T (F : T -> R) (X : T -> Prop) u v :
  (forall x, X x -> F x <= u) -> (forall x, X x -> F x <= v) -> forall x, X x -> F x <= Num.min u v.
Proof. exact: Composition.bound_intersection. Qed.

Theorem bound_cover (R : realFieldType) T (F : T -> R) (X : T -> Prop) I (part : I -> T -> Prop) (b : I -> R) u :
  (forall x, X x -> exists i, part i x) -> (forall i x, X x /\ part i x -> F x <= b i) -> (forall i, b i <= u) ->
  forall x, X x -> F x <= u.
Proof. exact: Composition.bound_cover. Qed.

Theorem relaxation_step (R : realFieldType) d (X : 'cV[R]_d -> Prop) (phi : R -> R) (c a b a' b' : 'cV[R]_d) :
  (forall x i, X x -> phi (x i 0) <= a i 0 * x i 0 + b i 0) ->
  (forall x i, X x -> a' i 0 * x i 0 + b' i 0 <= phi (x i 0)) ->
  forall x, X x -> \sum_i c i 0 * phi (x i 0) <=
    \sum_i (if 0 <= c i 0 then c i 0 * (a i 0 * x i 0 + b i 0) else c i 0 * (a' i 0 * x i 0 + b' i 0)).
Proof. exact: Composition.relaxation_step. Qed.

Theorem relu_relaxation (R : realFieldType) (l u a x : R) : l < 0 -> 0 < u -> l <= x <= u -> 0 <= a <= 1 ->
  a * x <= Num.max x 0 <= u / (u - l) * (x - l).
Proof. by move=> l0 u0 hx ha; rewrite Composition.relu_below ?Composition.relu_chord. Qed.

Theorem curvature_bound (R : rcfType) d s (E : 'M[R]_(d, s)) (P : 'M[R]_d) (g : 'cV[R]_d) (F : 'cV[R]_d -> R) H r :
  is_orthproj E P -> 0 <= H ->
  (forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + dot g delta + H / 2 * norm delta ^+ 2) ->
  forall delta, E^T *m delta = 0 -> norm delta <= r -> F delta <= F 0 + r * norm (P *m g) + H / 2 * r ^+ 2.
Proof. exact: Composition.curvature_bound. Qed.

Theorem trust_region (R : rcfType) d (Q : 'M[R]_d) (g : 'cV[R]_d) m r x y :
  Q^T = Q -> (forall z : 'cV_d, 0 <= dot z ((m%:M - Q) *m z)) -> 0 <= m -> 2 *: ((m%:M - Q) *m y) = g ->
  norm x <= r -> dot g x + dot x (Q *m x) <= m * r ^+ 2 + 2^-1 * dot g y.
Proof. exact: TrustRegion.trust_region. Qed.

Theorem trust_region_checked (R : rcfType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)) (Q : 'M[R]_d) (g : 'cV[R]_d)
    m r (s nu : 'cV[R]_n) (mu : 'cV[R]_k) (x y : 'cV[R]_d) :
  let v := g - A^T *m mu - B^T *m nu in
  Q^T = Q -> (forall z : 'cV_d, 0 <= dot z ((m%:M - Q) *m z)) -> 0 <= m ->
  A *m x = 0 -> (forall i, (B *m x) i 0 <= s i 0) -> nonneg nu -> norm x <= r ->
  dot g x + dot x (Q *m x)
    <= dot nu s + m * r ^+ 2 + dot y ((m%:M - Q) *m y) + r * norm (v - 2 *: ((m%:M - Q) *m y)).
Proof. by move=> v QT h m0 hA hB nu0 hr; apply: (TrustRegion.trust_region_checked (A := A) (B := B) (mu := mu)). Qed.

(** * Adjoints: remainders of a chain of steps [z (k+1) = A k z k + r k (z k)], carried to a readout at its end *)

(** [lam k] is the readout [lam n] carried back through the later maps; [y] is the chain without remainders. *)
Theorem adjoint_identity (R : realFieldType) (d : nat -> nat) (A : forall k, 'M[R]_(d k.+1, d k))
    (r : forall k, 'cV[R]_(d k) -> 'cV[R]_(d k.+1)) n (z y lam : forall k, 'cV[R]_(d k)) :
  (forall k, (k < n)%N -> z k.+1 = A k *m z k + r k (z k)) ->
  (forall k, (k < n)%N -> y k.+1 = A k *m y k) -> y 0%N = z 0%N ->
  (forall k, (k < n)%N -> lam k = (A k)^T *m lam k.+1) ->
  dot (lam n) (z n) = dot (lam n) (y n) + \sum_(k < n) dot (lam k.+1) (r k (z k)).
Proof. exact: Adjoint.adjoint_identity. Qed.

Theorem adjoint_exists (R : realFieldType) (d : nat -> nat) (A : forall k, 'M[R]_(d k.+1, d k)) n (a : 'cV[R]_(d n)) :
  exists2 lam : forall k, 'cV[R]_(d k), (forall k, (k < n)%N -> lam k = (A k)^T *m lam k.+1) & lam n = a.
Proof. exact: Adjoint.adjoint_exists. Qed.

Theorem adjoint_bound (R : realFieldType) (d : nat -> nat) (A : forall k, 'M[R]_(d k.+1, d k))
    (r : forall k, 'cV[R]_(d k) -> 'cV[R]_(d k.+1)) n (z y lam : forall k, 'cV[R]_(d k)) (b : nat -> R) :
  (forall k, (k < n)%N -> z k.+1 = A k *m z k + r k (z k)) ->
  (forall k, (k < n)%N -> y k.+1 = A k *m y k) -> y 0%N = z 0%N ->
  (forall k, (k < n)%N -> lam k = (A k)^T *m lam k.+1) ->
  (forall k, (k < n)%N -> dot (lam k.+1) (r k (z k)) <= b k) ->
  dot (lam n) (z n) <= dot (lam n) (y n) + \sum_(k < n) b k.
Proof. exact: Adjoint.adjoint_bound. Qed.

(** Error generators: [c + J y + q + sum_s G_s eps_s], with [e] what the step leaves out. *)
Theorem generators_step (R : realFieldType) (S : finType) (D : S -> nat) d m n (W : 'M[R]_(m, d))
    (b e : 'cV[R]_m) (c q : 'cV[R]_d) (J : 'M[R]_(d, n)) (y : 'cV[R]_n)
    (G : forall s, 'M[R]_(d, D s)) (eps : forall s, 'cV[R]_(D s)) :
  W *m (c + J *m y + q + \sum_s G s *m eps s) + b + e
    = (W *m c + b) + (W *m J) *m y + (W *m q + e) + \sum_s (W *m G s) *m eps s.
Proof. exact: Adjoint.generators_step. Qed.

Theorem generators_bound (R : rcfType) (S : finType) (D : S -> nat) d n (a c q : 'cV[R]_d) (J : 'M[R]_(d, n))
    (y : 'cV[R]_n) (G : forall s, 'M[R]_(d, D s)) (eps : forall s, 'cV[R]_(D s)) :
  (forall s, norm (eps s) <= 1) ->
  dot a (c + J *m y + q + \sum_s G s *m eps s)
    <= dot a c + dot (J^T *m a) y + dot a q + \sum_s norm ((G s)^T *m a).
Proof. exact: Adjoint.generators_bound. Qed.

(** * Quadratic enclosures, cuts and regions *)

Theorem sum_enclosures (R : realFieldType) d n (X : 'cV[R]_d -> Prop) (F : 'cV[R]_d -> R) F0 (g0 : 'cV[R]_d)
    (rem : 'I_n -> 'cV[R]_d -> R) (kappa : 'I_n -> R) (g : 'I_n -> 'cV[R]_d) (Q : 'I_n -> 'M[R]_d) :
  (forall y, X y -> F y = F0 + dot g0 y + \sum_k rem k y) ->
  (forall k y, X y -> rem k y <= kappa k + dot (g k) y + 2^-1 * dot y (Q k *m y)) ->
  forall y, X y ->
  F y <= F0 + \sum_k kappa k + dot (g0 + \sum_k g k) y + 2^-1 * dot y ((\sum_k Q k) *m y).
Proof. exact: Enclosure.sum_enclosures. Qed.

Theorem enclosure_bound (R : rcfType) d k n (A : 'M[R]_(k, d)) (B : 'M[R]_(n, d)) kappa (g : 'cV[R]_d) (Q : 'M[R]_d)
    m r (s nu : 'cV[R]_n) (mu : 'cV[R]_k) (p y : 'cV[R]_d) :
  Q^T = Q -> SpectralGap.psd (m%:M - Q) -> 0 <= m ->
  A *m y = 0 -> (forall i, (B *m y) i 0 <= s i 0) -> nonneg nu -> norm y <= r ->
  kappa + dot g y + 2^-1 * dot y (Q *m y)
    <= kappa + dot nu s + m / 2 * r ^+ 2 + 2^-1 * dot p ((m%:M - Q) *m p)
       + r * norm (g - A^T *m mu - B^T *m nu - (m%:M - Q) *m p).
Proof. exact: Enclosure.enclosure_bound. Qed.

Theorem cut (R : rcfType) d (X : 'cV[R]_d -> Prop) (F : 'cV[R]_d -> R) kappa g Q m nu b (v p : 'cV[R]_d) :
  (forall y, X y -> norm y <= 1) ->
  (forall y, X y -> F y <= kappa + dot g y + 2^-1 * dot y (Q *m y)) ->
  Q^T = Q -> SpectralGap.psd (m%:M - Q) -> 0 <= m -> 0 <= nu ->
  kappa + nu * b + m / 2 + 2^-1 * dot p ((m%:M - Q) *m p) + norm (g - nu *: v - (m%:M - Q) *m p) <= 0 ->
  forall y, X y -> 0 < F y -> b < dot v y.
Proof. exact: Enclosure.cut. Qed.

(** The cap [dot n y >= b] of the unit ball in the ellipsoid around [tc n] with half-axes [sn] along [n], [sp] else. *)
Theorem region_cap (R : rcfType) d (n y : 'cV[R]_d) b tc sn sp : norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  norm y <= 1 -> b <= dot n y ->
  ((dot n y - tc) / sn) ^+ 2 + norm (y - dot n y *: n) ^+ 2 / sp ^+ 2 <= 1.
Proof. by move=> *; rewrite norm_sq; apply: (@Regions.region_cap _ _ n y b). Qed.

(** The same for the region [c + L y], [norm y <= 1]. *)
Theorem region_cut (R : rcfType) d e (L : 'M[R]_(e, d)) (c : 'cV[R]_e) (n y : 'cV[R]_d) b tc sn sp :
  norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  norm y <= 1 -> b <= dot n y ->
  exists2 u : 'cV[R]_d, norm u <= 1
    & c + L *m y = (c + tc *: (L *m n)) + L *m (sp%:M + (sn - sp) *: (n *m n^T)) *m u.
Proof. exact: Regions.region_cut. Qed.

(** The part of a ball between slabs of orthonormal directions (columns of [N]) is in a box times a ball; the distance
    of the interval from [l] to [h] from zero is [max 0 (max l (- h))]. *)
Theorem region_slabs (R : rcfType) d m (N : 'M[R]_(d, m)) (l h : 'cV[R]_m) (y : 'cV[R]_d) r :
  N^T *m N = 1%:M -> norm y <= r -> (forall i, l i 0 <= (N^T *m y) i 0 <= h i 0) ->
  let rest := r ^+ 2 - \sum_i Num.max 0 (Num.max (l i 0) (- h i 0)) ^+ 2 in
  0 <= rest /\ exists (t : 'cV[R]_m) (p : 'cV[R]_d), [/\ forall i, `|t i 0| <= 1, N^T *m p = 0, norm p <= 1
    & y = N *m (\col_i ((l i 0 + h i 0) / 2 + t i 0 * ((h i 0 - l i 0) / 2))) + Num.sqrt rest *: p].
Proof. exact: Regions.region_slabs. Qed.

(** Bounds along [n = N s + sigma n'] give bounds along [n']. *)
Theorem region_turn (R : rcfType) d m (N : 'M[R]_(d, m)) (l h s : 'cV[R]_m) (n n' y : 'cV[R]_d) sigma a b :
  0 < sigma -> n = N *m s + sigma *: n' -> (forall i, l i 0 <= (N^T *m y) i 0 <= h i 0) -> a <= dot n y <= b ->
  (a - \sum_i Num.max (s i 0 * l i 0) (s i 0 * h i 0)) / sigma <= dot n' y
    <= (b - \sum_i Num.min (s i 0 * l i 0) (s i 0 * h i 0)) / sigma.
Proof. exact: Regions.region_turn. Qed.

(** [cut] and [region_cut] together; [extra] is whatever else the region's points satisfy. *)
Theorem contraction (R : rcfType) d e (L : 'M[R]_(e, d)) (c : 'cV[R]_e) (extra : 'cV[R]_d -> Prop)
    (F : 'cV[R]_e -> R)
    kappa (g : 'cV[R]_d) (Q : 'M[R]_d) m nu b (n p : 'cV[R]_d) tc sn sp :
  (forall y, norm y <= 1 -> extra y -> F (c + L *m y) <= kappa + dot g y + 2^-1 * dot y (Q *m y)) ->
  Q^T = Q -> SpectralGap.psd (m%:M - Q) -> 0 <= m -> 0 <= nu ->
  kappa + nu * b + m / 2 + 2^-1 * dot p ((m%:M - Q) *m p) + norm (g - nu *: n - (m%:M - Q) *m p) <= 0 ->
  norm n = 1 -> 0 < sn -> sn <= sp ->
  ((b - tc) / sn) ^+ 2 + (1 - b ^+ 2) / sp ^+ 2 <= 1 -> ((1 - tc) / sn) ^+ 2 <= 1 ->
  forall y, norm y <= 1 -> extra y -> 0 < F (c + L *m y) ->
  exists2 u : 'cV[R]_d, norm u <= 1
    & c + L *m y = (c + tc *: (L *m n)) + L *m (sp%:M + (sn - sp) *: (n *m n^T)) *m u.
Proof. exact: Regions.contraction. Qed.

(** A tree whose leaves hold no counter-example, and whose nodes' children hold all those of the node, proves its
    root. *)
Theorem tree_sound T (bad : T -> Prop) (t : Regions.tree T) :
  Regions.proved bad t -> forall x, Regions.root t x -> ~ bad x.
Proof. exact: Regions.tree_sound. Qed.

(** * Softmax. Scores centred so that [sum p c = 0]; [E j] stands for [exp (c j)], and only [1 + c j <= E j] is used. *)

(** [e j] and [e' j] bound what the first and the second order of [E j] leave out. *)
Theorem softmax_remainder (R : rcfType) d n (p c E e e' : 'I_n -> R) (v : 'I_n -> 'cV[R]_d) :
  (forall j, 0 <= p j) -> \sum_j p j = 1 -> \sum_j p j * c j = 0 -> (forall j, 1 + c j <= E j) ->
  (forall j, `|E j - 1 - c j| <= e j) -> (forall j, `|E j - 1 - c j - c j ^+ 2 / 2| <= e' j) ->
  let a := \sum_j p j *: v j in
  let Z := \sum_j p j * E j in
  let L := \sum_j (p j * c j) *: (v j - a) in
  let L2 := \sum_j (p j * (c j + c j ^+ 2 / 2)) *: (v j - a) in
  let a' := Z^-1 *: \sum_j (p j * E j) *: v j in
  [/\ 1 <= Z, norm (a' - a - L) <= \sum_j p j * e j * norm (v j - a - L)
    & norm (a' - a - L2) <= \sum_j p j * e' j * norm (v j - a) + (\sum_j p j * e j) * norm L2].
Proof.
move=> h0 h1 hc hE he he'; split; first exact: (Softmax.normaliser_ge1 h0 h1 hc hE).
  exact: (Softmax.softmax_remainder v h0 h1 hc hE he).
exact: (Softmax.softmax_second v h0 h1 hc hE he he').
Qed.

(** Exact forms: a quotient, which [Z >= 1] drops, and what its numerator holds. *)
Theorem softmax_quotient (R : rcfType) d n (p c E : 'I_n -> R) (v : 'I_n -> 'cV[R]_d) :
  (forall j, 0 <= p j) -> \sum_j p j = 1 -> \sum_j p j * c j = 0 -> (forall j, 1 + c j <= E j) ->
  let a := \sum_j p j *: v j in
  let Z := \sum_j p j * E j in
  let N := \sum_j (p j * E j) *: (v j - a) in
  let L := \sum_j (p j * c j) *: (v j - a) in
  let L2 := \sum_j (p j * (c j + c j ^+ 2 / 2)) *: (v j - a) in
  [/\ Z^-1 *: (\sum_j (p j * E j) *: v j) - a = Z^-1 *: N,
      forall u : 'cV[R]_d, norm (Z^-1 *: N - u) <= norm (N - Z *: u),
      N - Z *: L = \sum_j (p j * (E j - 1 - c j)) *: (v j - a - L)
    & N - Z *: L2 = \sum_j (p j * (E j - 1 - c j - c j ^+ 2 / 2)) *: (v j - a) - (Z - 1) *: L2].
Proof.
move=> h0 h1 hc hE; split=> [|u||]; first exact: (Softmax.change_quotient v h0 h1 hc hE).
- exact: (Softmax.quotient_drop h0 h1 hc hE).
- exact: (Softmax.numerator_remainder E v h1 hc).
exact: (Softmax.numerator_second c E v h1).
Qed.

(** * Normalisation: the inverse root, with rational factors *)

Theorem inverse_root_first (R : rcfType) (x : R) : -1 < x ->
  0 <= (Num.sqrt (1 + x))^-1 - (1 - x / 2) <= 3 / 8 * x ^+ 2 * Num.max 1 (1 + x)^-1.
Proof. exact: Normalisation.inverse_root_first. Qed.

Theorem inverse_root_second (R : rcfType) (x : R) : -1 < x ->
  `|(Num.sqrt (1 + x))^-1 - (1 - x / 2 + 3 / 8 * x ^+ 2)| <= 5 / 16 * `|x| ^+ 3 * Num.max 1 (1 + x)^-1.
Proof. exact: Normalisation.inverse_root_second. Qed.

Theorem inverse_root_second_abs (R : rcfType) (x : R) : `|x| < 1 ->
  `|(Num.sqrt (1 + x))^-1 - (1 - x / 2 + 3 / 8 * x ^+ 2)| <= 5 / 16 * `|x| ^+ 3 / (1 - `|x|).
Proof. exact: Normalisation.inverse_root_second_abs. Qed.

(** What the inverse root is taken of when a vector [z] moves by [u]. *)
Theorem normalisation_scale (R : rcfType) d (z u : 'cV[R]_d) c :
  let m := dot z z + c in 0 < m ->
  let x := (2 * dot z u + dot u u) / m in
  (Num.sqrt (dot (z + u) (z + u) + c))^-1 = (Num.sqrt m)^-1 * (Num.sqrt (1 + x))^-1.
Proof. exact: Normalisation.normalisation_scale. Qed.

(** * Drift, and every radius *)

Theorem every_radius (R : rcfType) d (F : 'cV[R]_d -> R) (cell : 'cV[R]_d -> Prop) r u :
  (forall delta, cell delta -> norm delta <= r) ->
  (forall delta, cell delta -> norm delta <= r -> F delta <= u) -> forall delta, cell delta -> F delta <= u.
Proof. exact: Drift.every_radius. Qed.

(** [E] holds the columns that may drift, [B] and [s] the half-spaces; [mu] and [nu >= 0] are any multipliers. *)
Theorem drift_bound (R : rcfType) d k n (E : 'M[R]_(d, k)) (B : 'M[R]_(n, d)) (g delta : 'cV[R]_d) (mu : 'cV[R]_k)
    (nu s : 'cV[R]_n) t eps :
  norm (E^T *m delta) <= t -> (forall i, (B *m delta) i 0 <= s i 0) -> nonneg nu -> norm delta <= eps ->
  dot g delta <= t * norm mu + dot nu s + eps * norm (g - E *m mu - B^T *m nu).
Proof. by move=> *; apply: Drift.drift_bound. Qed.

Theorem drift_bound_each (R : rcfType) d k n (E : 'M[R]_(d, k)) (B : 'M[R]_(n, d)) (g delta : 'cV[R]_d)
    (mu t : 'cV[R]_k) (nu s : 'cV[R]_n) eps :
  (forall j, `|(E^T *m delta) j 0| <= t j 0) -> (forall i, (B *m delta) i 0 <= s i 0) -> nonneg nu ->
  norm delta <= eps ->
  dot g delta <= \sum_j `|mu j 0| * t j 0 + dot nu s + eps * norm (g - E *m mu - B^T *m nu).
Proof. by move=> *; apply: Drift.drift_bound_each. Qed.

(** Some [mu] leaves of [g] exactly what exact holding leaves. *)
Theorem drift_projected (R : rcfType) d k (E : 'M[R]_(d, k)) (P : 'M[R]_d) (g : 'cV[R]_d) : is_orthproj E P ->
  exists2 mu : 'cV[R]_k, g - E *m mu = P *m g
    & forall delta t eps, norm (E^T *m delta) <= t -> norm delta <= eps ->
        dot g delta <= t * norm mu + eps * norm (P *m g).
Proof. exact: Drift.drift_projected. Qed.
