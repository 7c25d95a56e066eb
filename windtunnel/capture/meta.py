"""Interned descriptions of tensors: one object per (dtype, shape, stride, offset), compared by identity."""

from __future__ import annotations

import torch

from windtunnel.program.op import TensorSpec

DTYPE_NAMES: dict[torch.dtype, str] = {}


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` → ``bfloat16``."""
    name = DTYPE_NAMES.get(dtype)
    if name is None:
        name = DTYPE_NAMES[dtype] = str(dtype).removeprefix("torch.")
    return name


class Meta:
    """Everything about a tensor but its data. Equal ones are the same object, so keys compare fast.

    Attributes:
        storage_bytes: bytes a storage needs to hold a tensor laid out like this.
        spec: the same for the recording (offset left out: it does not change a kernel's work).
    """

    __slots__ = ("dtype", "numel", "offset", "shape", "spec", "storage_bytes", "stride")

    def __init__(
        self, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.stride = stride
        self.offset = offset
        self.spec = TensorSpec(dtype_name(dtype), shape, stride)
        self.numel = self.spec.numel
        extent = 0
        if self.numel:
            extent = offset + 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        self.storage_bytes = extent * dtype.itemsize


_interned: dict[tuple[object, ...], Meta] = {}


def intern(dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Meta:
    """The one ``Meta`` with these values."""
    key = (dtype, shape, stride, offset)
    meta = _interned.get(key)
    if meta is None:
        meta = _interned[key] = Meta(dtype, shape, stride, offset)
    return meta


def meta_of(tensor: torch.Tensor) -> Meta:
    """The description of an ordinary (CPU or meta) tensor."""
    return intern(tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


def contiguous(dtype: torch.dtype, shape: tuple[int, ...]) -> Meta:
    """The description of a fresh contiguous tensor."""
    stride: list[int] = []
    step = 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return intern(dtype, shape, tuple(reversed(stride)), 0)


def to_meta_tensor(meta: Meta) -> torch.Tensor:
    """A tensor on PyTorch's meta device laid out like ``meta``, for shape inference."""
    if meta.offset == 0:
        return torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype, device="meta")
    extent = meta.storage_bytes // meta.dtype.itemsize
    base = torch.empty(extent, dtype=meta.dtype, device="meta")
    return base.as_strided(meta.shape, meta.stride, meta.offset)
