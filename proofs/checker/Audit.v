(* What the theorems rest on; the audit compares this file's output with Audit.expected. *)

From mathcomp Require Import all_ssreflect all_algebra.
From SaeVerified Require Import Check Meaning Sound Quadratic QuadraticMeaning QuadraticSound.
Import GRing.Theory Num.Theory.
Local Open Scope ring_scope.

Check check_upper_sound.
Check check_upper_floats.
Check check_lower_sound.
Check check_quadratic_sound.
Check check_quadratic_floats.
Print Assumptions check_upper_sound.
Print Assumptions check_upper_floats.
Print Assumptions check_lower_sound.
Print Assumptions check_quadratic_sound.
Print Assumptions check_quadratic_floats.
