"""Trains one byte-level model of each architecture on this repository's own text, for measurements beyond the cases.

`python -m benchmarks.train_bytes DIRECTORY [STEPS]` writes DIRECTORY/gpt2, DIRECTORY/llama and DIRECTORY/gemma2 in the
Hugging Face format, and into each SAEs at the hooks that 1, 2 and 3 blocks follow, `sae_1` to `sae_3`, and prompts
with clamps that suppress what the model would say there, `flips_1.json` to `flips_3.json` (benchmarks/byte_flips.py).
A token is a byte; there is no tokenizer, prompts are token ids. A model that is there already is not trained again.
`python -m benchmarks.byte_models DIRECTORY` measures on them. Not run by `python -m benchmarks`.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import byte_flips
from examples.training.models import CONTEXT, N_LAYERS, gemma2, gpt2, llama
from sae_verify.model import HookPoint, Model, encode_prompts, load_model, run
from sae_verify.sae import SAE, save_sae, train_sae
from sae_verify.sae.base import Source

ROOT = Path(__file__).parent.parent
BATCH = 32
PEAK = 3e-3
"""Largest learning rate."""
HELD_OUT = 16
"""Every sixteenth file is for the measurement only."""
BLOCKS = (1, 2, 3)
"""After the hook of an SAE."""
D_SAE, ACTIVE = 256, 16
"""Features of an SAE, and those that are on at a time (TopK)."""
STRETCHES = 1500
"""Stretches of text, of CONTEXT bytes, that an SAE is trained on."""
FLIPS = 24
"""Of each model and hook."""
ARCHITECTURES: dict[str, Callable[[int], PreTrainedModel]] = {"gpt2": gpt2, "llama": llama, "gemma2": gemma2}


def text() -> tuple[Tensor, Tensor]:
    """Bytes to train on and bytes held out, (n,) each."""
    files = sorted(p for folder in ("sae_verify", "theory", "examples", "tests") for p in (ROOT / folder).rglob("*"))
    files = [p for p in files if p.suffix in (".py", ".md")]
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for number, file in enumerate(files):
        parts[number % HELD_OUT == 0].append(file.read_bytes())
    train, held = (torch.frombuffer(bytearray(b"\n".join(part)), dtype=torch.uint8).long() for part in parts)
    return train, held


def windows(data: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random stretches, (count, CONTEXT)."""
    starts = torch.randint(len(data) - CONTEXT, (count, 1), generator=generator)
    return data[starts + torch.arange(CONTEXT)]


def loss(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Next-byte cross-entropy in bits."""
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:]) / torch.tensor(2.0).log()


def train(make: Callable[[int], PreTrainedModel], data: Tensor, steps: int) -> PreTrainedModel:
    """AdamW, one cycle of the learning rate, the same weights for the same seed."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = make(256).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK, total_steps=steps, pct_start=0.1, cycle_momentum=False
    )
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model, windows(data, BATCH, generator)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
    return model.eval()


def hook(blocks: int) -> str:
    """The hook point that so many blocks follow."""
    return f"blocks.{N_LAYERS - 1 - blocks}.hook_resid_post"


def fitted(model: Model, name: str, blocks: int, data: Tensor) -> tuple[SAE, float]:
    """A TopK SAE on the residuals of text, and the fraction of their variance that it leaves unexplained."""
    some = windows(data, STRETCHES, torch.Generator().manual_seed(2))
    with torch.no_grad():
        parts = [
            run(model, encode_prompts(model, rows.tolist()), HookPoint.parse(hook(blocks))).resid
            for rows in some.split(BATCH)
        ]
    x = torch.cat([part.flatten(0, 1) for part in parts]).float()
    sae, report = train_sae(x, architecture="topk", d_sae=D_SAE, k=ACTIVE, batch=512, seed=0)
    return dataclasses.replace(sae, source=Source(hook_name=hook(blocks), model_name=f"bytes/{name}")), report.fvu


def prepared(directory: Path, name: str, data: Tensor, held: Tensor) -> None:
    """Write the SAEs and the flips of one model."""
    model = load_model(directory)
    for blocks in BLOCKS:
        sae, unexplained = fitted(model, name, blocks, data)
        save_sae(sae, directory / f"sae_{blocks}")
        flips = list(byte_flips.find(model, sae, held, FLIPS, torch.Generator().manual_seed(3)))
        byte_flips.save(flips, directory / f"flips_{blocks}.json")
        sizes = sorted(len(flip.features) for flip in flips)
        print(
            f"  {blocks} blocks: {unexplained:.3f} of the variance unexplained, {len(flips)} flips by {sizes} features"
        )


def main(directory: Path, steps: int = 2500) -> None:
    """Train and write all, and print bits a byte on text that was held out."""
    data, held = text()
    check = windows(held, 256, torch.Generator().manual_seed(1))
    for name, make in ARCHITECTURES.items():
        begun = time.process_time()
        if not (directory / name / "model.safetensors").exists():
            model = train(make, data, steps)
            model.save_pretrained(directory / name)
            with torch.no_grad():
                bits = float(loss(model, check))
            print(f"{name}: {bits:.2f} bits a byte on held-out text (uniform 8)")
        prepared(directory / name, name, data, held)
        print(f"  {time.process_time() - begun:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m benchmarks.train_bytes DIRECTORY [STEPS]")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *(int(steps) for steps in sys.argv[2:]))
