"""Names that carry no vendor, ``torch.accelerator``, ``torch.Stream``, ``torch.Event``: the card answers to them.

PyTorch's C++ asks a backend's device guard here, which a backend written in Python cannot supply.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from windtunnel.capture import streams
from windtunnel.capture.backend import BACKEND
from windtunnel.capture.graphs import NeutralGraph
from windtunnel.capture.module import module as card
from windtunnel.capture.tensor import VirtualTensor

AS_THE_CARD = (
    "synchronize",
    "empty_cache",
    "memory_allocated",
    "max_memory_allocated",
    "memory_reserved",
    "max_memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "reset_accumulated_memory_stats",
    "current_stream",
    "set_stream",
    "device_count",
)
"""What the device module answers under the same name."""


def install() -> None:
    """Replace them. What PyTorch's own classes made, or subclasses of them, still counts as an instance."""
    accelerator: Any = torch.accelerator
    for name in AS_THE_CARD:
        setattr(accelerator, name, getattr(card, name))
    accelerator.get_memory_info = card.mem_get_info
    accelerator.current_device_index = accelerator.current_device_idx = card.current_device
    accelerator.set_device_index = accelerator.set_device_idx = card.set_device
    accelerator.device_index = _device_index
    accelerator.get_device_capability = _capability
    accelerator.empty_host_cache = lambda: None
    accelerator.Graph = NeutralGraph
    torch.Stream = _stand_in(torch.Stream, streams.Stream)  # type: ignore[misc]
    torch.Event = _stand_in(torch.Event, streams.Event)  # type: ignore[misc]


@contextlib.contextmanager
def _device_index(index: int | None) -> Iterator[None]:
    with card.device(index):
        yield


_DTYPES = {
    "fp8": (torch.float8_e4m3fn, torch.float8_e5m2),
    "bf16": (torch.bfloat16,),
    "fp16": (torch.float16,),
    "fp32": (torch.float32, torch.complex64),
    "fp64": (torch.float64, torch.complex128),
}
_INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _capability(device: Any = None) -> dict[str, Any]:
    """The dtypes a tensor may have: those the chip has a rate for, and integers."""
    peaks = VirtualTensor.state.chip.peak_flops
    floats = {dtype for name, dtypes in _DTYPES.items() if name in peaks for dtype in dtypes}
    return {"supported_dtypes": floats | set(_INTEGERS)}


def _stand_in(plain: Any, of_card: Any) -> Any:
    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, plain)

        def __subclasscheck__(cls, other: type) -> bool:
            return other is cls or issubclass(other, plain)

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            device = args[0] if args else kwargs.get("device")
            if "stream_id" in kwargs or not _is_card(device):
                return plain(*args, **kwargs)
            return of_card(**{key: value for key, value in kwargs.items() if key != "device"})

    return Meta(plain.__name__, (), {"__doc__": plain.__doc__, "__module__": "torch"})


def _is_card(device: Any) -> bool:
    """Without a device PyTorch takes the accelerator, which is the card; on NVIDIA's it is called ``cuda``."""
    if device is None or isinstance(device, int):
        return True
    return torch.device(device).type in (BACKEND, "cuda")
