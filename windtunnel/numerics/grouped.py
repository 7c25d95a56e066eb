"""Grouped matrix products (experts of a mixture): ``torch._grouped_mm`` as a chip computes it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.matmul import IEEE, MathMode, chip_matmul
from windtunnel.numerics.profiles import NumericProfile


def chip_grouped_mm(
    a: Tensor,
    b: Tensor,
    offsets: Tensor | None = None,
    *,
    profile: NumericProfile,
    mode: MathMode = IEEE,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """One product per group, groups given by cumulative ends ``offsets`` [G] (integers).

    | a | b | result | groups split |
    | --- | --- | --- | --- |
    | [T, K] | [G, K, N] | [T, N] | rows of a |
    | [G, M, K] | [K, T] | [M, T] | columns of b |
    | [M, T] | [T, N] | [G, M, N] | the inner dimension |
    | [G, M, K] | [G, K, N] | [G, M, N] | nothing (``offsets`` None) |

    Rows or columns past the last end belong to no group: zero. Empty groups are fine.

    Raises:
        WindtunnelError: E705 where offsets do not fit the operands.
    """

    def multiply(x: Tensor, y: Tensor) -> Tensor:
        return chip_matmul(x, y, profile=profile, mode=mode, out_dtype=out_dtype)

    if a.dim() == 3 and b.dim() == 3:
        return multiply(a, b)
    spans = group_spans(a, b, offsets)
    dtype = out_dtype or a.dtype
    if a.dim() == 2 and b.dim() == 3:
        out = torch.zeros(a.shape[0], b.shape[2], dtype=dtype)
        for group, (first, last) in enumerate(spans):
            out[first:last] = multiply(a[first:last], b[group])
        return out
    if a.dim() == 3 and b.dim() == 2:
        out = torch.zeros(a.shape[1], b.shape[1], dtype=dtype)
        for group, (first, last) in enumerate(spans):
            out[:, first:last] = multiply(a[group], b[:, first:last])
        return out
    parts = [multiply(a[:, first:last], b[first:last]) for first, last in spans]
    return torch.stack(parts) if parts else torch.zeros(0, a.shape[0], b.shape[1], dtype=dtype)


def group_spans(a: Tensor, b: Tensor, offsets: Tensor | None) -> list[tuple[int, int]]:
    """First and last (exclusive) index of each group; without offsets, for two 3-D operands, the whole length.

    Raises:
        WindtunnelError: E705 where offsets do not fit the operands.
    """
    if a.dim() == 3 and b.dim() == 3:
        return [(0, a.shape[2])] * a.shape[0]
    return list(pairwise([0, *_ends(a, b, offsets)]))


def _ends(a: Tensor, b: Tensor, offsets: Tensor | None) -> list[int]:
    ends = [] if offsets is None else [int(end) for end in offsets.tolist()]
    split = b.shape[1] if a.dim() == 3 else a.shape[1] if b.dim() == 2 else a.shape[0]
    groups = a.shape[0] if a.dim() == 3 else b.shape[0] if b.dim() == 3 else len(ends)
    rising = all(x <= y for x, y in pairwise([0, *ends]))
    if offsets is None or len(ends) != groups or not rising or (ends and ends[-1] > split):
        raise WindtunnelError(
            "E705",
            "offsets of a grouped product do not fit its operands",
            hint="give the cumulative ends of the groups, rising, one per group, int32",
            values={"offsets": ends, "a": tuple(a.shape), "b": tuple(b.shape)},
        )
    return ends
