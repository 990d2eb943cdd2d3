"""Every format: told apart, loaded, and equal to the source's algebra on 10,000 activations."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from sae_verify.errors import InputError, MetadataError, UnsupportedError
from sae_verify.sae import describe, load_sae, load_transcoder, save_sae, support
from sae_verify.sae.formats.registry import FORMATS, format_of

from .sources import SAES, TRANSCODERS, D, Written

ACTIVATIONS = 10_000


def written(table, name, directory) -> Written:
    return table[name][1](directory, np.random.default_rng(zlib.crc32(name.encode())))


def activations(n: int = ACTIVATIONS, seed: int = 7) -> torch.Tensor:
    return 2 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.3


def assert_equal(ours, reference, x: torch.Tensor) -> None:
    """Same active sets, codes and outputs within 1e-9 in float64; ties must not decide anything."""
    code, output = reference(x.numpy())
    z = ours.encode(x)
    assert int((ours.ties(x) > 0).sum()) == 0
    np.testing.assert_array_equal(z.numpy() != 0, code != 0)
    assert (code != 0).any()
    assert (code == 0).any()
    np.testing.assert_allclose(z.numpy(), code, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.decode(z, x).numpy(), output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SAES)
def test_an_sae_is_what_its_source_says(name, tmp_path):
    path, reference = written(SAES, name, tmp_path)
    sae = load_sae(path)
    assert sae.source.format == SAES[name][0]
    assert sae.source.path == path
    x = activations(1_000 if "pursuit" in name else ACTIVATIONS)
    assert_equal(sae.to(torch.float64), reference, x)
    # In float32, the dtype that runs: within 1e-6 of the largest, where rounding does not decide what is on.
    small = x[:1_000].float()
    code, output = reference(small.double().numpy())
    z = sae.encode(small)
    same = ((z != 0).numpy() == (code != 0)).all(axis=1)
    assert same.mean() > 0.99
    assert np.abs(z.numpy() - code)[same].max() <= 1e-6 * np.abs(code).max()
    assert np.abs(sae.decode(z, small).numpy() - output)[same].max() <= 1e-6 * np.abs(output).max()


@pytest.mark.parametrize("name", TRANSCODERS)
def test_a_transcoder_is_what_its_source_says(name, tmp_path):
    path, reference = written(TRANSCODERS, name, tmp_path)
    with pytest.raises(UnsupportedError, match="transcoder"):
        load_sae(path)
    ours = load_transcoder(path)
    assert ours.source.format == TRANSCODERS[name][0]
    doubled = dataclasses.replace(
        ours, **{f.name: t.double() for f in dataclasses.fields(ours) if torch.is_tensor(t := getattr(ours, f.name))}
    )
    assert_equal(doubled, reference, activations())


@pytest.mark.parametrize("name", [*SAES, *TRANSCODERS])
def test_describing_agrees_with_loading(name, tmp_path):
    table = SAES if name in SAES else TRANSCODERS
    path = written(table, name, tmp_path).path
    facts = describe(path)
    loaded = load_sae(path) if name in SAES else load_transcoder(path)
    assert (facts.d_in, facts.d_sae, facts.format) == (loaded.d_in, loaded.d_sae, loaded.source.format)
    assert (facts.hook_name, facts.notes) == (loaded.source.hook_name, loaded.source.notes)
    assert facts.transcoder == (name in TRANSCODERS)
    rows = loaded.W_dec.norm(dim=1)
    columns = loaded.W_enc.norm(dim=0)
    assert facts.decoder_row_norms == pytest.approx((float(rows.min()), float(rows.max())), rel=1e-5)
    assert facts.encoder_column_norms == pytest.approx((float(columns.min()), float(columns.max())), rel=1e-5)


@pytest.mark.parametrize("name", SAES)
def test_saving_keeps_the_algebra(name, tmp_path):
    (tmp_path / "from").mkdir()
    sae = load_sae(written(SAES, name, tmp_path / "from").path)
    target = tmp_path / ("to.safetensors" if "groupmax" in name else "to")
    again = load_sae(save_sae(sae, target))
    x = activations(200)
    assert type(again) is type(sae)
    assert all(torch.equal(a, b) for a, b in zip(sae.tensors().values(), again.tensors().values(), strict=True))
    wide, wide_again = sae.to(torch.float64), again.to(torch.float64)
    torch.testing.assert_close(wide_again.encode(x), wide.encode(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(wide_again.reconstruct(x), wide.reconstruct(x), rtol=1e-12, atol=1e-12)
    assert again.source.hook_name == sae.source.hook_name


def test_every_format_has_a_case_and_a_row():
    names = {f.name for f in FORMATS}
    assert len(names) == len(FORMATS)
    assert {table[name][0] for table in (SAES, TRANSCODERS) for name in table} | {"safetensors"} == names
    assert [row.name for row in support().formats] == [f.name for f in FORMATS]
    assert all(row.title and row.layout and row.architectures for row in support().formats)


def test_the_readme_names_every_format_and_architecture():
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    for row in support().formats:
        assert row.title in readme, row.title
    for row in support().architectures:
        word = {"standard": "ReLU", "matching_pursuit": "matching pursuit"}.get(row.name, row.kind.removesuffix("SAE"))
        assert word in readme, row.name
    assert all(name in readme.lower() for name in support().refused)


def test_hook_points_and_models_where_the_files_say_them(tmp_path):
    expected = {
        "gemma-scope/params": ("blocks.20.hook_resid_post", "google/gemma-2-2b"),
        "gemma-scope-2/resid": ("blocks.3.hook_resid_post", "gemma-v3-1b-pt"),
        "dictionary-learning/topk": ("blocks.3.hook_resid_post", "gpt2"),
        "sparsify/topk": ("blocks.3.hook_resid_post", None),
        "llama-scope/released": ("blocks.3.hook_resid_post", None),
        "goodfire/release": ("blocks.19.hook_resid_post", "meta-llama/Llama-3.1-8B-Instruct"),
        "deepseek-r1/release": ("blocks.19.hook_resid_post", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
        "qwen-scope/release": ("blocks.3.hook_resid_post", "Qwen/Qwen3-1.7B-Base"),
        "saelens/before-6-defaults": ("blocks.3.hook_resid_post", None),
    }
    for i, (name, labels) in enumerate(expected.items()):
        (tmp_path / str(i)).mkdir()
        source = load_sae(written(SAES, name, tmp_path / str(i)).path).source
        assert (source.hook_name, source.model_name) == labels, name


def test_loading_with_a_reference_finds_a_silent_mismatch(tmp_path):
    path, reference = written(SAES, "sparsify/topk", tmp_path)
    x = activations(50)
    output = torch.from_numpy(reference(x.numpy()).output)
    load_sae(path, reference=(x, output))
    # The same files, read with a scale that they were not trained with.
    with pytest.raises(MetadataError, match="differs by"):
        load_sae(path, input_scale=1.5, reference=(x, output))
    with pytest.raises(MetadataError, match="unexplained"):  # random weights reconstruct nothing
        load_sae(path, reference=x)


def test_a_format_can_be_named(tmp_path):
    path = written(SAES, "deepseek-r1/release", tmp_path).path.rename(tmp_path / "weights.pt")
    with pytest.raises(InputError, match="format="):
        load_sae(path)
    assert load_sae(path, format="deepseek-r1").source.format == "deepseek-r1"
    with pytest.raises(InputError, match="format is 'magic'"):
        load_sae(path, format="magic")


def test_a_file_stands_for_its_directory(tmp_path):
    for name in ("dictionary-learning/topk", "gemma-scope-2/resid", "sparsify/topk"):
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        path = written(SAES, name, folder).path
        for file in path.iterdir():
            assert format_of(file)[1] == path
