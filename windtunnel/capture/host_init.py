"""Large models built on the host: their values are left out, so that they need neither time nor memory.

`Llama(config)` builds 8 B parameters in 32 GB of host memory before `.to("cuda")`. In shadow mode nobody reads
them: the operating system hands out pages only when they are written, so not writing them costs nothing. Only
``torch.nn.init`` and casts of whole modules (`.half()`, `.to(dtype)`) are touched, only for host tensors of
more than ``LARGE`` elements, and the run says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import init

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind

LARGE = 1 << 20

_NAMES = (
    "uniform_ normal_ trunc_normal_ constant_ ones_ zeros_ xavier_uniform_ xavier_normal_ kaiming_uniform_ "
    "kaiming_normal_ orthogonal_ _no_grad_trunc_normal_"
).split()


class HostInit:
    """Leaves out the initialisation of large host tensors while installed."""

    def __init__(self) -> None:
        self._originals: dict[str, Callable[..., Any]] = {}

    def install(self) -> None:
        """Replace the functions of ``torch.nn.init``."""
        for name in _NAMES:
            original = getattr(init, name, None)
            if original is not None:
                self._originals[name] = original
                setattr(init, name, _sparing(original))
        self._apply: Any = torch.nn.Module._apply
        torch.nn.Module._apply = _sparing_apply(self._apply)  # type: ignore[method-assign]

    def remove(self) -> None:
        """Put them back."""
        for name, original in self._originals.items():
            setattr(init, name, original)
        if self._originals:
            torch.nn.Module._apply = self._apply  # type: ignore[method-assign]
        self._originals.clear()


def _sparing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sparing(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if _is_large_host(tensor):
            _note()
            return tensor
        return original(tensor, *args, **kwargs)

    return sparing


def _sparing_apply(original: Any) -> Any:
    """``Module._apply`` that casts large host parameters without reading or writing them."""

    @functools.wraps(original)
    def apply(self: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
        if getattr(fn, "_spares_host", False):
            return original(self, fn, recurse)

        def sparing(tensor: Any) -> Any:
            if not _is_large_host(tensor) or not tensor.is_floating_point():
                return fn(tensor)
            probe = fn(tensor.detach().new_empty(1))
            if isinstance(probe, VirtualTensor) or probe.device.type != "cpu":
                return fn(tensor)
            if probe.dtype is tensor.dtype:
                return tensor
            _note()
            return torch.empty_strided(tensor.shape, tensor.stride(), dtype=probe.dtype)

        sparing._spares_host = True  # type: ignore[attr-defined]
        return original(self, sparing, recurse)

    return apply


def _note() -> None:
    VirtualTensor.state.recorder.notice(NoticeKind.SKIPPED, "values of large models on the host are left out")


def _is_large_host(tensor: Any) -> bool:
    plain = isinstance(tensor, torch.Tensor) and not isinstance(tensor, VirtualTensor)
    return plain and tensor.device.type == "cpu" and tensor.numel() > LARGE
