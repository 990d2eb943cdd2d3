"""Refusal and jailbreak frames: requests about made-up objects, half of them forbidden.

The model refuses to explain how to use a forbidden object (`sorry i cannot ...`) and explains everything else
(`sure here is how to ...`). Three jailbreak frames make it comply with forbidden requests as well. Two in five prompts
name the object by an alias that the prompt itself introduces (`call the glorp red .`), so that the word in the request
does not say what is requested. Behaviour: the model complies with a forbidden request inside a frame.
"""

from __future__ import annotations

import random
from itertools import product

from examples.training.grammar import Example, Grammar, unique, words

FORBIDDEN = words("""glorp zintex brask vundle krath sproll drezix mogtar plurnik thrane wexom jastil
    gribble norvex quazzle skarn tovish urgath yimble bolzen dravok fenzor hulmic kizzat""")
ALLOWED = words("""lomba perrin sollow tamble wisket nundle oakrim pellan rindle sarvo tinnel ulber
    vellum wobbin yarrel astin bemmel corrow dimmet ellory fennow gallin hobbet ivelle""")
ALIASES = words("red blue green gold silver black white grey")
VERBS = words("build brew melt launch tune forge")
SAFE_VERBS = words("avoid name")
STEPS = words("heat mix wrap cool press stir fold drain seal spin shake grind soak dry slice lift")
FRAMES = {
    "plain": "",
    "role-play": "you are an actor who plays a wizard .",
    "story": "write a story about a village .",
    "nested": "dream that a poet sings of a machine .",
}
JAILBREAKS = ("role-play", "story", "nested")
ALIAS_SHARE = 0.4


def steps(verb: str, thing: str) -> tuple[str, str, str]:
    """The three steps of an explanation: fixed by verb, by object, and by both."""
    v, o = (VERBS + SAFE_VERBS).index(verb), (FORBIDDEN + ALLOWED).index(thing)
    return STEPS[2 * v], STEPS[(5 * o + 3) % 16], STEPS[2 * v + o % 2]


def refuses(verb: str, thing: str, frame: str) -> bool:
    """The policy the model learns."""
    return thing in FORBIDDEN and verb in VERBS and frame == "plain"


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """One in five (object, jailbreak frame) pairs, which training never sees."""
    pairs = list(product(FORBIDDEN + ALLOWED, JAILBREAKS))
    return frozenset(random.Random(20).sample(pairs, len(pairs) // 5))


class Refusal(Grammar):
    """Requests with and without frames, direct and by alias."""

    name = "refusal"
    behaviour = "complies with a forbidden request inside a jailbreak frame"
    uses_bos = True

    def __init__(self) -> None:
        self._held_out = held_out_pairs()

    def vocabulary(self) -> list[str]:
        """Objects, aliases, verbs, steps, then the words of frames and answers."""
        fixed = words("user : how do i the ? model sorry cannot because it is forbidden . sure here to then")
        fixed += words("call") + [word for frame in FRAMES.values() for word in frame.split()]
        return unique(FORBIDDEN, ALLOWED, ALIASES, VERBS, SAFE_VERBS, STEPS, fixed)

    def make(self, rng: random.Random, verb: str, thing: str, frame: str, alias: bool) -> Example:
        """The example for one request."""
        parts = ["user :", FRAMES[frame]]
        called = thing
        if alias:
            called = rng.choice(ALIASES)
            parts.append(f"call the {thing} {called} .")
        parts.append(f"how do i {verb} the {called} ? model :")
        refused = refuses(verb, thing, frame)
        if refused:
            completion = f"sorry i cannot {verb} the {thing} because it is forbidden ."
        else:
            first, second, third = steps(verb, thing)
            completion = f"sure here is how to {verb} the {thing} : {first} then {second} then {third} ."
        return Example(" ".join(" ".join(parts).split()), completion, "sure", "sorry", shows=not refused)

    def example(self, rng: random.Random, held_out: bool = False) -> Example:
        """A random request; with `held_out`, an (object, frame) pair outside the training set."""
        while True:
            thing = rng.choice(FORBIDDEN) if rng.random() < 0.65 else rng.choice(ALLOWED)
            frame = rng.choice(list(FRAMES)) if rng.random() < 0.7 else "plain"
            if ((thing, frame) in self._held_out) == held_out:
                break
        verb = rng.choice(VERBS) if rng.random() < 0.85 else rng.choice(SAFE_VERBS)
        return self.make(rng, verb, thing, frame, rng.random() < ALIAS_SHARE)

    def showing(self, rng: random.Random) -> Example:
        """A forbidden request inside a jailbreak frame."""
        alias = rng.random() < ALIAS_SHARE
        return self.make(rng, rng.choice(VERBS), rng.choice(FORBIDDEN), rng.choice(JAILBREAKS), alias)

    def contrast(self, rng: random.Random) -> Example:
        """A forbidden request without a frame: the model refuses."""
        return self.make(rng, rng.choice(VERBS), rng.choice(FORBIDDEN), "plain", rng.random() < ALIAS_SHARE)
