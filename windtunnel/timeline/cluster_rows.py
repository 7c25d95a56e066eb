"""What the replay of a cluster's ranks says in rows: collectives, ranks, and the intervals to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.network.collective import POINT_TO_POINT, bus_factor, kind_of, message_bytes
from windtunnel.program.program import Program
from windtunnel.results.run_result import Communication, MemoryResult, RankResult, Span, StepParts
from windtunnel.specs.schema import Chip
from windtunnel.timeline.cover import Cover
from windtunnel.timeline.lanes import lane
from windtunnel.timeline.parts import COMMUNICATION, COMPUTE, kinds_of
from windtunnel.timeline.pricing import Priced
from windtunnel.timeline.ranks import Representatives
from windtunnel.timeline.rows import op_table
from windtunnel.timeline.spans import joint_critical_path, spans, tracks, tracks_of_sites
from windtunnel.timeline.step import StepTimeline

SPANS_OF_OTHERS = 4_000
"""Intervals kept of a rank that is not critical: enough to see a pipeline at work."""


@dataclass(frozen=True, slots=True)
class RankTiming:
    """One recorded rank in the step of the whole cluster."""

    rank: int
    seconds: float
    parts: StepParts
    priced: Priced
    timeline: StepTimeline


@dataclass(frozen=True, slots=True)
class ClusterTiming:
    """The step of the cluster: its length and every recorded rank; ``critical`` set its length."""

    seconds: float
    ranks: tuple[RankTiming, ...]
    critical: int


def communication(program: Program, timeline: StepTimeline, exposed_s: float) -> tuple[Communication, ...]:
    """Collectives of a step by kind and group, with the time they took beside everything else.

    ``exposed_s`` is shared out by how much of each no kernel covers.
    """
    kinds = kinds_of(program)
    site = timeline.site
    length = timeline.end_s - timeline.start_s
    kernels = kinds[site] == COMPUTE
    cover = Cover(timeline.start_s[kernels], timeline.end_s[kernels])
    bare = length - (cover(timeline.end_s) - cover(timeline.start_s))
    rows: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0.0])
    moving = np.flatnonzero(kinds[site] == COMMUNICATION)
    specs = program.sites[site[moving], 0].tolist()
    for number, seconds, alone in zip(specs, length[moving].tolist(), bare[moving].tolist(), strict=True):
        spec = program.specs[number]
        index = spec.attribute("group", 0)
        index = index if isinstance(index, int) else 0
        if len(program.groups[index].ranks) < 2:
            continue
        row = rows[(str(kind_of(spec.name)), index)]
        for place, amount in enumerate((1, message_bytes(spec), seconds, alone)):
            row[place] += amount
    whole = sum(row[3] for row in rows.values())
    answers = []
    for (name, index), (count, nbytes, seconds, alone) in sorted(rows.items()):
        group = program.groups[index]
        kind = kind_of(f"c10d.{name}")
        ranks = 2 if kind in POINT_TO_POINT else len(group.ranks)
        rate = nbytes / seconds if seconds else 0.0
        answers.append(
            Communication(
                collective=name,
                group=group.label or str(index),
                ranks=ranks,
                count=int(count),
                bytes=nbytes,
                seconds=seconds,
                exposed_s=exposed_s * alone / whole if whole > 0 else 0.0,
                algbw_bytes_per_s=rate,
                busbw_bytes_per_s=rate * bus_factor(kind, ranks),
            )
        )
    return tuple(answers)


def critical_spans(timing: ClusterTiming, program: Program, chip: Chip) -> tuple[Span, ...]:
    """Intervals of the rank that ends last; its operations are numbered as in its operator table."""
    rank = timing.ranks[timing.critical]
    table = op_table(program, rank.priced.prices, _counts(rank, program), chip)
    path = joint_critical_path([one.timeline for one in timing.ranks])[timing.critical]
    where = tracks_of_sites(program, rank.priced.prices)
    return spans(program, rank.timeline, table.row_of_site, where, path=path)


def rank_results(
    timing: ClusterTiming,
    programs: Sequence[Program],
    chip: Chip,
    memories: Sequence[MemoryResult],
    who: Representatives,
) -> tuple[RankResult, ...]:
    """Every recorded rank; ``memories`` of each, where known."""
    counts = np.bincount([who.of(rank) for rank in range(who.world_size)], minlength=len(timing.ranks))
    peaks = [memory.peak_reserved_bytes.value for memory in memories] or [0.0] * len(timing.ranks)
    paths = joint_critical_path([one.timeline for one in timing.ranks])
    answers = []
    for number, (rank, program) in enumerate(zip(timing.ranks, programs, strict=True)):
        drawn: tuple[Span, ...] = ()
        names: tuple[str, ...] = ()
        if number != timing.critical:
            table = op_table(program, rank.priced.prices, _counts(rank, program), chip)
            where = tracks_of_sites(program, rank.priced.prices)
            drawn = spans(program, rank.timeline, table.row_of_site, where, SPANS_OF_OTHERS, paths[number])
            names = tuple(row.name for row in table.rows)
        answers.append(
            RankResult(
                rank=rank.rank,
                count=int(counts[number]),
                step_time_s=rank.seconds,
                parts=rank.parts,
                peak_reserved_bytes=peaks[number],
                critical=number == timing.critical,
                lane=lane(rank.timeline, kinds_of(program), program.sites[:, 4]),
                tracks=tracks(program),
                spans=drawn,
                names=names,
            )
        )
    return tuple(answers)


def _counts(rank: RankTiming, program: Program) -> npt.NDArray[np.int64]:
    return np.bincount(rank.timeline.sites, minlength=len(program.sites))
