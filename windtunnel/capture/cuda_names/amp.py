"""Automatic mixed precision under its CUDA name: regions, their dtype, and gradient scaling."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.amp import autocast_mode, grad_scaler

from windtunnel.capture.backend import BACKEND
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence

_BY_DEVICE = ("is_autocast_enabled", "get_autocast_dtype", "set_autocast_enabled", "set_autocast_dtype")


def install(patches: Patches, pretence: Pretence) -> None:
    """A region for ``cuda`` is one for the card; likewise its settings, with the defaults of CUDA."""
    region: Any = autocast_mode.autocast
    start = region.__init__
    cuda_dtype = torch.get_autocast_dtype("cuda")

    @functools.wraps(start)
    def init(
        self: Any,
        device_type: str,
        dtype: torch.dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if isinstance(device_type, str) and device_type.split(":")[0] == "cuda":
            pretence.name('torch.autocast("cuda")')
            device_type, dtype = BACKEND, dtype or cuda_dtype
        start(self, device_type, dtype, enabled, cache_enabled)

    patches.set(region, "__init__", init)
    for name in _BY_DEVICE:
        patches.set(torch, name, _by_device(getattr(torch, name)))
    patches.set(torch, "get_autocast_gpu_dtype", lambda: torch.get_autocast_dtype(BACKEND))
    patches.set(torch, "set_autocast_gpu_dtype", lambda dtype: torch.set_autocast_dtype(BACKEND, dtype))
    patches.set(autocast_mode, "is_autocast_available", _available(autocast_mode.is_autocast_available))
    patches.set(torch.amp, "is_autocast_available", autocast_mode.is_autocast_available)
    patches.set(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    torch.set_autocast_dtype(BACKEND, cuda_dtype)
    _install_scaler(patches, pretence)


def _by_device(function: Any) -> Any:
    """No device means CUDA's setting in PyTorch, so here the card's."""

    @functools.wraps(function)
    def of_card(*args: Any) -> Any:
        if not args or isinstance(args[0], (bool, torch.dtype)):
            return function(BACKEND, *args)
        kind = BACKEND if args[0] == "cuda" else args[0]
        return function(kind, *args[1:])

    return of_card


def _available(function: Any) -> Any:
    @functools.wraps(function)
    def is_autocast_available(device_type: str) -> bool:
        return device_type == "cuda" or bool(function(device_type))

    return is_autocast_available


def _install_scaler(patches: Patches, pretence: Pretence) -> None:
    scaler: Any = grad_scaler.GradScaler
    start = scaler.__init__

    @functools.wraps(start)
    def init(self: Any, device: str = "cuda", *args: Any, **kwargs: Any) -> None:
        if device == "cuda":
            pretence.name('GradScaler("cuda")')
            device = BACKEND
        start(self, device, *args, **kwargs)

    patches.set(scaler, "__init__", init)
