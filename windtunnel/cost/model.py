"""Device time and host time of operations on one chip: chooses the family model and its parameters.

Three tiers, best first: fits to the chip's own measurements; fits of a relative or pooled over chips (the
same physics with the data sheet of this chip); plain peaks for families that nobody measured. What a
time rests on is its ``source``; outside the fitted range it falls to ``analytic`` and the interval widens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost import (
    attention,
    convolution,
    copy,
    decode_attention,
    deltanet,
    fft,
    gemm,
    grouped_gemm,
    indexing,
    linalg,
    norm,
    optimizer,
    pointwise,
    reduction,
    softmax,
    unknown,
)
from windtunnel.cost.batch import Batch
from windtunnel.cost.borrow import Distance, distance, kin_spread
from windtunnel.cost.choose import Choice, choose
from windtunnel.cost.fit import Fit, apart, factors
from windtunnel.cost.fit_files import transfer
from windtunnel.cost.host import host_time_s
from windtunnel.cost.kernel_time import Floats, KernelTime, Limit, Times
from windtunnel.estimate import Source
from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip, Trust, Vendor

FamilyModel = Callable[[Batch, Chip, Fit], Times]

_STREAM = "floor + max(bytes ÷ bandwidth, vector FLOPs ÷ peak)"
_ROWS = _STREAM + ", at least one row's block"
_PRODUCT = "floor + waves × fill + max(tile waves × k ÷ peak, cache traffic, bytes ÷ bandwidth), best tile"
_ATTENTION = "floor + waves × max(products ÷ peak + exponentials, bytes ÷ bandwidth)"
_DELTANET = "kernels × floor + max(chunk products ÷ peak, bytes ÷ bandwidth) + chunk chain"

MODELS: Mapping[Family, tuple[FamilyModel, str, str]] = {
    Family.GEMM: (gemm.times, "gemm", _PRODUCT),
    Family.GROUPED_GEMM: (grouped_gemm.times, "grouped_gemm", _PRODUCT + ", over active experts"),
    Family.CONVOLUTION: (convolution.times, "convolution", _PRODUCT + ", implicit GEMM"),
    Family.ATTENTION: (attention.times, "attention", _ATTENTION),
    Family.ATTENTION_BACKWARD: (attention.times, "attention_backward", _ATTENTION + ", 2.5 × the products"),
    Family.DECODE_ATTENTION: (
        decode_attention.times,
        "decode_attention",
        "floor + max(cache bytes ÷ bandwidth, products ÷ peak) + steps",
    ),
    Family.DELTANET: (deltanet.times, "deltanet", _DELTANET),
    Family.NORM: (norm.times, "norm", _ROWS),
    Family.SOFTMAX: (softmax.times, "softmax", _ROWS),
    Family.POINTWISE: (pointwise.times, "pointwise", _STREAM),
    Family.RANDOM: (pointwise.times, "pointwise", _STREAM),
    Family.REDUCTION: (reduction.times, "reduction", _STREAM + ", second pass for few rows"),
    Family.EMBEDDING: (indexing.times, "indexing", _STREAM + ", 32-byte sectors"),
    Family.SCATTER: (indexing.times, "indexing", _STREAM + ", 32-byte sectors"),
    Family.SORT: (indexing.times, "indexing", _STREAM + ", radix passes"),
    Family.SCAN: (indexing.times, "indexing", _STREAM),
    Family.OPTIMIZER: (optimizer.times, "optimizer", _STREAM),
    Family.COPY: (copy.times, "copy", _STREAM),
    Family.HOST_COPY: (copy.times, "host_copy", "floor + bytes ÷ PCIe bandwidth"),
    Family.FFT: (fft.times, "fft", _STREAM + ", one pass per 4,096 points"),
    Family.LINALG: (linalg.times, "linalg", "panels × latency + max(FLOPs ÷ peak, bytes ÷ bandwidth)"),
    Family.UNKNOWN: (unknown.times, "unknown", _STREAM + ", no model for this operation"),
}
"""Family → its model, its parameter file, its formula in words."""

_NO_KERNEL = frozenset({Family.VIEW, Family.HOST, Family.COLLECTIVE})
_MATRIX = frozenset(
    {
        Family.GEMM, Family.GROUPED_GEMM, Family.CONVOLUTION, Family.ATTENTION, Family.ATTENTION_BACKWARD,
        Family.DECODE_ATTENTION, Family.DELTANET,
    }
)  # fmt: skip
_SOFTMAX_ATTENTION = frozenset({Family.ATTENTION, Family.ATTENTION_BACKWARD})
_NOTHING = KernelTime(0.0, 0.0, 0.0, Source.ANALYTIC, "nothing", "no kernel")

OUTSIDE_WIDENING = 1.5
"""Intervals outside the fitted range: the factors to this power."""
BORROWED_WIDENING = 1.6
"""Intervals of borrowed fits in families of which too little was measured to leave a chip out: the factors to this
power, ..."""
BORROWED_LOW, BORROWED_HIGH = 0.8, 1.25
"""... and at least this wide."""
FLOOR_LOW, FLOOR_HIGH = 0.5, 1.5
"""Interval of an empty kernel: on S5000 small ones are busy for 0.36 to 0.7 of one's time."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the program decides, not the chip.

    Attributes:
        allow_tf32: whether FP32 products may run in TF32; None takes the chip's default.
        library: whose kernels run where fits know several; empty takes what PyTorch calls.
        sustained: whether the chip has been busy for long, as in a training step: every product then runs at
            the clock that the power limit sustains, not only long ones.
        repeated: whether kernels run in a loop over the same data, as benchmarks do: caches keep what fits.
        floors: factor on what every kernel costs however small it is: what-ifs.
    """

    allow_tf32: bool | None = None
    library: str = ""
    sustained: bool = False
    repeated: bool = False
    floors: float = 1.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Times of a batch with intervals: arrays of seconds, ``Limit`` codes, and one source for each entry."""

    seconds: Floats
    low_s: Floats
    high_s: Floats
    limit: np.ndarray[tuple[int], np.dtype[np.int64]]
    sources: tuple[Source, ...]  # inside the fitted range, outside it
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]]
    formula: str


class CostModel:
    """Times of operations on ``chip``."""

    def __init__(self, chip: Chip, settings: Settings | None = None) -> None:
        self.chip = chip
        self.settings = settings or Settings()
        self._paths: dict[tuple[str, str, str], tuple[Choice, Fit]] = {}

    def with_floors(self, factor: float) -> CostModel:
        """The same card if what every kernel costs however small it is were ``factor`` of it."""
        floor = self.chip.kernel_floor_s
        chip = replace(self.chip, kernel_floor_s=replace(floor, value=floor.value * factor))
        return CostModel(chip, replace(self.settings, floors=self.settings.floors * factor))

    def kernel_time(self, work: Work) -> KernelTime:
        """Device time of one operation. Raises WindtunnelError E501 for a precision that the chip lacks."""
        return self.kernel_times([work])[0]

    def kernel_times(self, works: Sequence[Work]) -> list[KernelTime]:
        """Device times of many operations, grouped so that each family model runs once per kernel path."""
        answers = [_NOTHING] * len(works)
        groups: dict[tuple[Family, str, str], list[int]] = {}
        for index, work in enumerate(works):
            if work.family not in _NO_KERNEL and work.kernels > 0:
                groups.setdefault((work.family, work.precision, work.variant), []).append(index)
        for members in groups.values():
            prices = self.price(Batch.of_works([works[index] for index in members]))
            for row, index in enumerate(members):
                answers[index] = _entry(prices, row)
        return answers

    def price(self, batch: Batch) -> Prices:
        """Times of a batch as arrays: the path for tables with many rows."""
        batch = batch.with_precision(self._precision(batch))
        if batch.family in _SOFTMAX_ATTENTION:
            batch = attention.called_by(batch, self.settings.library)
        model, file, formula = MODELS[batch.family]
        choice, fit = self._path(file, batch.precision, batch.variant)
        times = model(batch, self.chip, fit)
        # no kernel takes less than an empty one does on this chip
        least = np.maximum(batch.kernels, 1.0) * self.chip.kernel_floor_s.value
        inside = choice.fit.inside(batch)
        low, high = choice.fit.interval(times.seconds)
        borrowed = choice.fit.rows > 0 and not (choice.own and choice.exact)
        if borrowed:
            low, high = self._borrowed(file, choice, batch, times.seconds)
        power = np.where(inside, 1.0, OUTSIDE_WIDENING)
        low, high = low**power, high**power
        return Prices(
            np.maximum(times.seconds, least),
            np.maximum(times.seconds * np.minimum(low, 1.0), least * FLOOR_LOW),
            np.maximum(times.seconds * np.maximum(high, 1.0), least * FLOOR_HIGH),
            np.where(times.seconds < least, int(Limit.LATENCY), times.limit),
            self._sources(batch, choice),
            inside,
            formula,
        )

    def _path(self, file: str, precision: str, variant: str) -> tuple[Choice, Fit]:
        """The fit chosen for a kernel path, and the same as the settings have it run; looked up once."""
        found = self._paths.get((file, precision, variant))
        if found is None:
            settings = self.settings
            choice = choose(
                file, self.chip, library=settings.library, precision=precision, variant=variant,
                repeated=settings.repeated,
            )  # fmt: skip
            fit = choice.fit.sustained() if settings.sustained else choice.fit
            found = self._paths[file, precision, variant] = choice, fit.with_floors(settings.floors)
        return found

    def _borrowed(self, file: str, choice: Choice, batch: Batch, seconds: Floats) -> tuple[Floats, Floats]:
        """The interval of a fit of another chip or library: what such fits missed where they could be checked."""
        known = transfer(file)
        from_here = distance(choice.fit, self.chip, self.settings.library, batch.precision, batch.variant)
        if from_here == Distance("kin", "same", "same"):
            low, high = choice.fit.interval(seconds)
            spread = kin_spread(choice.fit.chip, self.chip)
            return apart(low, high, spread)
        for item in from_here.near_enough():
            if str(item) in known:
                return factors(known[str(item)], seconds)
        low, high = choice.fit.interval(seconds)
        return (
            np.minimum(low**BORROWED_WIDENING, BORROWED_LOW),
            np.maximum(high**BORROWED_WIDENING, BORROWED_HIGH),
        )

    def host_time_s(self, work: Work) -> float:
        """Host seconds to dispatch one eager operation."""
        return host_time_s(work, self.chip)

    def _precision(self, batch: Batch) -> str:
        """What tables call the kernel's precision.

        FP32 products become TF32 where the program or the chip's default allows it, convolutions on NVIDIA always:
        cuDNN takes TF32 unless told otherwise by a flag of its own. Norms go by the 16 bits they stream, not by the
        FP32 they compute in: vectorised ones as PyTorch's were measured. The fit over all tables holds mostly vLLM's
        first kernel, one element a thread and access.
        """
        if batch.family is Family.NORM and batch.precision == "fp32":
            return "bf16"
        if batch.precision != "fp32" or batch.family not in _MATRIX or "tf32" not in self.chip.peak_flops:
            return batch.precision
        if batch.family is Family.CONVOLUTION and self.chip.vendor is Vendor.NVIDIA:
            return "tf32"
        allowed = self.settings.allow_tf32
        allowed = self.chip.tf32_default if allowed is None else allowed
        return "tf32" if allowed else "fp32"

    def _sources(self, batch: Batch, choice: Choice) -> tuple[Source, Source]:
        if batch.family is Family.UNKNOWN or self._undisclosed(batch):
            return (Source.ASSUMED, Source.ASSUMED)
        source = choice.source()
        return (source, Source.ANALYTIC if source is Source.CALIBRATED else source)

    def _undisclosed(self, batch: Batch) -> bool:
        precision = (
            batch.precision if batch.family in _MATRIX else "fp64" if batch.precision == "fp64" else "fp32"
        )
        peak = self.chip.peak_flops.get(precision)
        return peak is not None and peak.trust is Trust.ASSUMED


def _entry(prices: Prices, row: int) -> KernelTime:
    return KernelTime(
        float(prices.seconds[row]),
        float(prices.low_s[row]),
        float(prices.high_s[row]),
        prices.sources[0 if prices.inside[row] else 1],
        Limit(int(prices.limit[row])).name.lower(),
        prices.formula,
    )
