"""Keeping a float64 run in float64 where the Hugging Face code drops to float32 (norms, softmax)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_LOW = (torch.float32, torch.float16, torch.bfloat16)


class FullPrecision(TorchFunctionMode):
    """Inside, no float64 tensor is narrowed: `.float()`, `.to(float32)` and `softmax(dtype=float32)` keep float64.

    RMSNorm and softmax of Hugging Face models compute in float32 whatever the model's dtype, so that a float64 model
    agrees with its own definition to 1e-7 only. With this mode it does to 1e-14. It changes no weight and no formula.
    """

    def __init__(self) -> None:
        super().__init__()
        self._paused = False

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave user code inside the run alone."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run `func`, without the narrowing."""
        kwargs = dict(kwargs or {})
        wide = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        if wide and not self._paused:
            if func is Tensor.float:
                return args[0]
            if func in (functional.softmax, torch.softmax, Tensor.softmax, Tensor.to):
                args = tuple(torch.float64 if value in _LOW else value for value in args)
                if kwargs.get("dtype") in _LOW:
                    kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)
