"""What a card tensor says about where it is: ``device``, ``is_cuda``, ``type()``.

PyTorch's own code always sees the real device (``musa``). Scripts and libraries see ``cuda`` on NVIDIA cards,
and on others once the script has asked for a ``cuda`` device, so that ``x.device.type == "cuda"`` takes the
branch the script meant and ``x.device == torch.device("cuda:0")`` holds. Where the real stack would read
``musa`` each line that reads ``device.type`` is noted.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import torch

from windtunnel.capture.backend import BACKEND, DEVICE
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence, user_code
from windtunnel.capture.lazy_modules import OnTheCard
from windtunnel.capture.module import module as card
from windtunnel.capture.tensor import VirtualTensor


def install(patches: Patches, pretence: Pretence) -> None:
    """Put the properties on the card's tensor class."""
    devices: dict[int, torch.device] = {}

    def cuda_device() -> torch.device:
        index = card.current_device()
        found = devices.get(index)
        if found is None:
            found = devices[index] = torch.device("cuda", index)
        return found

    def device(self: torch.Tensor) -> torch.device:
        if pretence.speaks_cuda and user_code(sys._getframe(1).f_code):
            return cuda_device()
        return DEVICE

    def is_cuda(self: torch.Tensor) -> bool:
        if not user_code(sys._getframe(1).f_code):
            return False
        pretence.name("Tensor.is_cuda")
        return True

    plain_type: Any = torch.Tensor.type

    def type_(self: torch.Tensor, dtype: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        if dtype is not None:
            return plain_type(self, dtype, non_blocking, **kwargs)
        name = str(plain_type(self))
        return name.replace(f".{BACKEND}.", ".cuda.") if pretence.speaks_cuda else name

    plain_repr = VirtualTensor.__repr__

    def repr_(self: VirtualTensor, *, tensor_contents: Any = None) -> str:
        text = plain_repr(self)
        return (
            text.replace(f"device='{DEVICE}'", f"device='{cuda_device()}'") if pretence.speaks_cuda else text
        )

    patches.set(VirtualTensor, "__repr__", repr_)
    patches.set(VirtualTensor, "__str__", repr_)

    def shown_device(self: torch.Tensor) -> str:
        return str(cuda_device() if pretence.speaks_cuda else DEVICE)

    patches.set(VirtualTensor, "shown_device", property(shown_device))
    for kind in (VirtualTensor, OnTheCard):
        patches.set(kind, "device", property(device))
        patches.set(kind, "is_cuda", property(is_cuda))
    patches.set(VirtualTensor, "type", type_)
    if not pretence.native and not pretence.strict:
        _note_device_types(patches, pretence)


def _note_device_types(patches: Patches, pretence: Pretence) -> None:
    """Note lines that read ``.type`` of a ``cuda`` device: torch_musa would answer ``musa`` there.

    ``torch.device`` is a static type, so its attribute is replaced in its dictionary, which is reached as
    CPython's own tests do; where that is not possible these lines are not listed.
    """
    attributes = next((d for d in gc.get_referents(torch.device.__dict__) if isinstance(d, dict)), None)
    if attributes is None or "type" not in attributes:
        return
    original = attributes["type"]
    read: Any = original.__get__

    def type_(self: torch.device) -> str:
        name: str = read(self)
        if name == "cuda" and pretence.speaks_cuda and user_code(sys._getframe(1).f_code):
            pretence.name('device.type == "cuda"')
        return name

    def put(value: Any) -> None:
        attributes["type"] = value
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(torch.device))

    put(property(type_))
    patches.later(lambda: put(original))
