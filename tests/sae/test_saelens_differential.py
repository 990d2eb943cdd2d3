"""Our SAEs against sae-lens itself: same files, same codes, same reconstructions, in both directions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sae_verify.errors import MetadataError, UnsupportedError
from sae_verify.sae import GatedSAE, JumpReLUSAE, ReLUSAE, TopKSAE, load_sae, save_sae

sae_lens = pytest.importorskip("sae_lens", reason="the saelens extra is not installed")
pytestmark = pytest.mark.saelens

D_IN, D_SAE, K = 16, 48, 5
ARCHITECTURES = ["standard", "jumprelu", "topk", "topk-rescaled", "gated"]
NORMALIZATIONS = ["none", "layer_norm", "constant_norm_rescale"]


def upstream(kind: str, normalize: str, subtract: bool, training: bool = False) -> Any:
    from sae_lens.registry import get_sae_class, get_sae_training_class

    name = kind.removesuffix("-rescaled")
    cls, config = (get_sae_training_class if training else get_sae_class)(name)
    options: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE, "apply_b_dec_to_input": subtract}
    options |= {"normalize_activations": normalize, "dtype": "float32"}
    if "topk" in name:
        options |= {"k": K, "rescale_acts_by_decoder_norm": kind.endswith("-rescaled")}
    if name.startswith("matryoshka"):
        options["matryoshka_widths"] = [12, D_SAE]
    sae = cls(config(**options))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        if "threshold" in sae.state_dict():
            sae.threshold.copy_(0.4 * torch.rand(D_SAE, generator=generator))
    return sae


def inputs() -> torch.Tensor:
    return 2 * torch.randn(200, D_IN, generator=torch.Generator().manual_seed(5)) + 0.3


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    theirs = theirs.detach()
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def assert_same(ours: Any, theirs: Any) -> None:
    x = inputs()
    code = theirs.encode(x)
    assert int((code != 0).sum()) > 0
    assert_close(ours.encode(x), code)
    assert torch.equal(ours.active(x), code != 0)
    assert_close(ours.reconstruct(x), theirs.decode(theirs.encode(x)))


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_saelens_save_reads_as_the_same_sae(tmp_path: Path, kind: str, normalize: str, subtract: bool) -> None:
    theirs = upstream(kind, normalize, subtract)
    theirs.save_model(tmp_path)
    assert_same(load_sae(tmp_path), theirs)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_saelens_reads_our_save_as_the_same_sae(tmp_path: Path, kind: str, normalize: str) -> None:
    upstream(kind, normalize, True).save_model(tmp_path / "theirs")
    ours = load_sae(tmp_path / "theirs")
    save_sae(ours, tmp_path / "ours")
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path / "ours"))


@pytest.mark.parametrize("rescaled", ["", "-rescaled"])
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("save", ["training", "inference"])
def test_a_batch_topk_save_reads_as_the_inference_sae(tmp_path: Path, kind: str, rescaled: str, save: str) -> None:
    training = upstream(kind + rescaled, "none", True, training=True)
    training.topk_threshold = torch.tensor(0.7, dtype=torch.float64)
    training.save_model(tmp_path / "training")
    training.save_inference_model(tmp_path / "inference")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    if rescaled and save == "training":  # its threshold is in units of decoder norms that nothing has folded yet
        with pytest.raises(UnsupportedError, match="save_inference_model"):
            load_sae(tmp_path / save)
        return
    ours = load_sae(tmp_path / save)
    assert isinstance(ours, JumpReLUSAE)
    assert_same(ours, theirs)


def test_an_input_scale_is_the_fold_that_upstream_makes(tmp_path: Path) -> None:
    theirs = upstream("jumprelu", "expected_average_only_in", True)
    theirs.save_model(tmp_path)
    with pytest.raises(MetadataError):
        load_sae(tmp_path)
    assert_same(load_sae(tmp_path, input_scale=1.0), theirs)
    scale = math.sqrt(D_IN) / float(inputs().norm(dim=1).mean())
    ours = load_sae(tmp_path, input_scale=scale)
    theirs.fold_activation_norm_scaling_factor(scale)
    assert_same(ours, theirs)


def test_every_architecture_is_of_its_class(tmp_path: Path) -> None:
    classes = {"standard": ReLUSAE, "jumprelu": JumpReLUSAE, "topk": TopKSAE, "gated": GatedSAE}
    for kind, cls in classes.items():
        upstream(kind, "none", False).save_model(tmp_path / kind)
        assert type(load_sae(tmp_path / kind)) is cls
