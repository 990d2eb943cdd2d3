"""Against dictionary_learning: what its classes save is what we load.

The package's own __init__ imports language models; its classes need torch and einops alone.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import sys
import types

import pytest
import torch

from sae_verify.sae import load_sae, nested, unit_decoder

from .compare import activations, assert_close_in_float32, assert_same, randomise

found = importlib.util.find_spec("dictionary_learning")
if found is None:
    pytest.skip("dictionary_learning is not installed", allow_module_level=True)
for name in ("dictionary_learning", "dictionary_learning.trainers"):
    package = types.ModuleType(name)
    package.__path__ = [f"{place}/{'/'.join(name.split('.')[1:])}" for place in found.submodule_search_locations or ()]
    sys.modules[name] = package

dictionary = importlib.import_module("dictionary_learning.dictionary")
trainers = {
    name: importlib.import_module(f"dictionary_learning.trainers.{name}")
    for name in ("top_k", "batch_top_k", "matryoshka_batch_top_k")
}
D, M, K = 16, 64, 6
MAKERS = {
    "AutoEncoder": lambda: dictionary.AutoEncoder(D, M),
    "AutoEncoderNew": lambda: dictionary.AutoEncoderNew(D, M),
    "GatedAutoEncoder": lambda: dictionary.GatedAutoEncoder(D, M),
    "JumpReluAutoEncoder": lambda: dictionary.JumpReluAutoEncoder(D, M),
    "AutoEncoderTopK": lambda: trainers["top_k"].AutoEncoderTopK(D, M, K),
    "BatchTopKSAE": lambda: trainers["batch_top_k"].BatchTopKSAE(D, M, K),
    "MatryoshkaBatchTopKSAE": lambda: trainers["matryoshka_batch_top_k"].MatryoshkaBatchTopKSAE(D, M, K, [16, 48]),
}


def made(dict_class, directory):
    theirs = MAKERS[dict_class]()
    randomise(theirs)
    if "BatchTopK" in dict_class:
        theirs.threshold.fill_(1.25)
    torch.save(theirs.state_dict(), directory / "ae.pt")
    trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": M, "layer": 2, "k": K, "lm_name": "gpt2"}
    (directory / "config.json").write_text(json.dumps({"trainer": trainer}))
    return theirs


def upstream(module):
    def both(x):
        z = module.encode(x)
        return z, module.decode(z)

    return both


@pytest.mark.parametrize("dict_class", MAKERS)
def test_dictionaries(dict_class, tmp_path):
    theirs = made(dict_class, tmp_path)
    ours = load_sae(tmp_path)
    x = activations(D)
    assert_same(ours, upstream(copy.deepcopy(theirs).double()), x)
    assert_close_in_float32(ours, upstream(theirs), x)


def test_its_loader_rescales_as_unit_decoder_does(tmp_path):
    made("AutoEncoder", tmp_path)
    theirs = dictionary.AutoEncoder.from_pretrained(tmp_path / "ae.pt")
    ours = unit_decoder(load_sae(tmp_path).to(torch.float64))
    assert_close_in_float32(ours.to(torch.float32), upstream(theirs), activations(D))


def test_matryoshka_groups(tmp_path):
    theirs = made("MatryoshkaBatchTopKSAE", tmp_path).double()
    theirs.active_groups = 1
    ours = nested(load_sae(tmp_path), 16)

    def first_group(x):
        z = theirs.encode(x)
        assert not z[:, 16:].any()
        return z[:, :16], theirs.decode(z)

    assert_same(ours, first_group, activations(D))
