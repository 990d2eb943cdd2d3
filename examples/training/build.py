"""Rebuilds bundled cases: `python -m examples.training.build [CASE ...] [--out DIR] [--stages STAGE ...]`.

Same seed, one thread, same processor family and library versions: the same files. A few minutes in all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.training.cases import CASES, LAST, Case
from examples.training.choose_clamp import choose
from examples.training.describe import read_reports, render
from examples.training.models import ARCHITECTURES, make_tokenizer
from examples.training.train_model import accuracy, train_model
from examples.training.train_saes import train_case_sae
from examples.training.write_problem import write_problem
from sae_verify.model import load_model
from sae_verify.sae import SAE, load_sae

BUNDLED = Path(__file__).resolve().parent.parent / "cases"
SUMS = "SHA256SUMS"
N_TEST = 500


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def build_model(case: Case, directory: Path) -> dict[str, Any]:
    """Train and save model and tokenizer; returns accuracies on fresh prompts."""
    grammar, started = case.grammar, time.perf_counter()
    tokenizer = make_tokenizer(grammar)
    torch.manual_seed(case.schedule.seed)
    model = train_model(ARCHITECTURES[grammar.name](len(tokenizer)), tokenizer, grammar, case.schedule)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _portable(directory)
    report = {"parameters": sum(p.numel() for p in model.parameters()), "steps": case.schedule.steps}
    rng = random.Random(99)
    for name, held_out in (("fresh", False), ("held_out", True)):
        first, whole = accuracy(model, tokenizer, grammar.batch(rng, N_TEST, held_out))
        report |= {f"{name}_first_token": round(first, 4), f"{name}_whole_completion": round(whole, 4)}
    say(f"{grammar.name}: {report}, {time.perf_counter() - started:.0f} s")
    return report


def _portable(directory: Path) -> None:
    """Name the tokenizer class that every transformers release knows."""
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("backend", None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def build_saes(case: Case, directory: Path) -> dict[str, Any]:
    """Train and save both SAEs; returns what they reached."""
    model, reports = load_model(directory), {}
    for plan in case.saes:
        started = time.perf_counter()
        fit = train_case_sae(model, case.grammar, plan, directory)
        reports[plan.folder] = {
            "hook": plan.hook,
            "architecture": plan.architecture,
            "features": plan.d_sae,
            "fvu": round(fit.fvu, 4),
            "mean_error_norm": round(fit.error_norm, 4),
            "l0": round(fit.l0, 2),
            "dead": round(fit.dead, 4),
        }
        say(f"{case.grammar.name}: {reports[plan.folder]}, {time.perf_counter() - started:.0f} s")
    return reports


def build_problems(case: Case, directory: Path) -> dict[str, Any]:
    """Choose clamps and write problem files; returns how often each clamp flips."""
    model, reports = load_model(directory), {}
    for plan in case.saes:
        sae, where = load_sae(directory / plan.folder), plan.folder.removeprefix("sae_")
        choice = choose(model, sae, plan.hook, case.grammar, case.clamps[plan.folder])
        title = f"{case.title}, {'last' if plan.hook == LAST else 'early'} layer"
        path = directory / f"problem_{where}.toml"
        write_problem(path, title, plan.folder, plan.hook, choice.clamp, choice.examples, radius=choice.radius)
        reports[plan.folder] = {
            "clamp": choice.clamp.kind,
            "value": choice.clamp.values[0],
            "features": list(choice.clamp.features),
            "valid_flips": choice.flips,
            "of_fresh_prompts": choice.fresh,
            "valid_flips_in_choice": choice.flips_in_choice,
            "of_prompts_in_choice": choice.tried_in_choice,
            "quantiles_of_prompts": list(case.clamps[plan.folder].spread),
            "radius": choice.radius,
            "first_order_bypass_radii": list(choice.estimates),
        }
        say(f"{case.grammar.name}: {where}: {reports[plan.folder]}")
        if case.grammar.name == "refusal" and where == "last":
            write_problem(
                directory / "problem_control.toml",
                "refusal, control: every direction is held",
                plan.folder,
                plan.hook,
                choice.clamp,
                choice.examples,
                radius=choice.radius,
                held="preactivations",
                at="h",
                features=independent_features(sae),
            )
    return reports


def independent_features(sae: SAE, extra: int = 8) -> list[int]:
    """Features whose encoder columns span the residual stream, by greedy pivoting, and a few more; sorted."""
    rest = sae.W_enc.double().clone()  # (d_in, d_sae)
    chosen: list[int] = []
    for _ in range(sae.d_in):
        pivot = int(rest.norm(dim=0).argmax())
        direction = rest[:, pivot] / rest[:, pivot].norm()  # (d_in,)
        rest -= direction[:, None] * (direction @ rest)
        chosen.append(pivot)
    others = [i for i in range(sae.d_sae) if i not in chosen]
    return sorted(chosen + others[:extra])


def make_readable(root: Path) -> None:
    """Let everybody read what is shipped: safetensors writes files that only their owner can read."""
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def write_sums(root: Path) -> None:
    """Write SHA256SUMS over every shipped file below `root`, in the format of sha256sum."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != SUMS)
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(root).as_posix()}" for p in files]
    (root / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


STAGES: dict[str, Callable[[Case, Path], dict[str, Any]]] = {
    "model": build_model,
    "saes": build_saes,
    "problems": build_problems,
}


def build(case: Case, root: Path, stages: Sequence[str]) -> None:
    """Run the given stages of one case, and merge what they measured into its training_report.json."""
    directory = root / case.grammar.name
    path = directory / "training_report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for stage in stages:
        measured = STAGES[stage](case, directory)
        report = _only_stages(case, report | {stage: measured})
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _only_stages(case: Case, report: dict[str, Any]) -> dict[str, Any]:
    """The report in the order of `STAGES`, whichever ran last, and without what no stage writes any more."""
    return {"behaviour": case.grammar.behaviour} | {stage: report[stage] for stage in STAGES if stage in report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES))
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"unknown case {', '.join(sorted(unknown))}; known are {', '.join(CASES)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in options.cases or CASES:
        build(CASES[name], options.out, options.stages)
    (options.out / "README.md").write_text(render(read_reports(options.out)), encoding="utf-8")
    make_readable(options.out)
    write_sums(options.out)


if __name__ == "__main__":
    main()
