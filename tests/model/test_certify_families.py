"""certify, end to end, on a tiny random model of every architecture: bounds, attacks, replay, certificate, check."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import tiny_sae
from tiny_models import FAMILIES, save

import sae_verify as sv
from sae_verify.attacks import attack, replay
from sae_verify.certificates.replay import replay_certificate
from sae_verify.errors import HookPointError, InputError
from sae_verify.geometry.instance import prepare
from sae_verify.model import load_model
from sae_verify.report.table import as_json

CLAMP = sv.Clamp.scale({1: -0.5, 4: 0.2, 9: 0.0})
PROMPTS = [[7, 3, 11, 19, 4, 4, 17, 9, 2, 13, 6], [5, 9]]
"""The first is longer than the sliding windows of four."""
THROUGH = ["phi3-half", "llama-rope3", "mistral", "qwen2", "llama-yarn", "gpt_neox-serial"]
THROUGH[2:2] = ["qwen3", "gpt_neox", "gemma3_text"]
NEW = [name for name in FAMILIES if name not in ("gpt2", "llama", "gemma2")]


def slow(*names: str) -> list[Any]:
    """Parameters of the slow tests."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def quick(names: list[str], count: int) -> list[Any]:
    """Parameters, without repetition, of which only the first ones are quick."""
    different = list(dict.fromkeys(names))
    return [*different[:count], *slow(*different[count:])]


QUICK = sv.Pgd(steps=10, restarts=1)

Ask = Callable[..., sv.Problem]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Directory of a tiny model by name, in the dtype that runs; shared, so never written to."""
    return functools.cache(lambda name: save(name, tmp_path_factory.mktemp(name), dtype=torch.float32))


@pytest.fixture(scope="module")
def ask(saved: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """A problem whose claim holds for the clamped model, and breaks at about the given radius or not."""

    def problem(name: str, hook: str, radius: float, margin: float) -> sv.Problem:
        sae = sv.load_sae(tiny_sae(tmp_path_factory.mktemp("sae"), d=32, m=24, hook=hook, bias=-1.0))
        asked = sv.Problem(
            load_model(saved(name)), sae, PROMPTS, CLAMP, sv.ErrorBall(radius, "h", "code"), sv.LogitDifference(3, 8)
        )
        readouts = [instance.defended for instance in prepare(asked).instances]
        return dataclasses.replace(asked, claim=sv.AtMost(max(readouts) + margin))

    return problem


def last_hook(name: str) -> str:
    return f"blocks.{3 if 'gemma' in name else 2}.hook_resid_post"


@pytest.mark.parametrize("name", [*NEW, *slow("gemma3_text-capped", "qwen2-tied")])
def test_after_the_last_block_bound_and_attack_meet(name: str, ask: Ask, tmp_path: Path) -> None:
    verdicts = set()
    for radius in (0.02, 2.0):
        problem = ask(name, last_hook(name), radius, 0.2)
        for result in sv.certify(problem, out=tmp_path, settings=sv.Pgd(steps=40, restarts=2)):
            assert result.certificate is not None
            report = sv.check(result.certificate)
            assert report.verdict == result.verdict.name
            assert result.upper - result.lower <= 1e-3 * (result.upper - result.readout_defended)
            verdicts.add(result.verdict.name)
        replayed = replay_certificate(tmp_path / "problem-000.cert")
        assert replayed.residual < 1e-5
    assert verdicts == {"certified", "refuted"}


@pytest.mark.parametrize("name", quick(THROUGH, 4))
def test_through_a_block_a_radius_is_proved(name: str, ask: Ask, tmp_path: Path) -> None:
    problem = ask(name, "blocks.1.hook_resid_post", 0.002, 0.2)
    problem = dataclasses.replace(problem, prompts=PROMPTS[:1], readout=problem.readouts[:1])
    batch = prepare(problem)
    for index, result in enumerate(sv.certify(problem, out=tmp_path, settings=QUICK, effort=2)):
        assert isinstance(result.verdict, sv.Certified), result
        assert result.certificate is not None
        assert sv.check(result.certificate).upper == result.upper
        radius = float(batch.radii[index])
        directions = torch.randn(1, 200, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(index))
        found = batch.readout(batch.h[:, None] + radius * directions / directions.norm(dim=-1, keepdim=True))
        assert float(found[index].max()) <= result.upper
        assert result.upper <= result.readout_defended + 50 * (float(found[index].max()) - result.readout_defended)


@pytest.mark.parametrize("name", ["phi3-partial"])
def test_what_the_checker_does_not_enclose_gets_no_bound(name: str, ask: Ask) -> None:
    """Undecided, with a reason, unless the cap over all radii decides or the attack does."""
    problem = ask(name, "blocks.1.hook_resid_post", 0.002, 0.2)
    for result in sv.certify(problem, settings=QUICK):
        assert isinstance(result.verdict, sv.Undecided)
        assert "does not enclose them" in result.verdict.reason
        assert result.radius.certified is None
        assert np.isfinite(result.lower)


@pytest.mark.parametrize("name", quick(["gpt_neox", "gemma3_text", "mistral", "qwen2"], 2))
def test_changed_weights_are_rejected(name: str, ask: Ask, tmp_path: Path, saved: Callable[[str], Path]) -> None:
    problem = ask(name, last_hook(name), 0.02, 0.2)
    result = next(iter(sv.certify(problem, out=tmp_path, settings=QUICK)))
    assert result.certificate is not None
    other = tmp_path / "other"
    other.mkdir()
    tensors = load_file(saved(name) / "model.safetensors")
    key = min(key for key in tensors if "layers.0" in key)
    tensors[key] = tensors[key] + 1e-3
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    (other / "config.json").write_bytes((saved(name) / "config.json").read_bytes())
    with pytest.raises(sv.checker.Rejected, match="weights"):
        sv.check(result.certificate, model=other)


@pytest.mark.parametrize("site", ["hook_resid_mid", "hook_attn_out", "hook_mlp_out"])
@pytest.mark.parametrize("name", quick(["gpt2", "gemma3_text", "gpt_neox", *FAMILIES, "gpt_neox-serial"], 3))
def test_inside_a_block_there_is_an_attack_and_no_bound(name: str, site: str, ask: Ask) -> None:
    if name == "gpt_neox" and site == "hook_resid_mid":
        with pytest.raises(HookPointError, match="no residual stream between them"):
            ask(name, f"blocks.1.{site}", 1.0, 0.05)
        return
    problem = ask(name, f"blocks.1.{site}", 1.0, 0.05)
    for result in sv.certify(problem, settings=QUICK):
        assert isinstance(result.verdict, sv.Unsupported)
        assert site in result.verdict.reason
    batch = prepare(problem)
    found = attack(batch, batch.radii, QUICK)
    for instance, value, replayed in zip(batch.instances, found.value, replay(batch, found.delta), strict=True):
        assert value == pytest.approx(replayed.value, abs=1e-4)
        assert value > instance.defended + 0.01
        assert replayed.held
        assert instance.blocks_after >= 1


def test_an_sae_of_another_state_is_refused(ask: Ask) -> None:
    problem = ask("llama", "blocks.1.hook_mlp_out", 1.0, 0.05)
    for hook in ("blocks.1.hook_resid_post", "blocks.1.hook_resid_pre", "blocks.1.hook_attn_out"):
        with pytest.raises(InputError, match=r"the SAE's metadata says 'blocks\.1\.hook_mlp_out'"):
            dataclasses.replace(problem, hook=hook)


@pytest.mark.parametrize(("dtype", "low", "high"), [("float32", 1e-9, 1e-4), ("bfloat16", 1e-4, 0.5)])
def test_every_result_says_how_far_the_run_is_from_the_proof(
    dtype: str, low: float, high: float, ask: Ask, tmp_path: Path
) -> None:
    narrow = getattr(torch, dtype)
    path = save("llama", tmp_path / "model", dtype=narrow)
    problem = dataclasses.replace(
        ask("llama", "blocks.2.hook_resid_post", 0.02, 0.2), model=load_model(path, dtype=narrow)
    )
    for result in sv.certify(problem, settings=QUICK):
        assert result.run_dtype == dtype
        assert result.run_gap is not None
        assert low < result.run_gap < high
        assert as_json(result)["run"] == {"dtype": dtype, "gap": result.run_gap}
