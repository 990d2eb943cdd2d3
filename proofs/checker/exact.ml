(* Zarith's integers, under a name that the extraction does not use, with the constructors of Coq's binary integers. *)
include Z

let double p = Z.shift_left p 1
let double_succ p = Z.succ (Z.shift_left p 1)

(* How a positive number is taken apart: 2 p + 1, 2 p or 1. *)
let positive_case odd even last p =
  if Z.equal p Z.one then last () else if Z.is_odd p then odd (Z.shift_right p 1) else even (Z.shift_right p 1)

(* How an integer is taken apart: zero, a positive number, or minus a positive number. *)
let integer_case zero positive negative z =
  match Z.sign z with 0 -> zero () | s when s > 0 -> positive z | _ -> negative (Z.neg z)
