"""Figures that several claims ask for: a product's rate, a training plan, a ratio of two estimates."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

from windtunnel.estimate import Estimate, Source, normalised_shares
from windtunnel.network.collective import Collective
from windtunnel.planner.job import TrainingJob
from windtunnel.planner.search import plan_training
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision
from windtunnel.results.plan_result import PlanResult
from windtunnel.specs.catalogue import chip as chip_called
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.explain.asked import batch_asked
from windtunnel.validation.explain.collective import CollectiveWhy, explain_collective
from windtunnel.validation.explain.kernel import KernelWhy, explain_kernel
from windtunnel.validation.explain.points import shipped_points

S5000, H100, H20 = "mtt-s5000", "h100-sxm", "h20"
GEMM_COMMAND = "windtunnel explain gemm --m {size} --n {size} --k {size} --dtype {dtype} --on mtt-s5000"


def card(name: str = S5000, *overrides: str) -> Chip:
    """A chip of the catalogue, with numbers replaced."""
    return chip_called(name, overrides)


def kernel(name: str, chip: Chip, dtype: str, **dims: float) -> KernelWhy:
    """One kernel, taken apart as ``windtunnel explain`` does."""
    return explain_kernel(batch_asked(name, dims, dtype), chip, shipped_points())


def collective(kind: Collective, nbytes: float, chip: Chip, cards: int) -> CollectiveWhy:
    """One collective, taken apart."""
    return explain_collective(kind, nbytes, cluster_of(chip, cards), shipped_points())


def rate(why: KernelWhy, work: float) -> Estimate:
    """``work`` over the kernel's time, with its interval."""
    return Estimate(why.seconds, why.low_s, why.high_s, ((why.source, 1.0),)).inverse(work)


def product_rate(chip: Chip, dtype: str, size: int) -> Estimate:
    """TFLOP/s of a square product, never more than the peak."""
    attained = rate(kernel("gemm", chip, dtype, m=size, n=size, k=size), 2.0 * size**3 / 1e12)
    return replace(attained, high=min(attained.high, chip.peak(dtype).value / 1e12))


@cache
def plan(
    model: str,
    on: str,
    cards: int,
    global_batch: int,
    sequence: int,
    precision: Precision = Precision.BF16,
    space: Space | None = None,
    overrides: tuple[str, ...] = (),
) -> PlanResult:
    """The fastest layouts that fit on chips called ``on``, as ``windtunnel plan`` finds them."""
    job = TrainingJob(
        model=shipped_model(model),
        cluster=cluster_of(card(on, *overrides), cards),
        global_batch=global_batch,
        sequence=sequence,
        precision=precision,
    )
    return plan_training(job, space or Space(), most_priced=8)


def plan_command(model: str, chip: str, cards: int, global_batch: int, sequence: int, more: str = "") -> str:
    """The command that prints ``plan``."""
    line = f"windtunnel plan {model} --on {chip}:{cards} --global-batch {global_batch} --sequence {sequence}"
    return f"{line} {more}".rstrip()


def ratio(over: Estimate, under: Estimate, shared: float = 0.0) -> Estimate:
    """``over / under``. Widths add in quadrature in logarithms, less ``shared``: the part of both errors that has
    one cause (the model's, not the chip's) and so cancels.
    """
    value = over.value / under.value

    def width(a: float, b: float) -> float:
        return math.exp(math.sqrt(max(a * a + b * b - 2 * shared * a * b, 0.0)))

    up = width(math.log(over.high / over.value), math.log(under.value / under.low))
    down = width(math.log(over.value / over.low), math.log(under.high / under.value))
    weights: dict[Source, float] = {}
    for source, share in (*over.shares, *under.shares):
        weights[source] = weights.get(source, 0.0) + share
    return Estimate(value, value / down, value * up, normalised_shares(weights))


def counted(value: float) -> Estimate:
    """A number that follows from counting."""
    return Estimate.exact(value, Source.ANALYTIC)


def with_source(estimate: Estimate, source: Source) -> Estimate:
    """The estimate resting on ``source`` alone."""
    return replace(estimate, shares=((source, 1.0),))
