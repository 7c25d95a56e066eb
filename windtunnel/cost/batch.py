"""Many ``Work`` of one family, precision and kernel path as arrays: what family models take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.program.work import Family, Work

ELEMENT_BYTES: Mapping[str, float] = {
    "fp4": 0.5, "fp8": 1.0, "int8": 1.0, "bf16": 2.0, "fp16": 2.0, "tf32": 4.0, "fp32": 4.0, "fp64": 8.0,
}  # fmt: skip
"""Bytes of one matrix operand element by precision."""

WEIGHT_ONLY_BYTES: Mapping[str, float] = {"int8_wo": 1.0, "int4_wo": 0.5}
"""Bytes of a weight that is widened on its way into the tile, by kernel path."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrays of equal length, one entry per kernel; fields as in ``Work``.

    Measured tables with 100,000 rows build this directly; ``of_works`` builds it from a few ``Work``.
    """

    family: Family
    precision: str
    variant: str
    flops: Floats
    vector_flops: Floats
    bytes_read: Floats
    bytes_written: Floats
    kernels: Floats
    dims: Mapping[str, Floats]

    @classmethod
    def of_works(cls, works: Sequence[Work]) -> Batch:
        """The batch of works that share family, precision and variant (those of the first are taken)."""
        names = sorted({name for work in works for name, _ in work.dims})
        return cls(
            family=works[0].family,
            precision=works[0].precision,
            variant=works[0].variant,
            flops=np.array([work.flops for work in works], dtype=np.float64),
            vector_flops=np.array([work.vector_flops for work in works], dtype=np.float64),
            bytes_read=np.array([work.bytes_read for work in works], dtype=np.float64),
            bytes_written=np.array([work.bytes_written for work in works], dtype=np.float64),
            kernels=np.array([work.kernels for work in works], dtype=np.float64),
            dims={name: np.array([work.dim(name) for work in works], dtype=np.float64) for name in names},
        )

    def __len__(self) -> int:
        return len(self.flops)

    @property
    def bytes_moved(self) -> Floats:
        """Bytes read and written, each once."""
        return self.bytes_read + self.bytes_written

    def dim(self, name: str, default: float = 0.0) -> Floats:
        """The dimension called ``name``; ``default`` where it is absent or zero."""
        if name not in self.dims:
            return np.full(len(self), default)
        values = self.dims[name]
        return np.where(values == 0, default, values) if default else values

    def with_bytes(self, bytes_read: Floats, bytes_written: Floats) -> Batch:
        """The same kernels with other traffic."""
        return replace(self, bytes_read=bytes_read, bytes_written=bytes_written)

    def with_precision(self, precision: str) -> Batch:
        """The same kernels computed in another precision."""
        return self if precision == self.precision else replace(self, precision=precision)

    def where(self, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Batch:
        """The kernels that ``mask`` selects."""
        return replace(
            self,
            flops=self.flops[mask],
            vector_flops=self.vector_flops[mask],
            bytes_read=self.bytes_read[mask],
            bytes_written=self.bytes_written[mask],
            kernels=self.kernels[mask],
            dims={name: values[mask] for name, values in self.dims.items()},
        )

    def joined(self, others: Sequence[Batch]) -> Batch:
        """This batch followed by others of the same family; dimensions that one lacks are zero."""
        names = sorted({name for item in (self, *others) for name in item.dims})
        every = (self, *others)
        return replace(
            self,
            flops=np.concatenate([item.flops for item in every]),
            vector_flops=np.concatenate([item.vector_flops for item in every]),
            bytes_read=np.concatenate([item.bytes_read for item in every]),
            bytes_written=np.concatenate([item.bytes_written for item in every]),
            kernels=np.concatenate([item.kernels for item in every]),
            dims={name: np.concatenate([item.dim(name) for item in every]) for name in names},
        )
