"""Turns what PyTorch dispatches into ``OpSpec``, with PyTorch's own FLOP count beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from windtunnel.program.op import Attribute, OpSpec, TensorSpec


def tensor_spec(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), tuple(tensor.stride()))


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _plain(value: Any) -> Attribute:
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)  # type: ignore[misc]
    return value if isinstance(value, (int, float, bool, str, type(None))) else str(value)


def op_spec(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: object) -> OpSpec:
    """The spec of one call: tensors in schema order, everything else by name."""
    inputs: list[torch.Tensor] = []
    attributes: list[tuple[str, Attribute]] = []
    for index, argument in enumerate(func._schema.arguments):
        value = args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
        found = _tensors(value)
        inputs += found
        if not found:
            attributes.append((argument.name, _plain(value)))
    return OpSpec(
        str(func), tuple(map(tensor_spec, inputs)), tuple(map(tensor_spec, _tensors(out))), tuple(attributes)
    )


class Recorder(TorchDispatchMode):
    """Keeps (spec, PyTorch's count or None) of everything dispatched below it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[OpSpec, int | None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        count = formula(*args, **(kwargs or {}), out_val=out) if formula else None
        self.calls.append((op_spec(func, args, kwargs or {}, out), count))
        return out


def record(run: Callable[[], object]) -> list[tuple[OpSpec, int | None]]:
    with Recorder() as recorder:
        run()
    return recorder.calls
