"""``tensor.data = on_the_card`` for a tensor on the host, as scripts and ``fully_shard`` move a model.

PyTorch's setter refuses tensor types that differ, and the virtual card's is one of its own. Swapping keeps the
tensor the same object, so modules and optimizers that hold it see it move.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from windtunnel.capture.tensor import VirtualTensor

_plain: Any = torch.Tensor.data


class _Data:
    """The attribute ``data`` of plain tensors; only a card tensor given to one on the host is new."""

    def __get__(self, tensor: torch.Tensor | None, owner: Any = None) -> Any:
        if tensor is None:
            return self
        with _as_itself(tensor):
            return _plain.__get__(tensor)

    def __set__(self, tensor: torch.Tensor, new: torch.Tensor) -> None:
        if isinstance(new, VirtualTensor) and type(tensor) in (torch.Tensor, torch.nn.Parameter):
            _swap(tensor, new.detach())
        else:
            with _as_itself(tensor):
                _plain.__set__(tensor, new)


def _as_itself(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Parameters that lazy modules have yet to shape let only PyTorch's own getter pass, and this one is not it."""
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return torch._C.DisableTorchFunctionSubclass()
    return nullcontext()


def _swap(tensor: torch.Tensor, moved: torch.Tensor) -> None:
    if isinstance(tensor, torch.nn.Parameter):
        moved = torch.nn.Parameter(moved, requires_grad=tensor.requires_grad)
    else:
        moved.requires_grad_(tensor.requires_grad)
    torch.utils.swap_tensors(tensor, moved)


def install() -> None:
    """Patch ``Tensor.data``, once per process."""
    torch.Tensor.data = _Data()  # type: ignore[assignment]
