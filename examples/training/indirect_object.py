"""Indirect-object identification: `when mary and john went to the store john gave a drink to` -> `mary`.

Behaviour: the model names the indirect object (the name that occurs once) rather than the repeated subject.
"""

from __future__ import annotations

import random

from examples.training.grammar import Example, Grammar, unique, words

NAMES = words("""mary john anna paul lucy mark emma jack ruth adam jane luke rose owen kate sean lily noah nina eric
    vera hugo ella finn iris carl dora leon edna ivan faye kurt gina omar hope ross june troy myra walt""")
PLACES = words("""store park school office beach station museum garden market library harbour hotel farm theatre
    kitchen bakery""")
OBJECTS = words("""drink book ring letter ball map coat lamp key ticket flower basket pencil watch camera
    violin""")
TEMPLATES = (
    "when {a} and {b} went to the {p} {s} gave a {o} to",
    "after {a} and {b} arrived at the {p} {s} handed the {o} to",
    "then {a} and {b} had lunch at the {p} and {s} passed a {o} to",
    "while {a} and {b} were working at the {p} {s} offered the {o} to",
    "{a} and {b} met at the {p} where {s} sold a {o} to",
)


class IndirectObject(Grammar):
    """Five templates, both orders of the two names (ABBA and BABA)."""

    name = "indirect_object"
    behaviour = "names the indirect object rather than the repeated subject"
    uses_bos = False

    def vocabulary(self) -> list[str]:
        """Names, places, objects, then the words of the templates."""
        fixed = [word for template in TEMPLATES for word in template.split() if not word.startswith("{")]
        return unique(NAMES, PLACES, OBJECTS, fixed, ["."])

    def example(self, rng: random.Random, held_out: bool = False) -> Example:
        """A random example; nothing is held out, because names are drawn independently."""
        io, subject = rng.sample(NAMES, 2)
        first, second = (io, subject) if rng.random() < 0.5 else (subject, io)
        prompt = rng.choice(TEMPLATES).format(a=first, b=second, s=subject, p=rng.choice(PLACES), o=rng.choice(OBJECTS))
        return Example(prompt, f"{io} .", io, subject, shows=True)

    def showing(self, rng: random.Random) -> Example:
        """Every prompt of this grammar shows the behaviour."""
        return self.example(rng)

    def contrast(self, rng: random.Random) -> Example:
        """The same kind of prompt read the other way round: a fresh pair of names, readout reversed."""
        example = self.example(rng)
        return Example(example.prompt, example.completion, example.negative, example.positive, shows=False)
