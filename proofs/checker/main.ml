(* The driver: one question of either kind on standard input; 0 accepts, 4 rejects with the reason on standard error. *)

let rejected = 4

let reason why =
  match (why : Verified.reason) with
  | ScaleNotPositive -> "the input scale is not positive"
  | RadiusNegative -> "the radius is negative"
  | LengthsDiffer -> "vectors differ in length"
  | NotHeld -> "what is held gives no such constraint"
  | MayBeOff -> "an equality is used for a feature that is off"
  | MultiplierNegative -> "a half-space has a negative multiplier"
  | RootTooSmall -> "the square root is too small"
  | BoundExceeded -> "the dual value exceeds the bound"
  | OutsideBall -> "the point lies outside the ball"
  | NotKept -> "the point does not keep a feature"
  | BoundNotReached -> "the point does not reach the bound"
  | ShiftNegative -> "the shift or the gain is negative"
  | NotDominant -> "the shifted matrix less the factor's is not diagonally dominant"

(* The square root, rounded up; the checker does not rely on it. *)
let root square =
  let low = Exact.sqrt square in
  if Exact.equal (Exact.mul low low) square then low else Exact.succ low

let reject message =
  prerr_endline ("rejected: " ^ message);
  exit rejected

let () =
  set_binary_mode_in stdin true;
  match
    match Text.read stdin with
    | Text.Linear (question, Text.Upper bound) -> Verified.check_upper root question bound
    | Text.Linear (question, Text.Lower (bound, delta)) -> Verified.check_lower question bound delta
    | Text.Quadratic (question, evidence, bound) -> Verified.check_quadratic root question evidence bound
  with
  | Verified.Good () -> print_endline "accepted"
  | Verified.Bad why -> reject (reason why)
  | exception Text.Refused message -> reject message
  | exception Stack_overflow -> reject "out of stack"
  | exception Out_of_memory -> reject "out of memory"
  | exception error -> reject (Printexc.to_string error)
