"""Page-locked host memory, remembered in Python: PyTorch's own needs an allocator in C++."""

from __future__ import annotations

import weakref
from typing import Any

import torch

_addresses: dict[int, int] = {}


def pin(tensor: torch.Tensor) -> torch.Tensor:
    """A page-locked copy of a host tensor; the tensor itself when it is pinned already."""
    if is_pinned(tensor):
        return tensor
    copy = tensor.clone()
    mark(copy)
    return copy


def mark(tensor: torch.Tensor) -> None:
    """Remember that the memory of a host tensor is page-locked."""
    storage = tensor.untyped_storage()
    address = storage.data_ptr()
    _addresses[address] = _addresses.get(address, 0) + 1
    weakref.finalize(storage, _forget, address)


def is_pinned(tensor: torch.Tensor) -> bool:
    """Whether a host tensor is page-locked."""
    if tensor.device.type != "cpu" or not _addresses:
        return False
    return tensor.untyped_storage().data_ptr() in _addresses


def _forget(address: int) -> None:
    left = _addresses.get(address, 1) - 1
    if left:
        _addresses[address] = left
    else:
        _addresses.pop(address, None)


def patch_tensor() -> None:
    """``pin_memory`` and ``is_pinned`` of tensors and storages."""
    cls: Any = torch.Tensor

    def pin_memory(self: torch.Tensor, device: Any = None) -> torch.Tensor:
        if self.device.type != "cpu":
            raise RuntimeError(f"cannot pin '{self.type()}' only dense CPU tensors can be pinned")
        return pin(self)

    def tensor_is_pinned(self: torch.Tensor, device: Any = None) -> bool:
        return is_pinned(self)

    cls.pin_memory, cls.is_pinned = pin_memory, tensor_is_pinned
