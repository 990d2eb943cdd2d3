"""Rebuilds the case `refusal_two_hop`: `python -m examples.training.build_two_hop [--out DIR] [--stages STAGE ...]`.

A case of its own beside those of `build`: two SAEs at one hook that differ in how many features may be on, a clamp for
each that is chosen to be selective, and what both are good for. Its problems are in a folder of their own, so that
`sae-verify demo` does not run them. Same seed, one thread, same processor family and library versions: the same files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import time
from pathlib import Path
from typing import Any

import torch

from examples.training.build import BUNDLED, N_TEST, _portable, make_readable, say, write_sums
from examples.training.describe_two_hop import render
from examples.training.models import llama, make_tokenizer
from examples.training.refusal_two_hop import RefusalTwoHop
from examples.training.selective import choose, plain_case, replay_shares, selectivity
from examples.training.train_model import Schedule, accuracy, train_model
from examples.training.train_saes import SAEPlan, train_case_sae
from examples.training.write_problem import write_problem
from sae_verify.discover import Subject
from sae_verify.model import load_model
from sae_verify.sae import load_sae

NAME = "refusal_two_hop"
HOOK = "blocks.1.hook_resid_post"
SCHEDULE = Schedule(steps=900, prompt_weight=0.1)
SPARSITIES = (12, 3)
RADIUS = 0.1


def build_model(directory: Path) -> dict[str, Any]:
    """Train and save model and tokenizer; returns accuracies on fresh prompts."""
    grammar, started = RefusalTwoHop(), time.perf_counter()
    tokenizer = make_tokenizer(grammar)
    torch.manual_seed(SCHEDULE.seed)
    model = train_model(llama(len(tokenizer)), tokenizer, grammar, SCHEDULE)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _portable(directory)
    report: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "steps": SCHEDULE.steps}
    rng = random.Random(99)
    for name, draw in (
        ("harmful_in_frame", grammar.showing),
        ("harmful_plain", grammar.contrast),
        ("benign", grammar.benign),
    ):
        first, whole = accuracy(model, tokenizer, [draw(rng) for _ in range(N_TEST)])
        report |= {f"{name}_first_token": round(first, 4), f"{name}_whole_completion": round(whole, 4)}
    say(f"{NAME}: {report}, {time.perf_counter() - started:.0f} s")
    return report


def build_saes(directory: Path) -> dict[str, Any]:
    """Train and save an SAE for each sparsity; returns what they reached."""
    model, grammar, reports = load_model(directory), RefusalTwoHop(), {}
    for k in SPARSITIES:
        plan = SAEPlan(f"sae_k{k}", HOOK, "topk", k)
        fit = train_case_sae(model, grammar, plan, directory)
        found = {name: round(value, 4) for name, value in dataclasses.asdict(fit).items()}
        reports[plan.folder] = {"hook": HOOK, "k": k, "features": plan.d_sae} | found
        say(f"{NAME}: {plan.folder}: {reports[plan.folder]}")
    return reports


def build_problems(directory: Path) -> dict[str, Any]:
    """Choose clamps, write problem files, and measure selectivity and what carries a recovery."""
    model, grammar, reports = load_model(directory), RefusalTwoHop(), {}
    folder = directory / "problems"
    folder.mkdir(exist_ok=True)
    for k in SPARSITIES:
        subject = Subject(model, load_sae(directory / f"sae_k{k}"))
        choice = choose(subject, grammar)
        path = folder / f"problem_k{k}.toml"
        title = f"refusal in two hops, TopK{k}"
        write_problem(path, title, f"../sae_k{k}", HOOK, choice.clamp, choice.examples, radius=RADIUS)
        text = path.read_text(encoding="utf-8").replace('path = "."', 'path = ".."')
        text = text.replace(f"value = {choice.clamp.values[0]}\n", f"values = {list(choice.clamp.values)}\n")
        path.write_text(text, encoding="utf-8")
        reports[f"sae_k{k}"] = {
            "clamp": choice.clamp.kind,
            "features": list(choice.clamp.features),
            "values": list(choice.clamp.values),
            "flips_and_benign_right_when_choosing": list(choice.tried),
            "fresh": selectivity(subject, choice.clamp, grammar),
            "replay": replay_shares(subject, choice),
        }
        say(f"{NAME}: {path.stem}: {reports[f'sae_k{k}']}")
    return reports


def compare(_directory: Path) -> dict[str, Any]:
    """The same measure of selectivity for the one-hop case beside this one."""
    return plain_case(BUNDLED / "refusal")


STAGES = {"model": build_model, "saes": build_saes, "problems": build_problems, "plain_case": compare}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    directory = options.out / NAME
    path = directory / "training_report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for stage in options.stages:
        report[stage] = STAGES[stage](directory)
        ordered = {"behaviour": RefusalTwoHop.behaviour} | {name: report[name] for name in STAGES if name in report}
        path.write_text(json.dumps(ordered, indent=2) + "\n", encoding="utf-8")
    if all(stage in report for stage in STAGES):
        (directory / "README.md").write_text(render(report), encoding="utf-8")
    make_readable(options.out)
    write_sums(options.out)


if __name__ == "__main__":
    main()
