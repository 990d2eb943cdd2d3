"""`python -m benchmarks [name ...]`: run them all, or some, on one thread."""

from __future__ import annotations

import importlib
import os
import sys

NAMES = (
    "tail_attack",
    "last_layer_sandwich",
    "checking",
    "linear_worst_case",
    "subspace_report",
    "verified_checker",
    "through_blocks",
    "several_positions",
    "crown",
    "scaling",
    "sae_loading",
    "published_attack",
)

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    for name in sys.argv[1:] or NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"== {name}: {(module.__doc__ or '').splitlines()[0]}")
        module.main()
