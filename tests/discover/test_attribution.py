"""Attribution: gradients are those of the real model, paths add up, and the error term passes gradients on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import random_sae

from sae_verify.discover import Subject, attribute, spliced
from sae_verify.discover.subject import readout
from sae_verify.errors import InputError, ShapeError
from sae_verify.model import run
from sae_verify.problem import LogitDifference, TokenAgainstAll
from sae_verify.sae import ConstantNormRescale, LayerNorm

from . import planted
from .planted import D, f64

PROMPTS = [[1, 2, 3], [4, 5, 6, 7], [8]]
READOUT = LogitDifference(3, 7)
HOOK = "blocks.0.hook_resid_post"


def random_subject(tmp_path: Path, family: str, architecture: str, hook: str = HOOK, normalization=None) -> Subject:
    sae = random_sae(
        architecture, d=D, m=16, k=4, hook=hook, seed=0, normalization=normalization, subtract=True, bias=0.0, dtype=f64
    )
    return Subject(planted.model(tmp_path, family), sae)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("architecture", ["relu", "jumprelu", "topk", "topk-rescaled", "gated"])
def test_score_is_activation_times_slope_of_the_real_model(tmp_path: Path, family: str, architecture: str) -> None:
    """d readout / d z_j with the error term kept, by central differences on the real model."""
    subject = random_subject(tmp_path, family, architecture)
    found = attribute(subject, PROMPTS, READOUT)
    prompts, readouts = subject.prompts(PROMPTS), subject.readouts(READOUT, 3)
    for feature in range(0, 16, 5):
        reached = []
        for share in (1e-5, -1e-5):

            def edit(_, share=share, feature=feature):
                def change(x):
                    dz = torch.zeros(*x.shape[:2], 16, dtype=f64)
                    dz[..., feature] = share * subject.sae.encode(x)[..., feature]
                    return spliced(subject.sae, x, dz)

                return change

            reached.append(readout(subject, prompts, readouts, edit).numpy())
        slope = (reached[0] - reached[1]) / 2e-5
        assert found.scores[:, feature] == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("normalization", [None, LayerNorm(), ConstantNormRescale()])
def test_integrated_scores_add_up(tmp_path: Path, normalization) -> None:
    subject = random_subject(tmp_path, "gpt2", "relu", normalization=normalization)
    found = attribute(subject, PROMPTS, READOUT, method="integrated", steps=32)
    assert np.abs(found.value - found.baseline).max() > 1e-3
    assert found.gap == pytest.approx(0.0, abs=1e-4 * np.abs(found.value - found.baseline).max())
    plain = attribute(subject, PROMPTS, READOUT)
    assert np.abs(plain.gap).max() > 10 * np.abs(found.gap).max()
    assert plain.value == pytest.approx(found.value)


def test_a_baseline_other_than_zero(tmp_path: Path) -> None:
    subject = random_subject(tmp_path, "llama", "relu")
    mean = np.linspace(0, 1, 16)
    found = attribute(subject, PROMPTS, READOUT, method="integrated", steps=32, baseline=mean)
    assert found.gap == pytest.approx(0.0, abs=1e-4 * np.abs(found.value - found.baseline).max())
    with pytest.raises(ShapeError):
        attribute(subject, PROMPTS, READOUT, baseline=mean[:3])


def test_the_planted_feature_is_on_top_and_its_ablation_agrees(tmp_path: Path) -> None:
    """Planted: after the last block, only the first axis of the SAE points along the readout."""
    model = planted.model(tmp_path, layers=1)
    first = torch.zeros(20, D, dtype=f64)
    first[3, 0], first[7, 0] = 2.0, -2.0
    with torch.no_grad():
        model.adapter.lm_head(model.module).weight.copy_(first)  # type: ignore[operator]
    subject = Subject(model, planted.sae(HOOK))
    for method in ("gradient", "integrated"):
        found = attribute(subject, PROMPTS, READOUT, method=method)  # type: ignore[arg-type]
        shown = found.value > 0
        best = np.argmax(np.abs(found.scores), axis=1)
        assert set(best.tolist()) <= {0, D}
        # Axis 0 is all that the readout has: without it, it is zero on the real model.
        assert found.ablate([0, D]) == pytest.approx(found.value)
        assert (found.scores[shown][:, 0] > 0).all()
        top = found.top(1, both=True, measure=True)[0]
        assert top.feature in (0, D)
        assert top.ablated is not None
        assert np.sign(top.ablated) == np.sign(top.score)
    assert found.top(1)[0].ablated is None


def test_gradients_before_the_hook_go_through_the_error_term(tmp_path: Path) -> None:
    """Spliced in with dz = 0 the model's own gradient is unchanged; with a detached error term it is another one."""
    subject = random_subject(tmp_path, "gpt2", "topk", hook="blocks.1.hook_resid_post")
    model, sae = subject.model, subject.sae
    prompts = subject.prompts([[1, 2, 3]])
    readouts = subject.readouts(READOUT, 1)

    def gradient(at_sae) -> torch.Tensor:
        """Of the readout in the embedding, `at_sae` acting at the SAE's hook."""
        from sae_verify.model.sites import edit_at

        leaf = run(model, prompts, model.hook_point("blocks.0.hook_resid_pre")).resid.detach().requires_grad_()
        handle = edit_at(model.adapter, model.module, subject.point, at_sae)
        try:
            with torch.enable_grad():
                out = run(model, prompts, model.hook_point("blocks.0.hook_resid_pre"), lambda _: leaf).logits
                (found,) = torch.autograd.grad(out[0, readouts[0].positive] - out[0, readouts[0].negative], leaf)
        finally:
            handle.remove()
        return found

    plain = gradient(lambda x: x)
    ours = gradient(lambda x: spliced(sae, x, torch.zeros(*x.shape[:2], 16, dtype=f64)))
    detached = gradient(lambda x: sae.reconstruct(x) + sae.error(x).detach())
    assert torch.allclose(ours, plain, atol=1e-12)
    assert (detached - plain).norm() > 0.1 * plain.norm()


def test_batches_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sae_verify.discover import attribution

    subject = random_subject(tmp_path, "llama", "relu")
    readouts = [READOUT, TokenAgainstAll(4), LogitDifference(7, 3)]
    whole = attribute(subject, PROMPTS, readouts)
    monkeypatch.setattr(attribution, "BUDGET", 1)
    assert attribute(subject, PROMPTS, readouts).scores == pytest.approx(whole.scores, abs=1e-12)
    alone = attribute(subject, [PROMPTS[1]], readouts[1])
    assert alone.scores[0] == pytest.approx(whole.scores[1], abs=1e-12)


def test_what_is_refused(tmp_path: Path) -> None:
    subject = random_subject(tmp_path, "llama", "relu")
    with pytest.raises(InputError, match="method"):
        attribute(subject, PROMPTS, READOUT, method="shap")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="steps"):
        attribute(subject, PROMPTS, READOUT, steps=0)
    with pytest.raises(InputError, match="2 readouts for 3"):
        attribute(subject, PROMPTS, [READOUT] * 2)
    with pytest.raises(InputError, match="with itself"):
        attribute(subject, PROMPTS, LogitDifference(3, 3))
