"""The clamp and a witness as hooks on the user's own model: prompts, batches, generation with and without a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.tiny_models import save
from support.tiny import tiny_model, tiny_sae
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import sae_verify as sv
from sae_verify.attacks import attack, replay
from sae_verify.errors import InputError, ShapeError, UnsupportedError
from sae_verify.geometry.instance import prepare
from sae_verify.model import HookPoint
from sae_verify.model.adapters import ADAPTERS
from sae_verify.sae import SAE
from sae_verify.sae.clamp import clamped as clamp_state

CASES = Path(__file__).parents[2] / "examples" / "cases"
FAMILIES = ["gpt2", "llama", "gemma2"]
CLAMP = sv.Clamp.scale({1: -3.0, 4: 0.2, 9: 5.0})
PROMPTS = [[3, 4, 5, 6, 7, 8], [9, 2, 1], [11]]
NEW = 4
CLOSE = 2e-5
"""Float32 rounding of logits of size 10 between batch shapes; a missing clamp moves them by 0.1 and more."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, SAE]]:
    """A tiny model as its user holds it, and an SAE for the middle of it; shared, so never changed."""
    made: dict[str, tuple[Any, SAE]] = {}

    def load(family: str) -> tuple[Any, SAE]:
        if family not in made:
            base = tmp_path_factory.mktemp(family)
            module = AutoModelForCausalLM.from_pretrained(tiny_model(base / "m", family, layers=3)).eval()
            module.generation_config.eos_token_id = None
            module.generation_config.pad_token_id = 0
            made[family] = module, sv.load_sae(tiny_sae(base / "s", hook="blocks.1.hook_resid_post"))
        return made[family]

    return load


def delta_of(d: int, count: int = 1) -> Tensor:
    return torch.randn(count, d, generator=torch.Generator().manual_seed(7)).squeeze(0)


def hook_count(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def by_hand(
    module: Any, sae: SAE, tokens: list[int], delta: Tensor | None, at: range | None, clamp: sv.Clamp | None = CLAMP
) -> Tensor:
    """Logits (T, V) of one whole sequence without a cache, the clamp at every token, delta at some."""
    block = ADAPTERS[module.config.model_type].blocks(module)[1]

    def edit(_module: nn.Module, _args: Any, output: Any) -> Any:
        x = output if isinstance(output, Tensor) else output[0]
        h = x if clamp is None else clamp_state(sae, clamp, x)
        if delta is not None and at is not None:
            h = h.clone()
            h[:, at.start : at.stop] += delta
        return h if isinstance(output, Tensor) else (h, *output[1:])

    handle = block.register_forward_hook(edit)
    try:
        with torch.no_grad():
            return module(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    finally:
        handle.remove()


def padded(prompts: list[list[int]], side: str) -> dict[str, Tensor]:
    width = max(map(len, prompts))
    rows, masks = [], []
    for prompt in prompts:
        gap = [0] * (width - len(prompt))
        rows.append(gap + prompt if side == "left" else prompt + gap)
        ones = [1] * len(prompt)
        masks.append(gap + ones if side == "left" else ones + gap)
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def some(which: str, count: int) -> sv.Problem:
    problem = sv.load_problem(CASES / "indirect_object" / f"problem_{which}.toml")
    return dataclasses.replace(
        problem,
        prompts=list(problem.prompts)[:count],
        readout=list(problem.readouts)[:count],
        threat=sv.ErrorBall(3.0, "h", "code"),
    )


def readout_of(logits: Tensor, problem: sv.Problem, index: int = 0) -> float:
    words, readout = problem.model.tokenizer.get_vocab(), problem.readouts[index]
    assert isinstance(readout, sv.LogitDifference)
    return float(logits[words[readout.positive]] - logits[words[readout.negative]])


def test_a_witness_gives_what_certify_replayed(tmp_path: Path) -> None:
    problem = some("last", 1)
    mine = AutoModelForCausalLM.from_pretrained(CASES / "indirect_object")
    (result,) = sv.certify(problem, out=tmp_path)
    assert isinstance(result.verdict, sv.Refuted)
    assert result.certificate is not None
    tokens = torch.tensor([problem.model.tokenizer(result.prompt)["input_ids"]])
    values = []
    for delta in (None, *sv.load_witnesses(result.certificate)):
        with sv.clamped(mine, problem.sae, problem.clamp, delta=delta), torch.no_grad():
            values.append(readout_of(mine(tokens).logits[0, -1], problem))
    assert values[0] == pytest.approx(result.readout_defended, abs=CLOSE)
    assert min(abs(value - result.verdict.replay.value) for value in values[1:]) < CLOSE
    assert max(values[1:]) > 0 > values[0]


@pytest.mark.parametrize("which", ["last", "early"])
def test_any_perturbation_gives_what_its_replay_gives(which: str) -> None:
    problem = some(which, 4)
    batch = prepare(problem)
    found = attack(batch, batch.radii, sv.Pgd(steps=5, restarts=1)).delta
    mine = AutoModelForCausalLM.from_pretrained(CASES / "indirect_object")
    for index, replayed in enumerate(replay(batch, found)):
        tokens = torch.tensor([batch.instances[index].tokens])
        with sv.clamped(mine, problem.sae, problem.clamp, delta=found[index]), torch.no_grad():
            value = readout_of(mine(tokens).logits[0, -1], problem, index)
        assert value == pytest.approx(replayed.value, abs=CLOSE)
        assert abs(value - batch.instances[index].defended) > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family: str, side: str, case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case(family)
    deltas = delta_of(8, 3)
    batch = padded(PROMPTS, side)
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with sv.clamped(module, sae, CLAMP, delta=deltas), torch.no_grad():
        logits = module(**batch, position_ids=positions).logits
    for row, prompt, delta in zip(range(3), PROMPTS, deltas, strict=True):
        expected = by_hand(module, sae, prompt, delta, range(len(prompt) - 1, len(prompt)))
        real = logits[row][batch["attention_mask"][row] == 1]
        torch.testing.assert_close(real, expected, rtol=0, atol=CLOSE)
        assert float((real[-1] - by_hand(module, sae, prompt, None, None)[-1]).abs().max()) > 100 * CLOSE
        assert float((real - by_hand(module, sae, prompt, delta, range(0), None)).abs().max()) > 100 * CLOSE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("generated", [False, True])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generation_has_the_clamp_at_every_step(
    family: str, generated: bool, cache: str, case: Callable[[str], tuple[Any, SAE]]
) -> None:
    module, sae = case(family)
    deltas = delta_of(8, 3)
    settings: dict[str, Any] = {"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}
    with sv.clamped(module, sae, CLAMP, delta=deltas, generated=generated), torch.no_grad():
        out = module.generate(
            **padded(PROMPTS, "left"),
            max_new_tokens=NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            **settings,
        )
    assert len(out.logits) == NEW
    for row, prompt, delta in zip(range(3), PROMPTS, deltas, strict=True):
        tokens = prompt + out.sequences[row, -NEW:].tolist()
        at = range(len(prompt) - 1, len(tokens) if generated else len(prompt))
        expected = by_hand(module, sae, tokens[:-1], delta, at)[len(prompt) - 1 :]  # (NEW, V)
        actual = torch.stack([step[row] for step in out.logits])
        torch.testing.assert_close(actual, expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3", "phi3", "gemma3_text", "gpt_neox"])
@pytest.mark.parametrize("site", ["hook_resid_post", "hook_mlp_out"])
def test_every_architecture_generates_with_it(name: str, site: str, tmp_path: Path) -> None:
    """Beyond their sliding windows of four, with left padding; the state of a longer prompt, read at once, decides."""
    module = AutoModelForCausalLM.from_pretrained(save(name, tmp_path / "m", dtype=torch.float32)).eval()
    module.generation_config.eos_token_id = None
    module.generation_config.pad_token_id = 0
    sae = sv.load_sae(tiny_sae(tmp_path / "s", d=32, hook=f"blocks.1.{site}"))
    deltas = delta_of(32, 3)
    with sv.clamped(module, sae, CLAMP, delta=deltas), torch.no_grad():
        out = module.generate(
            **padded(PROMPTS, "left"),
            max_new_tokens=NEW,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    for row, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([prompt + out.sequences[row, -NEW:].tolist()[:-1]])
        with sv.clamped(module, sae, CLAMP, delta=deltas[row], position=len(prompt) - 1), torch.no_grad():
            expected = module(tokens, use_cache=False).logits[0, len(prompt) - 1 :]
        with sv.clamped(module, sae, CLAMP), torch.no_grad():
            without = module(tokens, use_cache=False).logits[0, len(prompt) - 1 :]
        actual = torch.stack([step[row] for step in out.logits])
        cap = float(expected.abs().max())
        torch.testing.assert_close(actual, expected, rtol=0, atol=CLOSE * max(cap, 1.0))
        assert float((expected - without).abs().max()) > 100 * CLOSE


def test_without_a_cache_the_position_says_where(case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("llama")
    delta, prompt = delta_of(8), PROMPTS[0]
    last = len(prompt) - 1
    both = []
    for use_cache, position in ((True, None), (False, last), (True, [last])):
        with sv.clamped(module, sae, CLAMP, delta=delta, position=position), torch.no_grad():
            out = module.generate(
                torch.tensor([prompt]),
                max_new_tokens=NEW,
                do_sample=False,
                use_cache=use_cache,
                output_logits=True,
                return_dict_in_generate=True,
            )
        both.append(torch.cat(out.logits))
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=CLOSE)
    torch.testing.assert_close(both[2], both[0], rtol=0, atol=0)


def test_copies_of_a_prompt_get_its_row(case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("gpt2")
    deltas = delta_of(8, 2)
    batch = padded(PROMPTS[:2], "left")
    copies = {name: rows.repeat_interleave(3, dim=0) for name, rows in batch.items()}
    positions = (copies["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with sv.clamped(module, sae, CLAMP, delta=deltas), torch.no_grad():
        assert module.generate(**batch, max_new_tokens=3, num_beams=3, do_sample=False).shape == (2, 6 + 3)
        logits = module(**copies, position_ids=positions).logits[:, -1]
        with pytest.raises(ShapeError, match="2 rows for a batch of 3"):
            module(torch.ones(3, 4, dtype=torch.long))
    for row, logit in enumerate(logits):
        prompt, delta = PROMPTS[row // 3], deltas[row // 3]
        expected = by_hand(module, sae, prompt, delta, range(len(prompt) - 1, len(prompt)))[-1]
        torch.testing.assert_close(logit, expected, rtol=0, atol=CLOSE)


def test_a_prompt_read_in_pieces(case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("llama")
    tokens, delta = torch.tensor([PROMPTS[0]]), delta_of(8)
    expected = by_hand(module, sae, PROMPTS[0], delta, range(5, 6))[-1]
    with torch.no_grad():
        with sv.clamped(module, sae, CLAMP, delta=delta, position=5):
            first = module(tokens[:, :4], use_cache=True)
            logits = module(tokens[:, 4:], past_key_values=first.past_key_values).logits[0, -1]
        torch.testing.assert_close(logits, expected, rtol=0, atol=CLOSE)
        with sv.clamped(module, sae, CLAMP, delta=delta):
            first = module(tokens[:, :4], use_cache=True)
            with pytest.raises(UnsupportedError, match="2 tokens after 4 cached ones"):
                module(tokens[:, 4:], past_key_values=first.past_key_values)
    assert hook_count(module) == 0


@pytest.mark.parametrize("positions", ["last", (1, 2)])
def test_clamps_at_some_positions(positions: object, case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("gemma2")
    clamp = sv.Clamp.set({1: 4.0, 4: -2.0}, positions)
    chosen = {"last": [2]}.get(positions, positions) if isinstance(positions, str) else list(positions)  # type: ignore[call-overload]
    prompt = PROMPTS[1]
    block = ADAPTERS["gemma2"].blocks(module)[1]

    def edit(_module: nn.Module, _args: Any, x: Any) -> Any:
        h = x.clone()
        h[:, chosen] = clamp_state(sae, clamp, x)[:, chosen]
        return h

    handle = block.register_forward_hook(edit)
    with torch.no_grad():
        expected = module(torch.tensor([prompt])).logits[0]
        handle.remove()
        with sv.clamped(module, sae, clamp):
            batch = padded(PROMPTS, "left")
            actual = module(**batch, position_ids=(batch["attention_mask"].cumsum(1) - 1).clamp(min=0)).logits[1, -3:]
    torch.testing.assert_close(actual, expected, rtol=0, atol=CLOSE)


def test_hooks_go_with_the_context(case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("gpt2")
    before = module(torch.tensor(PROMPTS[:1])).logits

    def fail() -> None:
        with sv.clamped(module, sae, CLAMP, delta=delta_of(8)) as held:
            assert held is module
            assert hook_count(module) == 2
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert hook_count(module) == 0
    torch.testing.assert_close(module(torch.tensor(PROMPTS[:1])).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_models_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    module = AutoModelForCausalLM.from_pretrained(tiny_model(tmp_path / "m", "llama"), dtype=dtype)
    sae = sv.load_sae(tiny_sae(tmp_path / "s"))
    with sv.clamped(module, sae, CLAMP, delta=delta_of(8)), torch.no_grad():
        assert module(torch.tensor(PROMPTS[:1])).logits.dtype == dtype
    assert sae.dtype == torch.float32


def test_gradients_reach_the_perturbed_model(case: Callable[[str], tuple[Any, SAE]]) -> None:
    module, sae = case("llama")
    with sv.clamped(module, sae, CLAMP, delta=delta_of(8)):
        loss = module(torch.tensor(PROMPTS[:1])).logits[0, -1, 3]
    (gradient,) = torch.autograd.grad(loss, module.model.embed_tokens.weight)
    assert float(gradient.norm()) > 0


def test_refusals(case: Callable[[str], tuple[Any, SAE]], tmp_path: Path) -> None:
    module, sae = case("llama")
    wide = sv.load_sae(tiny_sae(tmp_path / "wide", d=12))
    for error, match, arguments in (
        (ShapeError, "12 dimensions", {"sae": wide}),
        (InputError, "features", {"clamp": sv.Clamp.set({99: 1.0})}),
        (ShapeError, "delta has shape", {"delta": torch.zeros(9)}),
        (ShapeError, "delta has shape", {"delta": torch.zeros(8, dtype=torch.long)}),
        (InputError, "NaN or infinite", {"delta": torch.full((8,), torch.nan)}),
        (InputError, "SAE's metadata says", {"hook": HookPoint(0, "hook_resid_post")}),
        (InputError, "causal language model", {"model": nn.Linear(2, 2)}),
    ):
        given: dict[str, Any] = {"model": module, "sae": sae, "clamp": CLAMP, **arguments}
        with pytest.raises(error, match=match), sv.clamped(**given):
            pass
    with pytest.raises(UnsupportedError, match="attention mask"), sv.clamped(module, sae, CLAMP):
        module(torch.tensor(PROMPTS[:1]), attention_mask=torch.zeros(1, 1, 6, 6))
    assert hook_count(module) == 0
