"""Contrast, codes and alignment: planted features are found, with the activations that were planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sae_verify.discover import Subject, aligned, codes, contrast, direction, promoted
from sae_verify.discover.subject import logits
from sae_verify.errors import FeatureError, InputError, PromptError, ShapeError, TokenError
from sae_verify.problem import LogitDifference, TokenAgainstAll

from . import planted
from .planted import D, f64

PRE = "blocks.0.hook_resid_pre"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Tokens 1 to 9 embed without the third axis; token 10 adds 5 along it, token 11 takes 2."""
    model = planted.model(tmp_path_factory.mktemp("contrast"))
    generator = torch.Generator().manual_seed(0)
    for token in range(12):  # 0 pads
        vector = torch.randn(D, generator=generator, dtype=f64)
        vector[3] = {0: 9.0, 10: 5.0, 11: -2.0}.get(token, 0.0)
        planted.set_embedding(model, token, vector)
    return Subject(model, planted.sae(PRE))


def test_the_planted_feature_is_found_at_the_last_position(marked: Subject) -> None:
    first, second = [[1, 2, 10], [3, 10], [4, 5, 6, 10]], [[1, 2, 7], [3, 8], [10, 9], [4, 5, 6]]
    found = contrast(marked, first, second)
    for by in ("difference", "auroc", "effect"):
        best = found.top(3, by)[0]  # type: ignore[arg-type]
        assert best.feature == 3
        assert best.first == pytest.approx(5.0)
        assert best.second == 0.0
        assert (best.first_firing, best.second_firing) == (1.0, 0.0)
        assert best.auroc == 1.0
        assert best.auroc_interval[0] > 0.5
    assert found.top(1, "effect")[0].effect == np.inf


def test_pooling_sees_the_feature_anywhere(marked: Subject) -> None:
    first, second = [[10, 1, 2], [3, 10, 4]], [[1, 2, 3], [4, 5, 6]]
    assert codes(marked, first, "last")[:, 3].tolist() == [0.0, 0.0]
    assert codes(marked, first, "max")[:, 3] == pytest.approx([5.0, 5.0])
    assert codes(marked, first, "mean")[:, 3] == pytest.approx([5 / 3, 5 / 3])
    assert contrast(marked, first, second, over="max").top(1)[0].feature == 3
    assert codes(marked, [[1, 2], [1, 2, 3, 4]], "max")[0, 3] == 0.0
    # Padding of the shorter prompt counts for nothing.
    assert codes(marked, [[10], [1, 2, 3, 4]], "mean")[0, 3] == pytest.approx(5.0)


def test_features_larger_on_the_second_set(marked: Subject) -> None:
    found = contrast(marked, [[1, 2], [3, 4]], [[1, 11], [3, 11]])
    planted_one = 3 + D  # the negative axis
    assert planted_one not in [row.feature for row in found.top(16, "auroc")]
    row = next(row for row in found.top(16, "auroc", both=True) if row.feature == planted_one)
    assert row.difference == pytest.approx(-2.0)
    assert row.auroc == 0.0


def test_a_single_prompt(marked: Subject) -> None:
    alone = contrast(marked, [[1, 10]])
    assert alone.top(1)[0].feature == 3
    assert alone.top(1)[0].difference == pytest.approx(5.0)
    assert np.isnan(alone.top(1)[0].auroc)
    with pytest.raises(InputError, match="no second set"):
        alone.top(1, "auroc")
    against = contrast(marked, [[1, 10]], [[1, t] for t in range(2, 10)])
    best = against.top(1)[0]
    assert (best.feature, best.auroc) == (3, 1.0)
    assert np.isnan(best.difference_interval[0])


def test_chance_is_not_mistaken_for_a_feature(marked: Subject) -> None:
    """Prompts drawn from the same tokens: no feature of sixteen is beyond chance, the planted one is."""
    rng = np.random.default_rng(0)
    same = [[int(t)] for t in rng.integers(1, 10, 40)]
    found = contrast(marked, same[:20], same[20:])
    assert not any(row.beyond_chance for row in found.top(16, both=True))
    found = contrast(marked, [[10]] * 20, same[20:])
    assert found.row(3).beyond_chance


def test_what_is_refused(marked: Subject, tmp_path: Path) -> None:
    with pytest.raises(PromptError):
        contrast(marked, [])
    with pytest.raises(PromptError):
        contrast(marked, "a text")
    with pytest.raises(InputError, match="over is"):
        contrast(marked, [[1]], over="first")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        contrast(marked, [[1]], level=1.0)
    with pytest.raises(InputError, match="by is"):
        contrast(marked, [[1]], [[2]]).top(1, "size")  # type: ignore[arg-type]
    wide = planted.sae(PRE)
    with pytest.raises(ShapeError):
        Subject(marked.model, type(wide)(**{**_tensors(9), "subtract_b_dec": True, "source": wide.source}))
    with pytest.raises(TokenError):
        direction(marked, LogitDifference(1, 99))


def _tensors(d: int) -> dict[str, torch.Tensor]:
    eye = torch.eye(d, dtype=f64)
    return {"W_enc": eye, "W_dec": eye, "b_dec": eye[0], "b_enc": eye[0]}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_alignment_finds_the_planted_row_and_is_the_effect_on_the_logits(tmp_path: Path, family: str) -> None:
    model = planted.model(tmp_path, family, layers=1)
    post, readout = "blocks.0.hook_resid_post", LogitDifference(3, 7)
    axes = Subject(model, planted.sae(post))
    w = direction(axes, readout)
    basis = torch.linalg.qr(torch.cat([torch.from_numpy(w)[:, None], torch.eye(D, dtype=f64)[:, 1:]], 1))[0].T
    sign = float(torch.sign(basis[0] @ torch.from_numpy(w)))
    found = Subject(model, planted.sae(post, basis))
    best = aligned(found, readout, both=False)[0]
    assert best.feature == (0 if sign > 0 else D)
    assert best.cosine == pytest.approx(1.0)
    against = aligned(found, readout, 2, both=True)
    assert {a.feature for a in against} == {0, D}
    # On the real model: at a state orthogonal to w the norm does not change to first order along w, so that the slope
    # of the readout there is ||w|| over the norm's denominator.
    prompts = found.prompts([[1, 2, 3]])

    def set_to(vector: torch.Tensor):
        return lambda _: lambda x: vector.expand_as(x)

    orthogonal = 2.0 * torch.linalg.qr(torch.from_numpy(w)[:, None], mode="complete")[0][:, 1]
    step = 1e-5 * torch.from_numpy(w / np.linalg.norm(w))
    up, down = (logits(found, prompts, set_to(orthogonal + s))[0] for s in (step, -step))
    slope = float(((up - down)[3] - (up - down)[7]) / 2e-5)
    seen = orthogonal - orthogonal.mean() if family == "gpt2" else orthogonal
    denominator = float(seen.square().mean() + 0.01) ** 0.5  # the tiny models' epsilon
    assert slope == pytest.approx(np.linalg.norm(w) / denominator, rel=1e-6)


def test_promoted_tokens(tmp_path: Path) -> None:
    model = planted.model(tmp_path, layers=1)
    with torch.no_grad():
        model.adapter.lm_head(model.module).weight[5] = torch.eye(D, dtype=f64)[2] * 4  # type: ignore[index]
    subject = Subject(model, planted.sae("blocks.0.hook_resid_post"))
    assert promoted(subject, 2, 3)[0].token == 5
    logits = [p.logit for p in promoted(subject, 2, 20)]
    assert logits == sorted(logits, reverse=True)
    assert sum(logits) == pytest.approx(0.0, abs=1e-9)
    assert promoted(subject, 2 + D, 1, suppressed=True)[0].token == 5
    with pytest.raises(FeatureError):
        promoted(subject, 99)
    with pytest.raises(InputError):
        promoted(subject, 2, 0)
    assert direction(subject, TokenAgainstAll(5)).shape == (D,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_models_are_widened_and_wide_ones_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    from sae_verify.discover import attribute, explain

    narrow = Subject(planted.model(tmp_path, dtype=dtype), planted.sae("blocks.0.hook_resid_post").to(torch.float32))
    prompts = [[1, 2, 3], [4, 5]]
    assert np.isfinite(codes(narrow, prompts, "mean")).all()
    assert np.isfinite(attribute(narrow, prompts, LogitDifference(3, 7)).scores).all()
    assert np.isfinite(explain(narrow, prompts[0], prompts[1], LogitDifference(3, 7)).everything)
    wide = Subject(planted.model(tmp_path), narrow.sae)
    with pytest.raises(InputError, match="never narrowed"):
        codes(wide, prompts)
