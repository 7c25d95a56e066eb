"""``tensor.data = on_the_card`` for a tensor on the host, as scripts and ``fully_shard`` move a model.

The tensor stays the same object, so modules and optimizers that hold it see it move. The way back to the host is
the card tensor's own (``tensor.VirtualTensor.data``).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from windtunnel.capture.tensor import VirtualTensor, swap_data

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
            swap_data(tensor, new.detach())
        else:
            with _as_itself(tensor):
                _plain.__set__(tensor, new)


def _as_itself(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Parameters that lazy modules have yet to shape let only PyTorch's own getter pass, and this one is not it."""
    if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)):
        return torch._C.DisableTorchFunctionSubclass()
    return nullcontext()


def install() -> None:
    """Patch ``Tensor.data``, once per process."""
    torch.Tensor.data = _Data()  # type: ignore[assignment]
