"""Values that the host asks for: ``item()``, ``equal``. The host waits for them, as on a real card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program import marks

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten


def _item(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensor: VirtualTensor = args[0]
    state.recorder.emit(marks.ITEM, (tensor.meta,))
    values = tensor.host_values
    return state.policy.scalar(tensor) if values is None else values.item()


def _equal(state: State, info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first, second = args[0], args[1]
    state.recorder.emit(marks.ITEM, (first.meta,))
    if first.shape != second.shape:
        return False
    a = first.host_values if isinstance(first, VirtualTensor) else first
    b = second.host_values if isinstance(second, VirtualTensor) else second
    if a is not None and b is not None:
        return bool(torch.equal(a, b))
    return first is second


HANDLERS = {
    aten._local_scalar_dense.default: _item,
    aten.equal.default: _equal,
}
