"""Peak memory beside the file's own size: describing never widens, loading float32 never copies.

Measured in a process of its own, as the kernel's high-water mark, which counts mapped pages that were read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

D, M = 1024, 20480

PROBE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from sae_verify.sae import describe, load_sae

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

def peak(action, path):
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = status("VmRSS")
    features = action(path).d_sae
    return status("VmHWM") - before, features

root = Path(sys.argv[1])
actions = [(describe, kind) for kind in ("float32", "bfloat16", "pt", "npz")] + [(load_sae, "float32")]
found = {}
for action, kind in actions:
    action(root / "small" / kind)  # what imports and first calls take is not the file's
    found[f"{action.__name__} {kind}"] = peak(action, root / "large" / kind)
print(json.dumps(found))
"""


def stored(directory: Path, kind: str, d: int, m: int) -> Path:
    """An SAE in one of the layouts, and the path to load."""
    directory.mkdir(parents=True)
    g = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (d, m), "W_dec": (m, d), "b_enc": (m,), "b_dec": (d,), "threshold": (m,)}
    w = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    if kind == "npz":
        np.savez(directory / "params.npz", **{name: t.numpy() for name, t in w.items()})
    elif kind == "pt":
        names = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"]}
        names |= {"decoder.weight": w["W_dec"].T, "bias": w["b_dec"]}
        torch.save({name: t.bfloat16().contiguous() for name, t in names.items()}, directory / "ae.pt")
        (directory / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    else:
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        save_file({name.lower(): t.to(dtype) for name, t in w.items()}, directory / "params.safetensors")
        (directory / "config.json").write_text('{"architecture": "jump_relu"}')
    return directory


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of memory")
def test_peak_memory_is_below_one_and_a_half_times_the_file(tmp_path):
    sizes = {}
    for kind in ("float32", "bfloat16", "pt", "npz"):
        stored(tmp_path / "small" / kind, kind, 64, 512)
        large = stored(tmp_path / "large" / kind, kind, D, M)
        sizes[kind] = sum(file.stat().st_size for file in large.iterdir())
    done = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 5
    for name, (peak, features) in found.items():
        ratio = peak / sizes[name.split()[1]]
        assert features == M
        assert ratio < 1.5, f"{name} took {ratio:.2f} times the file"
        assert ratio > 0.5  # it is measured at all: the weights were read
