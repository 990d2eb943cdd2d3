"""Writes `examples/cases/README.md` from what training measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.training.cases import CASES

ARCHITECTURE = {"indirect_object": "GPT-2", "refusal": "Gemma-2", "unlearning": "Llama"}

HEAD = """# Bundled cases

Small Hugging Face models, trained from scratch on made-up grammars, with sparse autoencoders trained on their own
activations. They are complete in every respect but size: `AutoModelForCausalLM` loads the models, the SAEs are in the
format of SAELens 6, and prompts are text. They say nothing about larger models; they are here so that every part of the
tool can be run, offline, in seconds. All models have width 64, 4 layers and 4 heads, and a word-level vocabulary.

| case | grammar | behaviour that the clamp suppresses |
| --- | --- | --- |
| `indirect_object` | 40 names, 16 places, 16 objects, 5 templates, two orders of names | names the indirect object |
| `refusal` | 24 forbidden and 24 allowed objects, aliases, three jailbreak frames | complies inside a jailbreak frame |
| `unlearning` | 30 entities with one attribute per topic, four options a question | answers from the topic to forget |

A directory holds the model, `sae_early/` and `sae_last/`, `problem_early.toml` and `problem_last.toml`, and
`training_report.json` with everything measured. `refusal/problem_control.toml` is a control with a known answer: it
holds so many pre-activations that no perturbation is left, so it has to be certified, and flagged as trivial.

`refusal_two_hop` is a further case with a README of its own: selective clamps, and SAEs of two sparsities. Its problems
are in a folder of their own, and `sae-verify demo` does not run them.

To rebuild everything: `python -m examples.training.build` (one thread, fixed seeds; bit-identical on the machine it was
built on, not necessarily on other processors or library versions). `SHA256SUMS` covers what is shipped.
"""

MODELS = """
## Models

Accuracy is greedy, on 500 fresh prompts: the first token of the answer, and the whole completion. Held out are pairs of
object and jailbreak frame that training never saw; the other grammars hold nothing out.

| case | architecture | parameters | kB | steps | first token | whole completion | held out, whole completion |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

SAES = """
## SAEs

On fresh prompts. FVU: fraction of variance unexplained; error: mean of ||e|| / ||x||; L0: mean number of active
features; dead: share of features that were never active. `batchtopk` is the form in which BatchTopK SAEs are shipped: a
JumpReLU SAE with one constant threshold, here put on a trained TopK SAE. In training and in these figures, the last
position of each prompt is counted four times. SAEs of large models usually fit far worse than these.

| case | SAE | hook | architecture | features | kB | FVU | error | L0 | dead |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

CLAMPS = """
## Clamps and prompts

A valid flip is a prompt on which the base model shows the behaviour and the clamped model does not, both by at least
0.05 in the readout. The size of the clamp was chosen on some 200 random prompts that should show the behaviour ("when
choosing", biased upwards); "fresh" counts others, which had no part in the choice. Many prompts are no flips: these
clamps suppress the behaviour where they do, not everywhere.

The eight prompts of a problem are flips among those used for choosing, spread evenly in rank by their estimated bypass
radius, between the quantiles given: |readout| over the length of the readout's gradient orthogonal to the active
features' encoder columns, over ||h||. The radius of the problem is the round number nearest to the median estimate of
its prompts. So that verdicts differ within a problem is arranged, and neither the share of certified prompts nor the
radius says how safe a clamp is.

| case | problem | clamp | features | flips, fresh | when choosing | radius / norm of h | estimates | quantiles |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def render(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's text, from the training reports by case."""
    parts = [HEAD, MODELS]
    for name, report in reports.items():
        m = report["model"]
        held_out = f"{m['held_out_whole_completion']:.1%}" if name == "refusal" else "-"
        parts.append(
            f"| `{name}` | {ARCHITECTURE[name]} | {m['parameters']:,} | {report['kilobytes']['model']} | "
            f"{m['steps']} | {m['fresh_first_token']:.1%} | {m['fresh_whole_completion']:.1%} | {held_out} |\n"
        )
    parts.append(SAES)
    for name, report in reports.items():
        for folder, s in report["saes"].items():
            parts.append(
                f"| `{name}` | `{folder}` | `{s['hook']}` | {s['architecture']} | {s['features']} | "
                f"{report['kilobytes'][folder]} | {s['fvu']:.4f} | {s['mean_error_norm']:.3f} | "
                f"{s['l0']:.1f} | {s['dead']:.0%} |\n"
            )
    parts.append(CLAMPS)
    for name, report in reports.items():
        for folder, c in report["problems"].items():
            operation = f"set to {c['value']:g}" if c["clamp"] == "set" else f"times {c['value']:g}"
            estimates = c["first_order_bypass_radii"]
            parts.append(
                f"| `{name}` | `problem_{folder.removeprefix('sae_')}.toml` | {operation} | {len(c['features'])} | "
                f"{c['valid_flips']} of {c['of_fresh_prompts']} | "
                f"{c['valid_flips_in_choice']} of {c['of_prompts_in_choice']} | {c['radius']:g} | "
                f"{min(estimates):.3f} to {max(estimates):.3f} | {' to '.join(map(str, c['quantiles_of_prompts']))} |\n"
            )
    return "".join(parts)


def read_reports(root: Path) -> dict[str, dict[str, Any]]:
    """The training reports of all cases below `root` that are complete, in the order of `CASES`, with file sizes."""
    paths = {name: root / name / "training_report.json" for name in CASES}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
    complete = {name: report for name, report in found.items() if {"model", "saes", "problems"} <= report.keys()}
    return {name: report | {"kilobytes": _kilobytes(root / name, report)} for name, report in complete.items()}


def _kilobytes(case: Path, report: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of the weight files in kB, of 1000 bytes."""
    files = {"model": case / "model.safetensors"} | {s: case / s / "sae_weights.safetensors" for s in report["saes"]}
    return {name: round(path.stat().st_size / 1000) for name, path in files.items()}
