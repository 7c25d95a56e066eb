"""``torch.empty(..., pin_memory=True)``: page-locked host memory, which C++ would ask an allocator for."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils import _device

from windtunnel.capture import pinned
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence

_FACTORIES = (
    "empty",
    "zeros",
    "ones",
    "full",
    "rand",
    "randn",
    "tensor",
    "empty_like",
    "zeros_like",
    "empty_strided",
    "arange",
)


def install(patches: Patches, pretence: Pretence) -> None:
    """Wrap the factories that take ``pin_memory``."""
    _device._device_constructors()  # knows factories by identity; filled once, before wrapping
    for name in _FACTORIES:
        patches.set(torch, name, _pinning(getattr(torch, name)))


def _pinning(factory: Any) -> Any:
    @functools.wraps(factory)
    def make(*args: Any, **kwargs: Any) -> Any:
        if not kwargs.pop("pin_memory", False):
            return factory(*args, **kwargs)
        result = factory(*args, **kwargs)
        pinned.mark(result)
        return result

    return make
