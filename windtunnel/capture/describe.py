"""What is known of an operator from its schema alone, and how a call becomes an ``OpSpec``."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.capture.meta import dtype_name, meta_of
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.op import Attribute, OpSpec, TensorSpec

_TAG = torch.Tag

_SHAPES_KNOWN = ("aten.index.Tensor",)
"""Tagged as data-dependent, but their handler leaves only cases in which shapes follow from shapes."""

_SHARES_UNSAID = ("aten._unsafe_view.default",)
"""Results share the argument's storage although the schema does not say so: the results of linear layers."""


class OpInfo:
    """Schema facts of one operator.

    Attributes:
        returns_nothing: in place, and shapes never change (list operations, fused optimizers).
        returns_view: some result aliases an argument without being written.
        writes: (position, name) of the arguments that are written.
        dynamic: the result's shape or value depends on data.
        cacheable: the same key always gives the same shapes.
    """

    __slots__ = (
        "base_name",
        "cacheable",
        "dynamic",
        "func",
        "name",
        "names",
        "namespace",
        "returns_nothing",
        "returns_view",
        "skip",
        "writes",
    )

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.func = func
        self.name = str(func)
        self.base_name = ".".join(self.name.split(".")[:2])
        self.namespace = self.name.partition(".")[0]
        self.names = [argument.name for argument in schema.arguments]
        self.skip = frozenset({"device", "layout", "pin_memory", "generator", "non_blocking"})
        self.returns_view = self.name in _SHARES_UNSAID or any(
            r.alias_info is not None and not r.alias_info.is_write for r in schema.returns
        )
        self.returns_nothing = not schema.returns
        self.writes = [
            (position, argument.name)
            for position, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        dynamic = _TAG.data_dependent_output in func.tags or _TAG.dynamic_output_shape in func.tags
        self.dynamic = dynamic and self.name not in _SHAPES_KNOWN
        self.cacheable = not self.dynamic and _TAG.inplace_view not in func.tags


def op_spec(info: OpInfo, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> OpSpec:
    """The recorded form of one call and its result."""
    inputs: list[TensorSpec] = []
    attributes: list[tuple[str, Attribute]] = []
    given = list(zip(info.names, args)) + list(kwargs.items())
    for name, value in given:
        if _tensors_into(value, inputs) or name in info.skip:
            continue
        attributes.append((name, _attribute(value)))
    outputs: list[TensorSpec] = []
    _tensors_into(out, outputs)
    return OpSpec(info.name, tuple(inputs), tuple(outputs), tuple(attributes))


def _tensors_into(value: Any, specs: list[TensorSpec]) -> bool:
    if isinstance(value, VirtualTensor):
        specs.append(value.meta.spec)
        return True
    if isinstance(value, torch.Tensor):
        specs.append(meta_of(value).spec)
        return True
    if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
        for item in value:
            _tensors_into(item, specs)
        return True
    return False


def _attribute(value: Any) -> Attribute:
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(
            item if item is None or isinstance(item, (bool, int, float, str)) else str(item) for item in value
        )
    return str(value)
