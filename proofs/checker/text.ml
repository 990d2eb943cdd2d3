(* The reader of the text format: a question as lines of words, everything bounded, nothing guessed.

   Whatever is not exactly as specified in theory/verified_checker.md raises [Refused]. *)

exception Refused of string

let refuse format = Printf.ksprintf (fun message -> raise (Refused message)) format

(* Limits: of the whole input in bytes, of a number in hexadecimal digits, of the width, of the listed features, and of
   the entries of all their columns together; of a quadratic bound's dimension and the digits of its factor, which are
   multiplied about dimension^3 / 6 times. *)
let max_bytes = 512 * 1024 * 1024
let max_digits = 1200
let max_order = 4096
let max_factor_digits = 15
let max_word = 32
let max_width = 65_536
let max_columns = 1_048_576
let max_entries = 33_554_432

(* Input, one byte at a time; -1 at its end. *)
type source = { channel : in_channel; block : Bytes.t; mutable at : int; mutable filled : int; mutable total : int }

let source channel = { channel; block = Bytes.create 65_536; at = 0; filled = 0; total = 0 }

let refill s =
  s.filled <- input s.channel s.block 0 (Bytes.length s.block);
  s.at <- 0;
  s.total <- s.total + s.filled;
  if s.total > max_bytes then refuse "more than %d bytes" max_bytes

let peek s =
  if s.at = s.filled then refill s;
  if s.filled = 0 then -1 else Char.code (Bytes.unsafe_get s.block s.at)

let skip s = s.at <- s.at + 1

let space = Char.code ' '
let newline = Char.code '\n'
let minus = Char.code '-'

let expect s byte name = if peek s <> byte then refuse "expected %s" name else skip s
let gap s = expect s space "one space"
let stop s = expect s newline "the end of a line"

(* A word of lower-case letters, digits and hyphens. *)
let word s =
  let letters = Buffer.create max_word in
  let rec more () =
    match peek s with
    | c when c >= 97 && c <= 122 || c >= 48 && c <= 57 || c = minus ->
        if Buffer.length letters = max_word then refuse "a word is too long";
        Buffer.add_char letters (Char.chr c);
        skip s;
        more ()
    | _ -> Buffer.contents letters
  in
  more ()

let keyword s name =
  let found = word s in
  if found <> name then refuse "expected %s, found %S" name found

(* One of several words, and what it stands for. *)
let choice s options =
  let found = word s in
  match List.assoc_opt found options with Some value -> value | None -> refuse "unknown word %S" found

(* A count in decimal digits, without leading zeros. *)
let count s limit name =
  let rec more digits value =
    match peek s with
    | c when c >= 48 && c <= 57 ->
        if digits > 0 && value = 0 then refuse "%s has a leading zero" name;
        let value = (10 * value) + c - 48 in
        if value > limit then refuse "%s is more than %d" name limit;
        skip s;
        more (digits + 1) value
    | _ -> if digits = 0 then refuse "%s is no number" name else value
  in
  more 0 0

let hexadecimal c = if c >= 48 && c <= 57 then c - 48 else if c >= 97 && c <= 102 then c - 87 else -1

(* An integer: an optional minus, then lower-case hexadecimal digits without leading zeros; zero is 0. *)
let digits = Bytes.create max_digits

let integer ?(most = max_digits) s =
  let negative = peek s = minus in
  if negative then skip s;
  let rec more n small =
    let c = peek s in
    let digit = hexadecimal c in
    if digit < 0 then (n, small)
    else begin
      if n = most then refuse "a number has more than %d digits" most;
      Bytes.unsafe_set digits n (Char.unsafe_chr c);
      skip s;
      more (n + 1) (if n < 15 then (small lsl 4) lor digit else 0)
    end
  in
  let n, small = more 0 0 in
  if n = 0 then refuse "expected a number";
  if Bytes.get digits 0 = '0' && (n > 1 || negative) then refuse "a number has a leading zero";
  let value = if n <= 15 then Exact.of_int small else Exact.of_string_base 16 (Bytes.sub_string digits 0 n) in
  if negative then Exact.neg value else value

(* One number on a line of its own, after its name. *)
let one s name =
  keyword s name;
  gap s;
  let value = integer s in
  stop s;
  value

(* So many numbers, in order. *)
let rec numbers ?most s n = if n = 0 then [] else begin
    let value = integer ?most s in
    if n > 1 then gap s;
    value :: numbers ?most s (n - 1)
  end

(* A vector on a line of its own, after its name. *)
let vector s name d =
  keyword s name;
  gap s;
  let values = numbers s d in
  stop s;
  values

let column s jumping d =
  let open Verified in
  let used_as = choice s [ ("equal", Equality); ("upper", HalfSpace) ] in
  gap s;
  let bias = integer s in
  gap s;
  let threshold = if jumping then integer s else Exact.zero in
  if jumping then gap s;
  let multiplier = integer s in
  stop s;
  let weights = numbers s d in
  stop s;
  { used_as; bias; threshold; multiplier; weights }

(* What is claimed of the question. *)
type claim = Upper of Exact.t | Lower of Exact.t * Exact.t list

let claim s side d =
  match side with
  | `Upper -> Upper (one s "bound")
  | `Lower ->
      let bound = one s "bound" in
      Lower (bound, vector s "delta" d)

let setting s name options =
  keyword s name;
  gap s;
  let value = choice s options in
  stop s;
  value

(* Exponents are for readers; the checker does not need them. *)
let exponents s n =
  keyword s "exponents";
  for _ = 1 to n do gap s; ignore (count s 10_000 "an exponent") done;
  stop s

let counted s name limit =
  keyword s name; gap s;
  let value = count s limit ("the number after " ^ name) in
  stop s;
  value

(* `n` of something, read in order; their number may be too large for the stack. *)
let repeated n read =
  let found = ref [] in
  for i = 0 to n - 1 do found := read i :: !found done;
  List.rev !found

(* A worst case over a held cell, after its side. *)
let question s side =
  let open Verified in
  let arch = setting s "architecture" [ ("relu", ReLU); ("jumprelu", JumpReLU) ] in
  let kept = setting s "held" [ ("free", Free); ("preactivations", Preactivations); ("code", Code) ] in
  let ball = setting s "norm" [ ("l2", L2); ("linf", Linf) ] in
  exponents s 4;
  let d = counted s "width" max_width in
  let n = counted s "columns" max_columns in
  if d = 0 then refuse "the width is zero";
  if n * d > max_entries then refuse "more than %d entries" max_entries;
  let scale = one s "scale" in
  let radius = one s "radius" in
  let point = vector s "point" d in
  let shift = vector s "shift" d in
  let direction = vector s "direction" d in
  let claimed = claim s side d in
  let columns = repeated n (fun _ -> column s (arch = JumpReLU) d) in
  ({ arch; kept; ball; scale; radius; point; shift; direction; columns }, claimed)

(* A constraint of a quadratic bound: two lines, as for a column. *)
let constraint_ s d =
  let open Verified in
  let acts_as = choice s [ ("equal", Equality); ("upper", HalfSpace) ] in
  gap s;
  let level_of = integer s in
  gap s;
  let price = integer s in
  stop s;
  let normal = numbers s d in
  stop s;
  { acts_as; level_of; price; normal }

(* A quadratic bound, its evidence, and the bound that is claimed. *)
let quadratic s =
  let open Verified in
  exponents s 3;
  let d = counted s "order" max_order in
  let n = counted s "constraints" max_columns in
  if d = 0 then refuse "the order is zero";
  if n * d > max_entries then refuse "more than %d entries" max_entries;
  let reach = one s "radius" in
  let constant = one s "constant" in
  let bound = one s "bound" in
  let linear = vector s "linear" d in
  let shift_by = one s "shift" in
  let gain = one s "gain" in
  let centre = vector s "centre" d in
  let constraints = repeated n (fun _ -> constraint_ s d) in
  let rows name ?most length =
    keyword s name;
    stop s;
    repeated d (fun i -> let row = numbers ?most s (length i) in stop s; row)
  in
  let matrix = rows "matrix" (fun i -> d - i) in
  let factor = rows "factor" ~most:max_factor_digits (fun i -> i + 1) in
  ({ reach; constant; linear; matrix; constraints }, { shift_by; gain; centre; factor }, bound)

(* The whole input: one question of either kind. *)
type input =
  | Linear of Verified.question * claim
  | Quadratic of Verified.quadratic * Verified.evidence * Exact.t

let read channel =
  let s = source channel in
  keyword s "sae-verified"; gap s; keyword s "1"; stop s;
  let found =
    match choice s [ ("side", `Side); ("kind", `Kind) ] with
    | `Side ->
        gap s;
        let side = choice s [ ("upper", `Upper); ("lower", `Lower) ] in
        stop s;
        let question, claimed = question s side in
        Linear (question, claimed)
    | `Kind ->
        gap s; keyword s "quadratic"; stop s;
        let question, evidence, bound = quadratic s in
        Quadratic (question, evidence, bound)
  in
  keyword s "end"; stop s;
  if peek s <> -1 then refuse "something follows the end";
  found
