"""The operations that make up a predicted step, longest first, each taken apart."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.network.collective import kind_of, message_bytes
from windtunnel.network.model import NetworkModel, pair_of, traffic_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup, Program, StepKind
from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip
from windtunnel.timeline.predict import predict
from windtunnel.timeline.pricing import default_model, for_program, price_program
from windtunnel.timeline.rows import shapes_text
from windtunnel.timeline.step import step_sites
from windtunnel.timeline.sustained import runs_for_long, sustained, unknown_power
from windtunnel.validation.explain.collective import CollectiveWhy, explain_shaped
from windtunnel.validation.explain.kernel import KernelWhy, explain_kernel
from windtunnel.validation.explain.points import Point

Why = KernelWhy | CollectiveWhy
LibraryFor = Callable[[Work], str]


@dataclass(frozen=True, slots=True)
class OpTotal:
    """All uses of one distinct operation in a step. ``seconds``: device time of all of them together."""

    spec: OpSpec
    work: Work
    group: ProcessGroup
    count: float
    seconds: float


@dataclass(frozen=True, slots=True)
class OpWhy:
    """One operation of a step: how often, how long, its share of the time of all, and why one takes that long."""

    name: str
    shapes: str
    count: float
    seconds: float
    share: float
    why: Why | None


@dataclass(frozen=True, slots=True)
class StepWhy:
    """A predicted step and the operations that matter. ``sources``: share of the step time by source."""

    chip: str
    seconds: float
    low_s: float
    high_s: float
    sources: tuple[tuple[str, float], ...]
    operations: tuple[OpWhy, ...]
    distinct: int
    notes: tuple[str, ...] = ()


def explain_program(
    program: Program,
    chip: Chip,
    network: NetworkModel,
    points: Iterable[Point],
    *,
    top: int,
    name: str = "",
) -> StepWhy:
    """The last step of a recording: its ``top`` operations, or those whose name holds ``name``."""
    result = predict(program, chip, collective_time=network.estimate)
    model_for, kind = for_program(program, default_model), program.last_step().kind
    priced = price_program(program, chip, model_for, network.estimate, kind)
    counts = np.bincount(step_sites(program, program.last_step()), minlength=len(program.sites))
    uses = np.bincount(program.sites[:, 0], weights=counts, minlength=len(program.specs))
    totals = [
        OpTotal(spec, work, group_of(program, spec), uses[i], uses[i] * priced.prices[i].seconds)
        for i, (spec, work) in enumerate(zip(program.specs, program.works, strict=True))
        if uses[i] and priced.prices[i].seconds
    ]
    step = result.step_time_s
    sources = tuple((str(source), share) for source, share in step.shares)
    model = model_for(chip)
    tf32 = getattr(getattr(model, "settings", None), "allow_tf32", None)
    return StepWhy(
        chip.name, step.value, step.low, step.high, sources,
        explained(totals, chip, network, points, top=top, name=name, rank=program.origin.rank, allow_tf32=tf32),
        len(totals), under_power(chip, kind),
    )  # fmt: skip


def under_power(chip: Chip, kind: StepKind) -> tuple[str, ...]:
    """What a long run adds to matrix kernels that are explained as they run alone."""
    slowdown = sustained().slowdown(chip)
    if not runs_for_long(kind) or slowdown == 1.0:
        return unknown_power(chip, kind)
    limit = f"the limit of {chip.tdp_w.value:g} W holds the clock"
    return (f"matrix kernels take {slowdown:.3f} × as long as alone: {limit}",)


def group_of(program: Program, spec: OpSpec) -> ProcessGroup:
    """The ranks that an operation runs over; one rank for kernels."""
    index = spec.attribute("group", 0)
    number = index if isinstance(index, int) else 0
    return program.groups[number] if 0 <= number < len(program.groups) else ProcessGroup((0,))


def merged(totals: Iterable[OpTotal]) -> list[OpTotal]:
    """Equal operations of several programs added up."""
    sums: dict[tuple[OpSpec, Work, ProcessGroup], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for item in totals:
        entry = sums[_without_number(item.spec), item.work, item.group]
        entry[0] += item.count
        entry[1] += item.seconds
    return [OpTotal(*key, count, seconds) for key, (count, seconds) in sums.items()]


def _without_number(spec: OpSpec) -> OpSpec:
    """Collectives differ by the number of their handle only."""
    if all(name != "work" for name, _ in spec.attributes):
        return spec
    kept = tuple(pair for pair in spec.attributes if pair[0] != "work")
    return OpSpec(spec.name, spec.inputs, spec.outputs, kept)


def explained(
    totals: Sequence[OpTotal],
    chip: Chip,
    network: NetworkModel,
    points: Iterable[Point],
    *,
    top: int,
    name: str = "",
    rank: int = 0,
    allow_tf32: bool | None = None,
    library_for: LibraryFor = lambda work: "",
) -> tuple[OpWhy, ...]:
    """The longest operations, or those whose name or family holds ``name``, longest first.

    ``library_for``: whose kernel runs an operation; empty: what PyTorch calls.
    """
    combined = merged(totals)
    whole = sum(item.seconds for item in combined) or 1.0
    chosen = [
        item
        for item in combined
        if not name or re.search(re.escape(name), f"{item.spec.name} {item.work.family}")
    ]
    chosen.sort(key=lambda item: (-item.seconds, item.spec.name))
    known = tuple(points)
    return tuple(
        OpWhy(
            item.spec.name, shapes_text(item.spec), item.count, item.seconds, item.seconds / whole,
            _why(item, chip, network, known, rank, allow_tf32, library_for(item.work)),
        )
        for item in chosen[:top]
    )  # fmt: skip


def _why(
    item: OpTotal,
    chip: Chip,
    network: NetworkModel,
    points: Sequence[Point],
    rank: int,
    allow_tf32: bool | None,
    library: str,
) -> Why | None:
    if item.work.family is Family.COLLECTIVE:
        kind = kind_of(item.spec.name)
        ranks = item.group.ranks
        if kind in ("send", "recv"):
            ranks = pair_of(rank, item.spec.attribute("peer", -1), item.group)
        shape, traffic = network.shape(ranks), traffic_of(item.spec, kind)
        nbytes = float(message_bytes(item.spec))
        return explain_shaped(kind, nbytes, network.links, shape, points, traffic=traffic)
    if item.work.kernels == 0:
        return None
    return explain_kernel(Batch.of_works([item.work]), chip, points, library=library, allow_tf32=allow_tf32)
