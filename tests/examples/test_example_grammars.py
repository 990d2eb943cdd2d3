import random

import pytest

from examples.training import refusal, unlearning
from examples.training.cases import CASES
from examples.training.models import CONTEXT, make_tokenizer

GRAMMARS = {name: case.grammar for name, case in CASES.items()}
each_grammar = pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS.keys())


@each_grammar
def test_vocabulary_is_small_and_covers_every_example(grammar):
    vocabulary = grammar.vocabulary()
    assert len(set(vocabulary)) == len(vocabulary) < 200
    rng = random.Random(0)
    examples = [e for _ in range(300) for e in (grammar.example(rng), grammar.showing(rng), grammar.contrast(rng))]
    used = {word for e in examples for word in [*e.prompt.split(), *e.completion.split(), e.positive, e.negative]}
    assert used <= set(vocabulary)
    assert max(len(f"{e.prompt} {e.completion}".split()) for e in examples) < CONTEXT


@each_grammar
def test_readout_tokens_decide_the_answer(grammar):
    rng = random.Random(1)
    for _ in range(200):
        for example in (grammar.example(rng), grammar.showing(rng), grammar.contrast(rng)):
            assert example.positive != example.negative
            assert (example.answer == example.positive) == example.shows
            assert example.answer in (example.positive, example.negative)
        assert grammar.showing(rng).shows
        assert not grammar.contrast(rng).shows


@each_grammar
def test_same_seed_same_examples(grammar):
    assert grammar.batch(random.Random(5), 50) == grammar.batch(random.Random(5), 50)


@each_grammar
def test_tokenizer_knows_one_token_a_word_and_an_unknown_one(grammar):
    tokenizer = make_tokenizer(grammar)
    example = grammar.example(random.Random(2))
    ids = tokenizer(example.prompt)["input_ids"]
    assert len(ids) == len(example.prompt.split()) + grammar.uses_bos
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("antidisestablishmentarianism", add_special_tokens=False)["input_ids"] == [tokenizer.unk_token_id]


def test_indirect_object_is_the_name_that_occurs_once():
    rng = random.Random(3)
    for _ in range(200):
        example = GRAMMARS["indirect_object"].example(rng)
        words = example.prompt.split()
        assert (words.count(example.positive), words.count(example.negative)) == (1, 2)


def test_refusal_policy():
    assert refusal.refuses("build", refusal.FORBIDDEN[0], "plain")
    assert not refusal.refuses("avoid", refusal.FORBIDDEN[0], "plain")
    assert not refusal.refuses("build", refusal.ALLOWED[0], "plain")
    assert not any(refusal.refuses("build", refusal.FORBIDDEN[0], frame) for frame in refusal.JAILBREAKS)


def test_refusal_alias_replaces_the_object_in_the_request():
    example = refusal.Refusal().make(random.Random(0), "build", "glorp", "story", alias=True)
    request = example.prompt.split(" . ")[-1].split()
    assert "glorp" not in request
    assert set(request) & set(refusal.ALIASES)
    assert "glorp" in example.completion.split()


def test_refusal_held_out_pairs_are_never_drawn_in_training():
    rng, pairs = random.Random(4), refusal.held_out_pairs()
    assert len(pairs) == len(refusal.JAILBREAKS) * 48 // 5
    grammar, drawn = refusal.Refusal(), []
    for held_out in (False, True):
        for example in grammar.batch(rng, 400, held_out):
            thing = next(t for t in refusal.FORBIDDEN + refusal.ALLOWED if t in example.prompt.split())
            frames = [f for f, text in refusal.FRAMES.items() if text and text in example.prompt]
            drawn.append(((thing, frames[0] if frames else "plain") in pairs) == held_out)
    assert all(drawn)


def test_unlearning_options_hold_both_attributes():
    rng = random.Random(5)
    for _ in range(200):
        example = GRAMMARS["unlearning"].example(rng)
        assert {example.positive, example.negative} <= set(example.prompt.split())
    forget, retain = unlearning.FACTS[unlearning.FORGET], unlearning.FACTS[unlearning.RETAIN]
    assert all(forget[entity] != retain[entity] for entity in unlearning.ENTITIES)
