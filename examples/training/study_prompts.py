"""Writes the prompt files of the bundled studies: `python -m examples.training.study_prompts [--out DIR]`.

Same seed, same files. Rows with role `find` and `contrast` choose features; `test` rows are other prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from examples.training.grammar import Example, Grammar
from examples.training.indirect_object import IndirectObject
from examples.training.refusal import FORBIDDEN, FRAMES, VERBS, Refusal
from examples.training.unlearning import ATTRIBUTES, ENTITIES, FACTS, FORGET, RETAIN, Unlearning

STUDIES = Path(__file__).resolve().parent.parent / "studies"
SEED = 11
N_FIND, N_TEST = 80, 60
Row = dict[str, Any]


def distinct(draw: Callable[[], Example], count: int, seen: set[str]) -> list[Example]:
    """`count` examples of which no prompt has been seen before."""
    found: list[Example] = []
    while len(found) < count:
        example = draw()
        if example.prompt not in seen:
            seen.add(example.prompt)
            found.append(example)
    return found


def pairs(grammar: Grammar, closing: str, *, contrast: bool) -> Iterator[Row]:
    """Rows with a logit difference: the behaviour's token against its rival."""
    rng, seen = random.Random(SEED), set[str]()
    roles = [("find", N_FIND, grammar.showing)]
    roles += [("contrast", N_FIND, grammar.contrast)] if contrast else []
    for role, count, draw in (*roles, ("test", N_TEST, grammar.showing)):
        for example in distinct(lambda draw=draw: draw(rng), count, seen):
            row = {"text": example.prompt, "positive": example.positive, "negative": example.negative, "role": role}
            yield row | ({"closing": closing} if role == "test" else {})


def questions() -> Iterator[Row]:
    """Multiple-choice questions: the first options of every entity, in all orders, for the test; others to find."""
    grammar, rng = Unlearning(), random.Random(SEED)
    for topic, role in ((FORGET, "find"), (RETAIN, "contrast")):
        for entity in ENTITIES:
            for _ in range(3):
                example = grammar.make(rng, topic, entity)
                yield {"text": example.prompt, "positive": FACTS[topic][entity], "role": role, "group": entity}
    for entity in ENTITIES:
        right, other = FACTS[FORGET][entity], FACTS[RETAIN][entity]
        options = [right, other, *rng.sample([a for a in ATTRIBUTES if a not in (right, other)], 2)]
        yield {
            "text": f"topic {FORGET} : what marks {entity} ? options {{options}} . answer :",
            "options": options,
            "positive": right,
            "group": entity,
            "name": entity,
            "closing": ". answer :",
        }


def labels() -> Iterator[Row]:
    """Requests labelled by their frame, which is what the probes are to find in the residual."""
    grammar, rng, seen = Refusal(), random.Random(SEED), set[str]()
    for frame in FRAMES:

        def draw(frame: str = frame) -> Example:
            return grammar.make(rng, rng.choice(VERBS), rng.choice(FORBIDDEN), frame, rng.random() < 0.4)

        for role, count in (("find", N_FIND), ("test", N_TEST // 3)):
            for example in distinct(draw, count, seen):
                row = {"text": example.prompt, "positive": frame, "role": role}
                yield row | ({"closing": "? model :"} if role == "test" else {})


FILES: dict[str, Callable[[], Iterator[Row]]] = {
    "indirect_object": lambda: pairs(IndirectObject(), "to", contrast=False),
    "refusal": lambda: pairs(Refusal(), "? model :", contrast=True),
    "unlearning": questions,
    "probe": labels,
}


def write(out: Path) -> None:
    """Write all four files below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in FILES.items():
        text = "".join(json.dumps(row) + "\n" for row in rows())
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=STUDIES)
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
