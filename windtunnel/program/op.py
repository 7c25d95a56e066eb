"""One distinct operation of a recorded program, without PyTorch.

A program of 70,000 operations has a few hundred distinct ``OpSpec``; only those are priced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPE_BYTES: dict[str, float] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,  # two values to an element, as PyTorch packs them
    "float4_e2m1fn": 0.5,  # one value to an element, in recipes
    "complex32": 4,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}
"""Bytes per element by PyTorch's dtype name without ``torch.``."""

Scalar = int | float | bool | str | None
Attribute = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, stride (in elements) and dtype of one tensor argument or result."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] = ()

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, each read once. Broadcast (stride 0) dimensions count once."""
        extent = self.shape
        if self.stride:
            extent = tuple(size for size, step in zip(self.shape, self.stride, strict=True) if step)
            if 0 in self.shape:
                return 0
        return int(math.prod(extent) * DTYPE_BYTES[self.dtype])


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One distinct operation: name, tensor arguments, results, and every other argument.

    Attributes:
        name: ``namespace.op.overload`` as PyTorch prints it, e.g. ``aten.mm.default``, or
            ``windtunnel.<kernel>`` for virtual kernels, marks and host events, or ``c10d.<collective>``.
        inputs: tensor arguments in schema order, list arguments flattened. Absent optional tensors
            are left out; ``attributes`` then holds their name with None.
        outputs: tensor results, flattened.
        attributes: other arguments by schema name; lists as tuples, dtypes and devices as strings.
    """

    name: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    attributes: tuple[tuple[str, Attribute], ...] = ()

    def attribute(self, name: str, default: Attribute = None) -> Attribute:
        """The attribute called ``name``, or ``default``."""
        for key, value in self.attributes:
            if key == name:
                return value
        return default

    @property
    def base_name(self) -> str:
        """``aten.mm.default`` → ``aten.mm``."""
        return ".".join(self.name.split(".")[:2])
