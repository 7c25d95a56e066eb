"""Measured kernels ready to be predicted: rows of one table, on one chip, by one library, as batches of work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.kernel_time import Floats, Ints
from windtunnel.program.work import Family


@dataclass(frozen=True, slots=True)
class MeasuredRows:
    """Rows of one file that share chip, library and kernel path.

    Attributes:
        parts: batches of equal length; the time of a row is the sum over its parts.
        seconds: measured; NaN where blank.
        shape_group: number of the shape group of each row, for leaving whole groups out of a fit.
        host_s: what the collector's host took for a row whatever its work, so that none was shorter. Rows that have it
            are predicted, but nothing is fitted to them.
    """

    file: str
    chip: str
    library: str
    index: Ints
    parts: tuple[Batch, ...]
    seconds: Floats
    shape_group: Ints
    host_s: float = 0.0

    def where(self, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> MeasuredRows:
        """The rows that ``mask`` selects."""
        return MeasuredRows(
            self.file,
            self.chip,
            self.library,
            self.index[mask],
            tuple(part.where(mask) for part in self.parts),
            self.seconds[mask],
            self.shape_group[mask],
            self.host_s,
        )

    def __len__(self) -> int:
        return len(self.index)


def shape_groups(*columns: Floats) -> Ints:
    """Rows with equal values in all columns share a number."""
    _, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return np.asarray(inverse.reshape(-1), dtype=np.int64)


def batch(
    family: Family,
    precision: str,
    dims: Mapping[str, Floats | float],
    *,
    bytes_read: Floats | float = 0.0,
    bytes_written: Floats | float = 0.0,
    flops: Floats | float = 0.0,
    vector_flops: Floats | float = 0.0,
    kernels: float = 1.0,
    variant: str = "",
) -> Batch:
    """A batch from columns; numbers are repeated to the length of the longest."""
    given: list[Floats | float] = [bytes_read, bytes_written, flops, vector_flops, *dims.values()]
    length = max(np.size(value) for value in given)

    def spread(value: Floats | float) -> Floats:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (length,)).copy()

    return Batch(
        family=family,
        precision=precision,
        variant=variant,
        flops=spread(flops),
        vector_flops=spread(vector_flops),
        bytes_read=spread(bytes_read),
        bytes_written=spread(bytes_written),
        kernels=spread(kernels),
        dims={name: spread(value) for name, value in dims.items()},
    )


def gemm(
    m: Floats,
    n: Floats,
    k: Floats,
    precision: str,
    *,
    variant: str = "",
    count: Floats | float = 1.0,
    weight_bytes: float | None = None,
    output_bytes: float = 2.0,
) -> Batch:
    """Dense products C[m, n] = A[m, k] · B[k, n]; ``count`` of them in a batch."""
    element = ELEMENT_BYTES[precision]
    read = count * (m * k * element + n * k * (element if weight_bytes is None else weight_bytes))
    return batch(
        Family.GEMM,
        precision,
        {"m": m, "n": n, "k": k, "batch": count},
        flops=2.0 * m * n * k * count,
        bytes_read=read,
        bytes_written=count * m * n * output_bytes,
        variant=variant,
    )


def attention(
    family: Family,
    precision: str,
    *,
    sequences: Floats,
    heads: Floats,
    kv_heads: Floats,
    q_len: Floats,
    kv_len: Floats,
    qk_dim: Floats,
    v_dim: Floats,
    causal: Floats | float = 1.0,
    window: Floats | float = 0.0,
    kv_element_bytes: float = 2.0,
    kv_bytes_per_token: Floats | None = None,
    variant: str = "",
) -> Batch:
    """Attention with queries and outputs of two bytes; flops count the full square."""
    per_token = (
        kv_heads * (qk_dim + v_dim) * kv_element_bytes if kv_bytes_per_token is None else kv_bytes_per_token
    )
    products = 5.0 / 2.0 if family is Family.ATTENTION_BACKWARD else 1.0
    scores = sequences * heads * q_len * kv_len
    return batch(
        family,
        precision,
        {
            "batch": sequences,
            "heads": heads,
            "kv_heads": kv_heads,
            "q_len": q_len,
            "kv_len": kv_len,
            "qk_dim": qk_dim,
            "v_dim": v_dim,
            "causal": causal,
            "window": window,
            "kv_bytes_per_token": per_token,
        },
        flops=2.0 * scores * (qk_dim + v_dim) * products,
        bytes_read=sequences * (q_len * heads * qk_dim * 2.0 + kv_len * per_token),
        bytes_written=sequences * q_len * heads * v_dim * 2.0,
        kernels=2.0 if family is Family.ATTENTION_BACKWARD else 1.0,
        variant=variant,
    )
