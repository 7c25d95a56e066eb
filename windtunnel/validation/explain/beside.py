"""Public measurements beside a prediction, for the report: the nearest shape of each kernel that matters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.model import CostModel, Settings
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import Program, StepKind
from windtunnel.program.work import Family, Work
from windtunnel.results.run_result import NearestMeasured
from windtunnel.specs.schema import Chip
from windtunnel.timeline.prices import CollectiveTime
from windtunnel.timeline.pricing import default_model, for_program, price_program
from windtunnel.timeline.step import step_sites
from windtunnel.validation.explain.asked import KINDS
from windtunnel.validation.explain.points import Near, Point, nearest, path_of
from windtunnel.validation.kernel_scores import asked_library

SHOWN = 6
_DESCRIBED = ("gemm", "attention", "attention_backward", "decode_attention")
_SAME_NAME = {"qk_dim": "head_dim"}


def beside(
    program: Program, chip: Chip, points: Sequence[Point], collective_time: CollectiveTime | None = None
) -> tuple[NearestMeasured, ...]:
    """The nearest measurements of the longest products and attention kernels of the last step, each once."""
    priced = price_program(
        program, chip, for_program(program, default_model), collective_time, StepKind.SCRIPT
    )
    counts = np.bincount(step_sites(program, program.last_step()), minlength=len(program.sites))
    uses = np.bincount(program.sites[:, 0], weights=counts, minlength=len(program.specs))
    seconds = uses * np.array([price.seconds for price in priced.prices])
    found: dict[Point, NearestMeasured] = {}
    for number in np.argsort(-seconds, kind="stable").tolist():
        work = program.works[number]
        if len(found) >= SHOWN or not seconds[number]:
            break
        if work.family in _DESCRIBED:
            near = _near(work, chip, points)
            if near is not None and near.point not in found:
                row = _row(work.family, near, chip)
                if row is not None:
                    found[near.point] = row
    return tuple(found.values())


def _near(work: Work, chip: Chip, points: Sequence[Point]) -> Near | None:
    path = path_of(work.precision, "" if work.variant == "flash" else work.variant)
    family = str(work.family)
    single = [p for p in points if p.kernels == 1]
    near = nearest(single, family=family, chips=(chip.name,), path=path, dims=work.dims)
    return near if near is not None and near.same_path else None


def _row(family: Family, near: Near, chip: Chip) -> NearestMeasured | None:
    point = near.point
    batch = batch_of(point)
    if batch is None:
        return None
    try:
        predicted = CostModel(chip, Settings(library=asked_library(point.library))).price(batch).seconds[0]
    except WindtunnelError:
        return None
    shape = " ".join(f"{name} {value:g}" for name, value in point.dims)
    what = f"{family.value.replace('_', ' ')} {point.path}: {shape}"
    return NearestMeasured(
        what=what,
        where=f"{point.library}, {point.file} row {point.row}",
        measured=point.seconds * 1e6,
        predicted=float(predicted) * 1e6,
        unit="µs",
    )


def batch_of(point: Point) -> Batch | None:
    """The kernel of a measured point, where its dimensions say all."""
    kind = KINDS.get(point.family)
    if kind is None or point.family not in _DESCRIBED:
        return None
    precision, _, variant = point.path.partition("/")
    known = (*kind.required, *(name for name, _ in kind.optional))
    given = {_SAME_NAME.get(name, name): value for name, value in point.dims}
    sizes = {**dict(kind.optional), **{name: value for name, value in given.items() if name in known}}
    if "causal" not in given:
        sizes["causal"] = 0.0  # zeros are not kept
    return kind.build(sizes, precision, variant) if set(kind.required) <= set(sizes) else None
