"""Trains one byte-level model of each architecture on this repository's own text, for measurements beyond the cases.

`python -m benchmarks.train_bytes DIRECTORY [STEPS]` writes DIRECTORY/gpt2, DIRECTORY/llama and DIRECTORY/gemma2 in the
Hugging Face format. A token is a byte; there is no tokenizer, prompts are token ids. Not run by `python -m benchmarks`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from examples.training.models import CONTEXT, gemma2, gpt2, llama

ROOT = Path(__file__).parent.parent
BATCH = 32
PEAK = 3e-3
"""Largest learning rate."""
HELD_OUT = 16
"""Every sixteenth file is for the measurement only."""
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


def main(directory: Path, steps: int = 1500) -> None:
    """Train and write all, and print bits a byte on text that was held out."""
    data, held = text()
    check = windows(held, 256, torch.Generator().manual_seed(1))
    for name, make in ARCHITECTURES.items():
        begun = time.process_time()
        model = train(make, data, steps)
        model.save_pretrained(directory / name)
        with torch.no_grad():
            bits = float(loss(model, check))
        print(f"{name}: {bits:.2f} bits a byte on held-out text (uniform 8), {time.process_time() - begun:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m benchmarks.train_bytes DIRECTORY [STEPS]")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *(int(steps) for steps in sys.argv[2:]))
