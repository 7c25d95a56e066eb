"""Shapes of list operations without PyTorch's inference, which takes milliseconds for a thousand tensors."""

from __future__ import annotations

from typing import Any

from windtunnel.capture.describe import OpInfo
from windtunnel.capture.meta import contiguous, intern
from windtunnel.capture.tensor import VirtualTensor, fresh

_PREFIX = "aten._foreach_"
_KEEP_SHAPE = frozenset(
    """
    abs acos add addcdiv addcmul asin atan ceil clamp_max clamp_min cos cosh div erf erfc exp expm1 floor
    frac lerp lgamma log log10 log1p log2 maximum minimum mul neg pow reciprocal round rsqrt sigmoid sign
    sin sinh sqrt sub tan tanh trunc clone
    """.split()
)


def results(info: OpInfo, args: tuple[Any, ...]) -> list[VirtualTensor] | None:
    """Fresh results like the first list, or None where that rule does not hold.

    It holds for elementwise operations on dense floating tensors of one dtype, and for norms.
    """
    name = info.base_name.removeprefix(_PREFIX)
    if not info.base_name.startswith(_PREFIX) or info.writes or not isinstance(args[0], list):
        return None
    tensors: list[VirtualTensor] = args[0]
    dtype = tensors[0].meta.dtype if tensors else None
    if dtype is None or not dtype.is_floating_point or not _one_dtype(args, dtype):
        return None
    if name == "norm":
        return [fresh(contiguous(dtype, ())) for _ in tensors]
    if name not in _KEEP_SHAPE or not all(_dense(tensor) for tensor in tensors):
        return None
    return [fresh(intern(dtype, t.meta.shape, t.meta.stride)) for t in tensors]


def _one_dtype(args: tuple[Any, ...], dtype: Any) -> bool:
    lists = [value for value in args if isinstance(value, list)]
    return all(
        isinstance(tensor, VirtualTensor) and tensor.meta.dtype is dtype
        for values in lists
        for tensor in values
        if not isinstance(tensor, (int, float))
    )


def _dense(tensor: VirtualTensor) -> bool:
    """Whether the elements fill a block of memory, in whatever order of dimensions."""
    meta = tensor.meta
    return meta.storage_bytes - meta.offset * meta.dtype.itemsize == meta.spec.nbytes
