"""How far apart two tensors are: several measures next to each other, since each is blind to something.

Cosine and norms do not see one wrong row; the largest error does not see a bias; ULPs do not see a zero that
should have been small. Nothing here decides; thresholds are in ``locked`` and ``noise``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError

_INTEGERS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16}
_INTEGERS |= {torch.bfloat16: torch.int16}


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """A candidate against a reference, computed in FP64 over the elements that are finite in both.

    Attributes:
        relative_l2: norm of the difference over the norm of the reference; 0 if both are zero, infinite if
            only the reference is.
        max_absolute: largest absolute difference.
        cosine: of the angle between both; 1 if both are zero, 0 if one is.
        norm_ratio: norm of the candidate over that of the reference; 1 if both are zero.
        ulp_p50, ulp_p99, ulp_max: distance in units in the last place of the reference's dtype.
        bit_equal: fraction of elements with the same bits.
        special_mismatches: elements where one is NaN or infinite and the other is not the same.
        reference_norm: norm of the reference.
    """

    elements: int
    relative_l2: float
    max_absolute: float
    cosine: float
    norm_ratio: float
    ulp_p50: float
    ulp_p99: float
    ulp_max: float
    bit_equal: float
    special_mismatches: int
    reference_norm: float

    @property
    def identical(self) -> bool:
        """Same bits throughout."""
        return self.bit_equal == 1.0


def compare(reference: Tensor, candidate: Tensor) -> TensorComparison:
    """Compare two floating tensors of one shape. The candidate is first rounded to the reference's dtype.

    Raises:
        WindtunnelError: E711 if the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise WindtunnelError(
            "E711",
            "two tensors to compare have different shapes",
            hint="compare runs of the same model with the same batch",
            values={"reference": tuple(reference.shape), "candidate": tuple(candidate.shape)},
        )
    candidate = candidate.detach().to(reference.dtype)
    reference = reference.detach()
    finite = reference.isfinite() & candidate.isfinite()
    same_special = (reference == candidate) | (reference.isnan() & candidate.isnan())
    x, y = reference[finite].double(), candidate[finite].double()
    norm_x, norm_y = float(x.norm()), float(y.norm())
    difference = y - x
    ulps = _ulps(reference[finite], candidate[finite])
    same_bits = _same_bits(reference, candidate)
    return TensorComparison(
        elements=reference.numel(),
        relative_l2=_ratio(float(difference.norm()), norm_x, both_zero=0.0),
        max_absolute=float(difference.abs().max()) if x.numel() else 0.0,
        cosine=_cosine(x, y, norm_x, norm_y),
        norm_ratio=_ratio(norm_y, norm_x, both_zero=1.0),
        ulp_p50=_percentile(ulps, 0.5),
        ulp_p99=_percentile(ulps, 0.99),
        ulp_max=_percentile(ulps, 1.0),
        bit_equal=float(same_bits.double().mean()) if same_bits.numel() else 1.0,
        special_mismatches=int((~finite & ~same_special).sum()),
        reference_norm=norm_x,
    )


def compare_all(
    reference: Mapping[str, Tensor], candidate: Mapping[str, Tensor]
) -> dict[str, TensorComparison]:
    """Compare tensors by name, in the reference's order.

    Raises:
        WindtunnelError: E711 if the names or a shape differ.
    """
    if reference.keys() != candidate.keys():
        only = sorted(reference.keys() ^ candidate.keys())
        raise WindtunnelError(
            "E711",
            "two runs to compare have different tensors",
            hint="compare runs of the same model, with the same parameters trained",
            values={"in one run only": ", ".join(only[:8])},
        )
    return {name: compare(tensor, candidate[name]) for name, tensor in reference.items()}


class _Compared(Protocol):
    @property
    def relative_l2(self) -> float: ...
    @property
    def reference_norm(self) -> float: ...


def global_relative_l2(comparisons: Mapping[str, _Compared]) -> float:
    """Relative error of all tensors taken as one vector."""
    rows = comparisons.values()
    error = math.fsum((row.relative_l2 * row.reference_norm) ** 2 for row in rows if row.reference_norm)
    whole = math.sqrt(math.fsum(row.reference_norm**2 for row in rows))
    return _ratio(math.sqrt(error), whole, 0.0)


def _ratio(above: float, below: float, both_zero: float) -> float:
    if below == 0:
        return both_zero if above == 0 else math.inf
    return above / below


def _cosine(x: Tensor, y: Tensor, norm_x: float, norm_y: float) -> float:
    if norm_x == 0 or norm_y == 0:
        return 1.0 if norm_x == norm_y else 0.0
    return float((x / norm_x) @ (y / norm_y))


def _ulps(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype not in _INTEGERS:
        return torch.full((x.numel(),), math.nan, dtype=torch.float64)
    return (_ordered(x) - _ordered(y)).abs().double()


def _ordered(x: Tensor) -> Tensor:
    # Bit patterns as integers in the order of the numbers; both zeros are 0.
    integer = _INTEGERS[x.dtype]
    bits = x.contiguous().view(integer).long()
    return torch.where(bits < 0, torch.iinfo(integer).min - bits, bits)


def _same_bits(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype not in _INTEGERS:
        return x == y
    integer = _INTEGERS[x.dtype]
    return x.contiguous().view(integer) == y.contiguous().view(integer)


def _percentile(values: Tensor, fraction: float) -> float:
    if values.numel() == 0:
        return 0.0
    ordered = values.sort().values
    return float(ordered[max(0, math.ceil(fraction * ordered.numel()) - 1)])
