"""TransformerLens and SAELens models against the Hugging Face model of their files; needs one of the two packages.

`python -m tests.hosts.run` runs it in environments that have them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.tiny_models import save
from support.tiny import tiny_sae

import sae_verify as sv
from sae_verify.errors import InputError, SaeVerifyError
from sae_verify.model import HookPoint, Model, encode_prompts, load_model, run
from sae_verify.model.hook_point import SITES

lens = pytest.importorskip("transformer_lens", reason="TransformerLens is not installed: python -m tests.hosts.run")
try:
    from transformer_lens import HookedTransformer
except ImportError:
    HookedTransformer = None
HOOKED = HookedTransformer is not None
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]
CLOSE = 2e-5
"""Float32, in another order of operations."""

hooked_only = pytest.mark.skipif(not HOOKED, reason="TransformerLens 4 has no HookedTransformer")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name), dtype=torch.float32, tokenizer=True)
        return made[name]

    return directory


@pytest.fixture(autouse=True)
def local_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """HookedTransformer takes official names only; a directory is as good."""
    if HOOKED:
        from transformer_lens import loading_from_pretrained as loading

        genuine = loading.get_official_model_name
        monkeypatch.setattr(
            loading, "get_official_model_name", lambda name: name if Path(name).exists() else genuine(name)
        )


def hooked(path: Path, kind: Any = None, **processing: Any) -> Any:
    """A HookedTransformer as its users make one; GPT-2's needs a name of the hub, or its settings."""
    kind = kind or HookedTransformer
    if "gpt2" not in path.name:
        return kind.from_pretrained_no_processing(str(path), **processing)
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    reference = load_model(path)
    config = lens.HookedTransformerConfig(
        n_layers=3,
        d_model=32,
        n_ctx=64,
        d_head=8,
        n_heads=4,
        d_mlp=128,
        d_vocab=61,
        act_fn="gelu_new",
        eps=1e-5,
        normalization_type="LN",
        original_architecture="GPT2LMHeadModel",
        tokenizer_name=str(path),
    )
    held = kind(config, tokenizer=reference.tokenizer)
    nothing = dict.fromkeys(
        ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices"),
        False,
    )
    held.load_and_process_state_dict(convert_gpt2_weights(reference.module, config), **{**nothing, **processing})
    return held


def bridge(path: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(path))


NATIVE = {"hook_resid_pre": "hook_in", "hook_resid_post": "hook_out"}
"""What bridges call two of the states where they do not keep the older names."""


def same_states(model: Model, held: Any, *, only: dict[str, str] | None = None) -> None:
    """Every hook point shows what the library shows under the same name."""
    tokens = torch.tensor(ROWS)
    prompts = encode_prompts(model, ROWS)
    _, cache = held.run_with_cache(tokens)
    for site, name in (only or {}).items():
        ours = run(model, prompts, HookPoint(1, site)).resid  # type: ignore[arg-type]
        torch.testing.assert_close(cache[f"blocks.1.{name}"].detach(), ours, rtol=0, atol=CLOSE)
    if only is not None:
        return
    for site in SITES:
        hook = HookPoint(1, site)
        try:
            ours = run(model, prompts, hook).resid
        except SaeVerifyError:
            assert "neox" in model.family
            continue
        torch.testing.assert_close(cache[str(hook)].detach(), ours, rtol=0, atol=CLOSE)


def certifies(model: Model, tmp_path: Path) -> None:
    hook = f"blocks.{model.n_layers - 1}.hook_resid_post"
    sae = sv.load_sae(tiny_sae(tmp_path / "sae", d=32, hook=hook, bias=-1.0))
    problem = sv.Problem(
        model, sae, ROWS, sv.Clamp.scale({1: -0.5, 4: 0.0}), sv.ErrorBall(0.05), sv.LogitDifference(3, 8)
    )
    (result,) = sv.certify(problem, out=tmp_path, settings=sv.Pgd(steps=10, restarts=1))
    assert result.certificate is not None
    assert sv.check(result.certificate).verdict == result.verdict.name != "undecided"


@hooked_only
@pytest.mark.parametrize("name", ["gpt2", "mistral", "gpt_neox", "phi3", "qwen2-tied"])
def test_hooked_transformers(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    held = hooked(saved(name))
    model = sv.wrap_model(held)
    assert model.path == saved(name)
    assert model.tokenizer is held.tokenizer
    same_states(model, held)
    certifies(model, tmp_path)


@hooked_only
@pytest.mark.parametrize(
    ("processing", "says"),
    [
        ({"fold_ln": True}, "folded"),
        ({"center_writing_weights": True}, "centred"),
        ({"center_unembed": True}, "other ones"),
        ({"fold_value_biases": True}, "other ones"),
    ],
)
def test_rewritten_weights_are_refused(processing: dict[str, bool], says: str, saved: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=says) as caught:
        sv.wrap_model(hooked(saved("gpt2"), **processing))
    assert "from_pretrained_no_processing" in caught.value.remedy


@hooked_only
def test_a_model_that_leaves_out_its_windows_is_refused(saved: Callable[[str], Path]) -> None:
    """The weights are the same; HookedTransformer does not read Qwen2's sliding windows."""
    with pytest.raises(InputError, match="with the same weights its logits differ"):
        sv.wrap_model(hooked(saved("qwen2")))


@hooked_only
def test_other_files_are_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    held = hooked(saved("mistral"))
    other = save("mistral-full", tmp_path / "other", dtype=torch.float32)
    with pytest.raises((InputError, RuntimeError)):
        sv.wrap_model(held, path=other)
    with torch.no_grad():
        held.blocks[1].mlp.W_in[0, 0] += 1e-3
    with pytest.raises(InputError, match=r"blocks\.1\.mlp\.W_in"):
        sv.wrap_model(held)
    with pytest.raises(InputError, match="compared with its Hugging Face files"):
        sv.wrap_model(held, path=False)


@hooked_only
@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_saelens_models(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed: python -m tests.hosts.run")
    held = hooked(saved(name), saelens.HookedSAETransformer)
    model = sv.wrap_model(held)
    same_states(model, held)
    certifies(model, tmp_path)
    spliced = saelens.SAE.load_from_disk(str(tiny_sae(tmp_path / "spliced", d=32, hook="blocks.1.hook_resid_post")))
    held.add_sae(spliced)
    with pytest.raises(InputError, match="SAEs spliced in"):
        sv.wrap_model(held)
    held.reset_saes()
    assert sv.wrap_model(held).path == saved(name)


BRIDGED = ["gpt2", "llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "gpt_neox"]


@pytest.mark.parametrize("name", BRIDGED)
def test_bridges(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    held = bridge(saved(name))
    model = sv.wrap_model(held)
    assert model.path == saved(name)
    same_states(model, held)
    certifies(model, tmp_path)


def test_bridges_with_other_weights_are_refused(saved: Callable[[str], Path]) -> None:
    held = bridge(saved("llama"))
    held.enable_compatibility_mode()
    with pytest.raises(InputError, match="not the Hugging Face model") as caught:
        sv.wrap_model(held)
    assert "enable_compatibility_mode" in caught.value.remedy
    held = bridge(saved("gpt2"))
    held.enable_compatibility_mode(no_processing=True)
    assert sv.wrap_model(held).path == saved("gpt2")
    weight = next(w for w in held.original_model.parameters() if w.ndim == 2)
    with torch.no_grad():
        weight.mul_(1.001)
    with pytest.raises(InputError, match="not those of the files"):
        sv.wrap_model(held)


def test_saelens_bridges(saved: Callable[[str], Path], tmp_path: Path) -> None:
    saelens = pytest.importorskip("sae_lens", reason="SAELens is not installed: python -m tests.hosts.run")
    kind = getattr(saelens, "SAETransformerBridge", None)
    if kind is None:
        from sae_lens.analysis.sae_transformer_bridge import SAETransformerBridge as kind  # noqa: N813
    held = kind.boot_transformers(str(saved("llama")))
    model = sv.wrap_model(held)
    same_states(model, held, only=NATIVE)
    held.add_sae(saelens.SAE.load_from_disk(str(tiny_sae(tmp_path / "s", d=32, hook="blocks.1.hook_resid_post"))))
    with pytest.raises(InputError, match="SAEs spliced in"):
        sv.wrap_model(held)
