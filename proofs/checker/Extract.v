(* The checker as OCaml. Trusted: the extraction itself, and that the zarith functions named here are those of Z. *)

From Coq Require Import ZArith Extraction ExtrOcamlBasic.
From SaeVerified Require Import Check Quadratic.

Extraction Language OCaml.

(* Binary integers are those of zarith; exact.ml gives them the name Exact, since the extraction makes a module Z of its
   own, and says how they are built and taken apart. *)
Extract Inductive positive => "Exact.t" [ "Exact.double_succ" "Exact.double" "Exact.one" ] "Exact.positive_case".
Extract Inductive Z => "Exact.t" [ "Exact.zero" "" "Exact.neg" ] "Exact.integer_case".

Extract Inlined Constant Z.add => "Exact.add".
Extract Inlined Constant Z.sub => "Exact.sub".
Extract Inlined Constant Z.mul => "Exact.mul".
Extract Inlined Constant Z.abs => "Exact.abs".
Extract Inlined Constant Z.max => "Exact.max".
Extract Inlined Constant Z.eqb => "Exact.equal".
Extract Inlined Constant Z.leb => "Exact.leq".
Extract Inlined Constant Z.ltb => "Exact.lt".

Extraction "verified.ml" check_upper check_lower check_quadratic.
