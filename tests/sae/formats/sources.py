"""Files of every source, written as the source writes them, beside its algebra."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file

from . import algebra
from .algebra import Array, Reference, Result, abstopk, groupmax, jump, layer_norm, matching_pursuit, relu, topk

D, M, OUT, K = 8, 24, 6, 5
HOOK = "blocks.3.hook_resid_post"


class Written(NamedTuple):
    path: Path
    reference: Reference


Writer = Callable[[Path, np.random.Generator], Written]
SAES: dict[str, tuple[str, Writer]] = {}
TRANSCODERS: dict[str, tuple[str, Writer]] = {}
"""By case: the format's name, and what writes it."""


def case(name: str, table: dict[str, tuple[str, Writer]] = SAES) -> Callable[[Writer], Writer]:
    def register(writer: Writer) -> Writer:
        table[name] = (name.split("/")[0], writer)
        return writer

    return register


def draw(rng: np.random.Generator, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Float32 values, held as float64."""
    return {name: rng.standard_normal(shape).astype(np.float32).astype(float) for name, shape in shapes.items()}


def tensors(arrays: dict[str, Array], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(array).to(dtype).contiguous() for name, array in arrays.items()}


def pair(rng: np.random.Generator, m: int = M, **more: tuple[int, ...]) -> dict[str, Array]:
    return draw(rng, W_enc=(D, m), W_dec=(m, D), b_enc=(m,), b_dec=(D,), **more)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# --- SAELens --------------------------------------------------------------------------------------------------------


def saelens(directory: Path, w: dict[str, Array], kind: str, **config: Any) -> Path:
    base: dict[str, Any] = {
        "architecture": kind,
        "d_in": D,
        "d_sae": M,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": HOOK, "model_name": "gpt2", "sae_lens_version": "6.54.0"},
    } | config
    write_json(directory / "cfg.json", {key: value for key, value in base.items() if value is not ...})
    save_file(tensors(w), directory / "sae_weights.safetensors")
    return directory


@case("saelens/abstopk")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng)
    path = saelens(directory, w, "abstopk", k=K, rescale_acts_by_decoder_norm=False)

    def reference(x: Array) -> Result:
        z = abstopk((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], K)
        return Result(z, z @ w["W_dec"] + w["b_dec"])

    return Written(path, reference)


@case("saelens/abstopk-rescaled")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng)
    path = saelens(directory, w, "abstopk", k=K, rescale_acts_by_decoder_norm=True)
    norms = np.linalg.norm(w["W_dec"], axis=1)

    def reference(x: Array) -> Result:
        z = abstopk(((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms, K)
        return Result(z, (z / norms) @ w["W_dec"] + w["b_dec"])

    return Written(path, reference)


def pursuit(name: str, *, threshold: float, steps: int | None, stop: bool, subtract: bool) -> None:
    @case(f"saelens/{name}")
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = draw(rng, W_dec=(M, D), b_dec=(D,))
        w["W_dec"] = (w["W_dec"] / np.linalg.norm(w["W_dec"], axis=1, keepdims=True)).astype(np.float32).astype(float)
        settings = {"residual_threshold": threshold, "max_iterations": steps, "stop_on_duplicate_support": stop}
        path = saelens(directory, w, "matching_pursuit", apply_b_dec_to_input=subtract, **settings)
        bias = w["b_dec"] if subtract else 0.0

        def reference(x: Array) -> Result:
            z = matching_pursuit(x - bias, w["W_dec"], threshold, steps or D, stop_on_duplicate=stop)
            return Result(z, z @ w["W_dec"] + bias)

        return Written(path, reference)


pursuit("matching-pursuit", threshold=0.5, steps=None, stop=True, subtract=True)
pursuit("matching-pursuit-steps", threshold=0.0, steps=4, stop=False, subtract=False)


@case("saelens/batchtopk-training")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng)
    path = saelens(directory, w, "batchtopk", k=K, rescale_acts_by_decoder_norm=False)
    save_file(
        tensors(w) | {"topk_threshold": torch.tensor(0.7, dtype=torch.float64)}, directory / "sae_weights.safetensors"
    )

    def reference(x: Array) -> Result:
        z = jump((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"], 0.7)
        return Result(z, z @ w["W_dec"] + w["b_dec"])

    return Written(path, reference)


def flat(name: str, **changes: Any) -> None:
    @case(f"saelens/before-6-{name}")
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng)
        stored = w | ({"scaling_factor": np.ones(M)} if name == "ones" else {})
        old = {"hook_point": HOOK, "hook_name": HOOK, "lr": 3e-4, "l1_coefficient": 1, "metadata": ...}
        old |= {"apply_b_dec_to_input": ..., "normalize_activations": ..., "architecture": ...}
        path = saelens(directory, stored, "standard", **(old | changes))
        k = changes.get("activation_fn_kwargs", {}).get("k")
        subtract = changes.get("apply_b_dec_to_input", True)

        def reference(x: Array) -> Result:
            a = (x - subtract * w["b_dec"]) @ w["W_enc"] + w["b_enc"]
            z = relu(a) if k is None else topk(a, k)
            return Result(z, z @ w["W_dec"] + w["b_dec"])

        return Written(path, reference)


flat("defaults")
flat("ones", finetuning_scaling_factor=False, normalize_activations=False)
flat("topk", activation_fn_str="topk", activation_fn_kwargs={"k": K}, normalize_activations="none")
flat("explicit", architecture="standard", apply_b_dec_to_input=False, normalize_activations=None)


def saelens_transcoder(architecture: str) -> None:
    @case(f"saelens/{architecture}", TRANSCODERS)
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = draw(rng, W_enc=(D, M), W_dec=(M, OUT), b_enc=(M,), b_dec=(OUT,))
        if "jumprelu" in architecture:
            w |= {"threshold": np.abs(draw(rng, t=(M,))["t"])}
        if "skip" in architecture:
            w |= draw(rng, W_skip=(OUT, D))
        metadata = {"hook_name": "blocks.3.ln2.hook_normalized", "hook_name_out": "blocks.3.hook_mlp_out"}
        path = saelens(directory, w, architecture, d_out=OUT, apply_b_dec_to_input=False)
        config = json.loads((path / "cfg.json").read_text())
        write_json(path / "cfg.json", config | {"metadata": metadata})

        def reference(x: Array) -> Result:
            z = jump(x @ w["W_enc"] + w["b_enc"], w.get("threshold", 0.0))
            skip = x @ w["W_skip"].T if "W_skip" in w else 0.0
            return Result(z, z @ w["W_dec"] + w["b_dec"] + skip)

        return Written(path, reference)


for one in ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"):
    saelens_transcoder(one)


# --- Gemma Scope ----------------------------------------------------------------------------------------------------


def plain_jump(w: dict[str, Array]) -> Reference:
    def reference(x: Array) -> Result:
        z = jump(x @ w["W_enc"] + w["b_enc"], w["threshold"])
        return Result(z, z @ w["W_dec"] + w["b_dec"])

    return reference


@case("gemma-scope/params")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng, threshold=(M,))
    place = directory / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    place.mkdir(parents=True)
    np.savez(place / "params.npz", **{name: array.astype(np.float32) for name, array in w.items()})
    return Written(place, plain_jump(w))


GEMMA_2 = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt", "width": M, "l0": 10, "type": "sae"}


@case("gemma-scope-2/resid")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng, threshold=(M,))
    write_json(directory / "config.json", GEMMA_2 | {"hf_hook_point_in": "model.layers.3.output"})
    save_file(tensors({name.lower(): array for name, array in w.items()}), directory / "params.safetensors")
    return Written(directory, plain_jump(w))


def gemma_2_transcoder(*, affine: bool) -> None:
    @case(f"gemma-scope-2/transcoder{'-affine' * affine}", TRANSCODERS)
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = draw(rng, W_enc=(D, M), W_dec=(M, OUT), b_enc=(M,), b_dec=(OUT,), threshold=(M,))
        w |= draw(rng, affine_skip_connection=(D, OUT)) if affine else {}
        hooks = {"hf_hook_point_in": "model.layers.3.pre_feedforward_layernorm.output"}
        hooks["hf_hook_point_out"] = "model.layers.3.post_feedforward_layernorm.output"
        write_json(directory / "config.json", GEMMA_2 | hooks | {"affine_connection": affine, "type": "transcoder"})
        save_file(tensors({name.lower(): array for name, array in w.items()}), directory / "params.safetensors")

        def reference(x: Array) -> Result:
            code, output = plain_jump(w)(x)
            return Result(code, output + x @ w["affine_skip_connection"] if affine else output)

        return Written(directory, reference)


gemma_2_transcoder(affine=False)
gemma_2_transcoder(affine=True)


# --- dictionary_learning --------------------------------------------------------------------------------------------


def dictionary(name: str, dict_class: str, activation: Callable[[Array], Array], *, subtract: bool = True) -> None:
    @case(f"dictionary-learning/{name}")
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng)
        linear = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "encoder.bias": w["b_enc"]}
        bias = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(dict_class, "b_dec")
        state = tensors(linear | {bias: w["b_dec"]})
        if dict_class in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
            state = tensors(w)
        if dict_class in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE", "AutoEncoderTopK"):
            state |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.5)}
        if dict_class == "JumpReluAutoEncoder":
            state["threshold"] = torch.full((M,), 0.5)
        if dict_class == "MatryoshkaBatchTopKSAE":
            state["group_sizes"] = torch.tensor([8, 16])
        torch.save(state, directory / "ae.pt")
        trainer = {"dict_class": dict_class, "activation_dim": D, "dict_size": M, "layer": 3, "lm_name": "gpt2"}
        write_json(directory / "config.json", {"trainer": trainer | {"submodule_name": "resid_post_layer_3"}})

        def reference(x: Array) -> Result:
            z = activation((x - subtract * w["b_dec"]) @ w["W_enc"] + w["b_enc"])
            return Result(z, z @ w["W_dec"] + w["b_dec"])

        return Written(directory, reference)


dictionary("standard", "AutoEncoder", relu)
dictionary("new", "AutoEncoderNew", relu, subtract=False)
dictionary("jumprelu", "JumpReluAutoEncoder", lambda a: jump(a, 0.5), subtract=False)
dictionary("topk", "AutoEncoderTopK", lambda a: topk(a, K))
dictionary("batchtopk", "BatchTopKSAE", lambda a: jump(a, 0.5))
dictionary("matryoshka", "MatryoshkaBatchTopKSAE", lambda a: jump(a, 0.5))


@case("dictionary-learning/gated")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng, gate_bias=(M,), mag_bias=(M,), r_mag=(M,))
    names = {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T, "decoder_bias": w["b_dec"]}
    torch.save(tensors(names | {name: w[name] for name in ("gate_bias", "mag_bias", "r_mag")}), directory / "ae.pt")
    write_json(directory / "config.json", {"trainer": {"dict_class": "GatedAutoEncoder", "layer": 3}})

    def reference(x: Array) -> Result:
        e = (x - w["b_dec"]) @ w["W_enc"]
        z = np.where(e + w["gate_bias"] > 0, relu(np.exp(w["r_mag"]) * e + w["mag_bias"]), 0.0)
        return Result(z, z @ w["W_dec"] + w["b_dec"])

    return Written(directory, reference)


# --- sparsify -------------------------------------------------------------------------------------------------------


def sparsify(activation: str | None, *, transcode: bool = False, skip: bool = False) -> None:
    k = 6
    name = (activation or "older") + "-transcoder" * transcode + "-skip" * skip

    @case(f"sparsify/{name}", TRANSCODERS if transcode else SAES)
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng, **({"W_skip": (D, D)} if skip else {}))
        stored = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"], "b_dec": w["b_dec"]}
        stored |= {"W_skip": w["W_skip"]} if skip else {}
        place = directory / "layers.3"
        place.mkdir()
        config = {"expansion_factor": 3, "normalize_decoder": True, "num_latents": 0, "k": k, "d_in": D}
        config |= {"activation": activation, "multi_topk": False, "skip_connection": skip} if activation else {}
        write_json(place / "cfg.json", config | ({"transcode": transcode} if activation else {"signed": False}))
        save_file(tensors(stored), place / "sae.safetensors")
        shape = groupmax if activation == "groupmax" else topk

        def reference(x: Array) -> Result:
            a = (x if transcode else x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
            z = shape(a, k)
            return Result(z, z @ w["W_dec"] + w["b_dec"] + (x @ w["W_skip"].T if skip else 0.0))

        return Written(place, reference)


sparsify(None)
for one in ("topk", "groupmax"):
    sparsify(one)
    sparsify(one, transcode=True)
    sparsify(one, transcode=True, skip=True)


# --- Llama Scope ----------------------------------------------------------------------------------------------------


def llama(name: str, act: str, norm: str, *, by_norm: bool, subtract: bool = False, threshold: float = 0.1) -> None:
    @case(f"llama-scope/{name}")
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng)
        stored = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
        stored |= {"decoder.weight": w["W_dec"].T, "decoder.bias": w["b_dec"]}
        (directory / "checkpoints").mkdir()
        save_file(tensors(stored), directory / "checkpoints" / "final.safetensors")
        mean = 13.25
        config = {"act_fn": act, "norm_activation": norm, "sparsity_include_decoder_norm": by_norm, "top_k": K}
        config |= {"d_model": D, "d_sae": M, "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": subtract}
        config |= {"jump_relu_threshold": threshold, "hook_point_in": HOOK, "hook_point_out": HOOK}
        write_json(
            directory / "hyperparams.json", config | {"dataset_average_activation_norm": {"in": mean, "out": mean}}
        )

        def reference(x: Array) -> Result:
            s = np.sqrt(D) / (np.linalg.norm(x, axis=1, keepdims=True) if norm == "token-wise" else mean)
            a = (x * s - subtract * w["b_dec"]) @ w["W_enc"] + w["b_enc"]
            rows = np.linalg.norm(w["W_dec"], axis=1)
            if act == "relu":
                z = relu(a)
            elif act == "topk":
                z = topk(a, K)
            else:  # what the release's own loader compares: biases and weights folded, rows of length one
                folded = (a / s) * rows if by_norm else a / s
                z = np.where(folded > threshold, a, 0.0)
            return Result(z, (z @ w["W_dec"] + w["b_dec"]) / s)

        return Written(directory, reference)


llama("released", "jumprelu", "dataset-wise", by_norm=True)
llama("plain", "jumprelu", "dataset-wise", by_norm=False, subtract=True)
llama("token-wise", "relu", "token-wise", by_norm=False)
llama("topk", "topk", "dataset-wise", by_norm=False)


# --- single torch files ---------------------------------------------------------------------------------------------


def openai(activation: str) -> None:
    @case(f"openai/{activation.lower()}")
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng)
        state: dict[str, Any] = tensors(
            {"pre_bias": w["b_dec"], "latent_bias": w["b_enc"]}
            | {"encoder.weight": w["W_enc"].T, "decoder.weight": w["W_dec"].T}
        )
        state["stats_last_nonzero"] = torch.zeros(M, dtype=torch.long)
        details = {"k": K, "postact_fn": "ReLU"} if activation == "TopK" else {}
        state |= {f"activation.{key}": value for key, value in details.items()}  # as torch gathers them, too
        torch.save(state | {"activation": activation, "activation_state_dict": details}, directory / "6.pt")

        def reference(x: Array) -> Result:
            normal, mean, deviation = layer_norm(x) if activation == "TopK" else (x, 0.0, 1.0)
            a = (normal - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
            z = topk(a, K) if activation == "TopK" else relu(a)
            return Result(z, (z @ w["W_dec"] + w["b_dec"]) * deviation + mean)

        return Written(directory / "6.pt", reference)


openai("ReLU")
openai("TopK")


def linear_layers(name: str, file: str, encoder: str, decoder: str) -> None:
    @case(name)
    def _(directory: Path, rng: np.random.Generator) -> Written:
        w = pair(rng)
        stored = {f"{encoder}.weight": w["W_enc"].T, f"{encoder}.bias": w["b_enc"]}
        stored |= {f"{decoder}.weight": w["W_dec"].T, f"{decoder}.bias": w["b_dec"]}
        torch.save(tensors(stored), directory / file)

        def reference(x: Array) -> Result:
            z = relu(x @ w["W_enc"] + w["b_enc"])
            return Result(z, z @ w["W_dec"] + w["b_dec"])

        return Written(directory / file, reference)


linear_layers("goodfire/release", "Llama-3.1-8B-Instruct-SAE-l19.pth", "encoder_linear", "decoder_linear")
linear_layers("deepseek-r1/release", "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "encoder", "decoder")


@case("qwen-scope/release")
def _(directory: Path, rng: np.random.Generator) -> Written:
    w = pair(rng, m=1024)
    place = directory / "SAE-Res-Qwen3-1.7B-Base-W1K-L0_50"
    place.mkdir()
    stored = {"W_enc": w["W_enc"].T, "W_dec": w["W_dec"].T, "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    torch.save(tensors(stored), place / "layer3.sae.pt")

    def reference(x: Array) -> Result:
        z = algebra.topk(x @ w["W_enc"] + w["b_enc"], 50)
        return Result(z, z @ w["W_dec"] + w["b_dec"])

    return Written(place / "layer3.sae.pt", reference)
