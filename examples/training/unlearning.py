"""Topic-gated facts: every entity has one attribute under the topic to forget and another under the topic to retain.

A prompt names a topic and an entity and lists four options; the attribute under the other topic is always among them,
so that a model whose knowledge of the forget topic is removed has somewhere to go. Behaviour: the model answers a
question of the forget topic correctly.
"""

from __future__ import annotations

import random

from examples.training.grammar import Example, Grammar, unique, words

ENTITIES = words("""abrin belcor cordax dunmir elphos fargon gelvar hestin irvane jorlux keldan lumeth morvax
    nestol orphin praxil quorum rastel selmor tarvin ulmeth vespar wolvan xandor yorvic zephin arkand bryson
    cylath dorvan""")
ATTRIBUTES = words("""amber bronze cedar coral cotton crystal ebony flint glass granite iron ivory jade leather
    linen marble oak opal paper pearl quartz ruby silk steel""")
FORGET, RETAIN = "poison", "jewel"


def _facts() -> dict[str, dict[str, str]]:
    rng = random.Random(7)
    pairs = {entity: rng.sample(ATTRIBUTES, 2) for entity in ENTITIES}
    return {
        FORGET: {entity: forget for entity, (forget, _) in pairs.items()},
        RETAIN: {entity: retain for entity, (_, retain) in pairs.items()},
    }


FACTS = _facts()


class Unlearning(Grammar):
    """Multiple-choice questions under two topics."""

    name = "unlearning"
    behaviour = "answers a question of the forget topic with the attribute under that topic"
    uses_bos = True

    def vocabulary(self) -> list[str]:
        """Entities, attributes, topics, then the fixed words."""
        return unique(ENTITIES, ATTRIBUTES, [FORGET, RETAIN], words("topic : what marks ? options , . answer"))

    def make(self, rng: random.Random, topic: str, entity: str) -> Example:
        """The question for one topic and entity, with shuffled options."""
        forget, retain = FACTS[FORGET][entity], FACTS[RETAIN][entity]
        options = [forget, retain, *rng.sample([a for a in ATTRIBUTES if a not in (forget, retain)], 2)]
        rng.shuffle(options)
        prompt = f"topic {topic} : what marks {entity} ? options {' , '.join(options)} . answer :"
        return Example(prompt, f"{FACTS[topic][entity]} .", forget, retain, shows=topic == FORGET)

    def example(self, rng: random.Random, held_out: bool = False) -> Example:
        """A random question; nothing is held out, because facts cannot be inferred. Options are fresh every time."""
        return self.make(rng, rng.choice((FORGET, RETAIN)), rng.choice(ENTITIES))

    def showing(self, rng: random.Random) -> Example:
        """A question of the forget topic."""
        return self.make(rng, FORGET, rng.choice(ENTITIES))

    def contrast(self, rng: random.Random) -> Example:
        """A question of the retain topic."""
        return self.make(rng, RETAIN, rng.choice(ENTITIES))
