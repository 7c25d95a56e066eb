"""``nn.DataParallel`` on one card: its scatter and gather are CUDA code in PyTorch.

One process is one card here. DataParallel over several is refused: its answer is DistributedDataParallel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parallel import comm

from windtunnel.capture.backend import DEVICE
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.errors import WindtunnelError


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the functions of ``torch.nn.parallel.comm``."""
    for name in ("broadcast", "broadcast_coalesced", "reduce_add", "reduce_add_coalesced"):
        patches.set(comm, name, _refused)
    patches.set(comm, "scatter", _scatter)
    patches.set(comm, "gather", _gather)


def _scatter(
    tensor: torch.Tensor, devices: Any = None, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, ...]:
    if devices is not None and len(devices) > 1:
        _refused()
    return (tensor.to(DEVICE, non_blocking=True),)


def _gather(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    if len(tensors) > 1:
        _refused()
    return tensors[0]


def _refused(*args: Any, **kwargs: Any) -> None:
    raise WindtunnelError(
        "E412",
        "nn.DataParallel over several cards in one process is not simulated",
        hint="use DistributedDataParallel, which PyTorch recommends too, or device_ids=[0]",
    )
