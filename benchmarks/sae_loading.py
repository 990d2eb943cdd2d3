"""Claim: an SAE loads within 2 times of reading its tensors, and is described in memory near its file's own size.

Reading is copying every tensor out of the same file, in the dtype that runs; the pages are in the file cache. Loading
maps the file, checks every value and shape, and widens what is in half precision. Peak memory is the kernel's
high-water mark of a process of its own. `python -m benchmarks.sae_loading large` describes one of (3584, 131072) in
bfloat16, 1.9 GB.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sae_verify.sae import load_sae

SHAPES = ((768, 24576), (2304, 16384))
LARGE = (3584, 131072)
DTYPES = (torch.float32, torch.bfloat16)
REPEATS = 5

PROBE = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from sae_verify.sae import describe
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
describe(sys.argv[1])  # a small one: what imports and first calls take is not the file's
Path("/proc/self/clear_refs").write_text("5")
before, start = status("VmRSS"), time.perf_counter()
found = describe(sys.argv[2])
print(json.dumps({"peak": status("VmHWM") - before, "seconds": time.perf_counter() - start, "d_sae": found.d_sae}))
"""


def write(directory: Path, d: int, m: int, dtype: torch.dtype) -> Path:
    """A random Gemma Scope 2 directory."""
    directory.mkdir()
    g = torch.Generator().manual_seed(0)
    shapes = {"w_enc": (d, m), "w_dec": (m, d), "b_enc": (m,), "b_dec": (d,), "threshold": (m,)}
    tensors = {name: torch.empty(shape, dtype=dtype).normal_(generator=g) for name, shape in shapes.items()}
    save_file(tensors, directory / "params.safetensors")
    (directory / "config.json").write_text('{"architecture": "jump_relu"}')
    return directory


def read(directory: Path) -> int:
    """Copy every tensor out of the file, in the dtype that an SAE runs in."""
    with safe_open(directory / "params.safetensors", framework="pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (not a dict)
        return sum(tensor.to(torch.float32, copy=True).numel() for tensor in tensors)


def seconds(action: Callable[[], object]) -> float:
    """Median wall time."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def described(directory: Path, small: Path) -> None:
    """Print time and peak memory of describing, beside the file's size."""
    done = subprocess.run([sys.executable, "-c", PROBE, str(small), str(directory)], capture_output=True, check=True)
    answer, size = json.loads(done.stdout), (directory / "params.safetensors").stat().st_size
    print(f"  described in {answer['seconds']:.2f} s with a peak of {answer['peak'] / size:.2f} times the file")


def compared(d: int, m: int, dtype: torch.dtype, scratch: Path, *, load: bool) -> None:
    """Print the ratios of one shape and dtype."""
    small, directory = write(scratch / "small", 64, 512, dtype), write(scratch / "sae", d, m, dtype)
    size = (directory / "params.safetensors").stat().st_size / 1e6
    print(f"({d}, {m}) {str(dtype).removeprefix('torch.')}, {size:.0f} MB:")
    if load:
        load_sae(directory)  # warm up
        reading, loading = seconds(lambda: read(directory)), seconds(lambda: load_sae(directory))
        ratio = loading / reading
        print(f"  read in {reading * 1e3:.0f} ms, loaded in {loading * 1e3:.0f} ms: {ratio:.2f} times")
    described(directory, small)


def main() -> None:
    """Print ratios for each shape and dtype."""
    large = "large" in sys.argv[1:]
    for d, m in (LARGE,) if large else SHAPES:
        for dtype in (torch.bfloat16,) if large else DTYPES:
            with tempfile.TemporaryDirectory() as scratch:
                compared(d, m, dtype, Path(scratch), load=not large)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
