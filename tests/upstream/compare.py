"""The one comparison: same active sets and values, on 10,000 random activations, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ACTIVATIONS = 10_000
Upstream = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From activations to the dense code and the output, in the dtype of the activations."""


def activations(d: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(ACTIVATIONS, d, generator=generator, dtype=torch.float64) + 0.3


def randomise(module: torch.nn.Module, seed: int = 0, *, leave: tuple[str, ...] = ()) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name not in leave:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def dense(values: Tensor, indices: Tensor, size: int) -> Tensor:
    return torch.zeros(len(values), size, dtype=values.dtype).scatter_(1, indices, values)


def assert_same(ours: Any, theirs: Upstream, x: Tensor) -> None:
    """Float64 decides the active sets; ties are none. In float32 both are within 1e-6 of the largest value."""
    wide = _to(ours, torch.float64)
    with torch.no_grad():
        code, output = theirs(x)
    z = wide.encode(x)
    assert int((wide.ties(x) > 0).sum()) == 0
    assert torch.equal(z != 0, code != 0)
    assert bool((code != 0).any())
    assert _apart(z, code) <= 1e-12
    assert _apart(wide.decode(z, x), output) <= 1e-12


def assert_close_in_float32(ours: Any, theirs: Upstream, x: Tensor) -> None:
    """The same where both round: a feature at the edge may differ, and is counted."""
    x = x.float()
    with torch.no_grad():
        code, output = theirs(x)
    z = ours.encode(x)
    same = ((z != 0) == (code != 0)).all(dim=1)
    assert float(same.double().mean()) > 0.999
    assert _apart(z[same], code[same]) <= 1e-6
    assert _apart(ours.decode(z, x)[same], output[same]) <= 1e-6


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def _to(ours: Any, dtype: torch.dtype) -> Any:
    if hasattr(ours, "to"):
        return ours.to(dtype)
    import dataclasses

    fields = {f.name: getattr(ours, f.name) for f in dataclasses.fields(ours) if f.init}
    return dataclasses.replace(ours, **{k: v.to(dtype) for k, v in fields.items() if torch.is_tensor(v)})
