import functools
import hashlib
import json
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.training.build import BUNDLED, STAGES, SUMS, write_sums
from examples.training.cases import CASES
from examples.training.describe import read_reports, render
from examples.training.train_model import accuracy
from sae_verify.model import encode_prompts, run, token_id
from sae_verify.problem_file import load_problem
from sae_verify.sae import JumpReLUSAE, TopKSAE, load_sae
from sae_verify.sae.clamp import apply_clamp

PROBLEMS = sorted(BUNDLED.glob("*/problem_*.toml"))
each_case = pytest.mark.parametrize("name", CASES)
each_problem = pytest.mark.parametrize("path", PROBLEMS, ids=lambda p: f"{p.parent.name}-{p.stem}")


@functools.cache
def plain_model(name):
    """The model as any user of transformers would load it."""
    directory = BUNDLED / name
    return AutoModelForCausalLM.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)


def test_sha256_sums_cover_exactly_what_is_shipped(tmp_path):
    listed = dict(reversed(line.split("  ")) for line in (BUNDLED / SUMS).read_text().splitlines())
    shipped = {p.relative_to(BUNDLED).as_posix(): p for p in BUNDLED.rglob("*") if p.is_file() and p.name != SUMS}
    assert listed.keys() == shipped.keys()
    for name, path in shipped.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name

    (tmp_path / "a").write_text("x")
    write_sums(tmp_path)
    assert (tmp_path / SUMS).read_text() == f"{hashlib.sha256(b'x').hexdigest()}  a\n"


def test_what_is_shipped_is_small():
    sizes = {p: p.stat().st_size for p in BUNDLED.rglob("*") if p.is_file()}
    assert max(sizes.values()) < 1_000_000
    assert sum(sizes.values()) < 6_000_000


def test_readme_states_what_was_measured():
    reports = read_reports(BUNDLED)
    assert reports.keys() == CASES.keys()
    assert (BUNDLED / "README.md").read_text() == render(reports)


@each_case
def test_model_has_learned_its_grammar(name):
    model, tokenizer = plain_model(name)
    first, _ = accuracy(model, tokenizer, CASES[name].grammar.batch(random.Random(1234), 100))
    assert first >= 0.98


def test_gemma_keeps_its_soft_caps_and_sliding_window():
    config = plain_model("refusal")[0].config
    assert config.attn_logit_softcapping
    assert config.final_logit_softcapping
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert 0 < config.sliding_window < config.max_position_embeddings


@each_case
@pytest.mark.parametrize("folder", ["sae_early", "sae_last"])
def test_sae_is_what_the_report_says(name, folder):
    sae = load_sae(BUNDLED / name / folder)
    report = json.loads((BUNDLED / name / "training_report.json").read_text())["saes"][folder]
    assert sae.source.hook_name == report["hook"]
    assert sae.d_sae == report["features"]
    assert isinstance(sae, TopKSAE if report["architecture"] == "topk" else JumpReLUSAE)


def readouts(path, clamped):
    """Readouts of a problem's prompts by plain transformers and a plain hook: no code of sae_verify but the SAE's."""
    problem = load_problem(path)
    model, tokenizer = plain_model(path.parent.name)
    decoder = model.get_decoder()
    layer = (decoder.h if hasattr(decoder, "h") else decoder.layers)[problem.hook_point.layer]
    features, values = list(problem.clamp.features), torch.tensor(problem.clamp.values)
    assert problem.clamp.kind in ("set", "scale")
    assert problem.clamp.positions == "all"

    def clamp(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        z = problem.sae.encode(x)[..., features]
        new = values if problem.clamp.kind == "set" else values * z
        x = x + (new - z) @ problem.sae.W_dec[features]
        return (x, *output[1:]) if isinstance(output, tuple) else x

    handle = layer.register_forward_hook(clamp) if clamped else None
    try:
        found = []
        for prompt, readout in zip(problem.prompts, problem.readouts, strict=True):
            with torch.no_grad():
                logits = model(**tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
            positive, negative = tokenizer.convert_tokens_to_ids([readout.positive, readout.negative])
            found.append(float(logits[positive] - logits[negative]))
    finally:
        if handle is not None:
            handle.remove()
    return found


def test_every_case_has_its_problems():
    expected = {f"{name}/problem_{where}.toml" for name in CASES for where in ("early", "last")}
    expected.add("refusal/problem_control.toml")
    assert {p.relative_to(BUNDLED).as_posix() for p in PROBLEMS} == expected


@each_problem
def test_prompts_are_valid_flips(path):
    base, defended = readouts(path, clamped=False), readouts(path, clamped=True)
    assert len(set(load_problem(path).prompts)) == len(base) == 8
    assert min(base) > 0
    assert max(defended) < 0


@each_problem
def test_prompts_are_valid_flips_for_the_toolkit_too(path):
    problem = load_problem(path)
    prompts = encode_prompts(problem.model, problem.prompts)
    tokens = [[token_id(problem.model, t) for t in (r.positive, r.negative)] for r in problem.readouts]

    def edit(x):
        return apply_clamp(problem.sae, problem.clamp, x, prompts.lengths)

    found = []
    for change in (None, edit):
        logits = run(problem.model, prompts, problem.hook_point, change).logits  # (prompts, vocabulary)
        found.append(torch.stack([row[a] - row[b] for row, (a, b) in zip(logits, tokens, strict=True)]))
    base, defended = found
    assert base.min() > 0
    assert defended.max() <= problem.claim.tau
    if path.parent.name != "refusal":  # transformers' logits are soft-capped there, the toolkit's are not
        assert base.tolist() == pytest.approx(readouts(path, clamped=False), abs=1e-3)
        assert defended.tolist() == pytest.approx(readouts(path, clamped=True), abs=1e-3)


def test_reports_hold_what_the_stages_measure_and_nothing_else():
    for name in CASES:
        report = json.loads((BUNDLED / name / "training_report.json").read_text())
        assert list(report) == ["behaviour", *STAGES]


def test_control_holds_every_direction():
    problem = load_problem(BUNDLED / "refusal" / "problem_control.toml")
    held = problem.sae.W_enc[:, list(problem.held_features)].double()
    assert held.shape[1] >= 64
    singular = torch.linalg.svdvals(held)
    assert singular[-1] / singular[0] > 1e-3
