"""Large models built on the host: their initial values are left out, so that they need neither time nor memory.

`Llama(config)` builds 8 B parameters in 32 GB of host memory before `.to("cuda")`. In shadow mode nobody reads
them: the operating system hands out pages only when they are written, so not writing them costs nothing. Only
``torch.nn.init`` is touched, only for host tensors of more than ``LARGE`` elements, and the run says so.
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

    def remove(self) -> None:
        """Put them back."""
        for name, original in self._originals.items():
            setattr(init, name, original)
        self._originals.clear()


def _sparing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def sparing(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if _is_large_host(tensor):
            VirtualTensor.state.recorder.notice(
                NoticeKind.SKIPPED, "initial values of large tensors on the host are left out"
            )
            return tensor
        return original(tensor, *args, **kwargs)

    return sparing


def _is_large_host(tensor: Any) -> bool:
    plain = isinstance(tensor, torch.Tensor) and not isinstance(tensor, VirtualTensor)
    return plain and tensor.device.type == "cpu" and tensor.numel() > LARGE
