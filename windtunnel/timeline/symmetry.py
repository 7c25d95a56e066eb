"""Which recorded rank every rank of the cluster equals, and how many different batches the cluster works on.

Recorded are rank 0 and whoever differs from it (point-to-point peers, and theirs). Layouts are products:
ranks count through one kind of parallelism after the other with fixed strides, so the recorded ranks are the
corner of a grid, and every other rank equals the corner that lies in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import POINT_TO_POINT, Collective, kind_of
from windtunnel.network.model import pair_of
from windtunnel.program.program import Phase, ProcessGroup, Program
from windtunnel.program.work import Family
from windtunnel.timeline.step import step_sites

_REDUCING = (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER)
_TENSOR = re.compile(r"(^|[^a-z])(tp|tensor)([^a-z]|$)")
_DATA = re.compile(r"(^|[^a-z])(dp|data|fsdp|hsdp|cp|context|ep|expert|replicate|shard|loss|batch)([^a-z]|$)")


@dataclass(frozen=True, slots=True)
class Axis:
    """One kind of difference between ranks: ``count`` kinds, ``stride`` ranks apart."""

    stride: int
    count: int


def axes(ranks: Sequence[int], world_size: int) -> tuple[Axis, ...]:
    """The grid whose corner the recorded ranks are, counted from the first of them.

    Raises:
        WindtunnelError: E234, they are no such grid.
    """
    given = sorted(ranks)
    places = [rank - given[0] for rank in given]
    found: list[Axis] = []
    corner = [0]
    while len(corner) < len(places):
        stride = next((place for place in places if place not in corner), 0)
        count = 1
        while {stride * count + place for place in corner} <= set(places):
            count += 1
        if count == 1 or (found and stride % (found[-1].stride * found[-1].count)):
            break
        corner = sorted(stride * step + place for step in range(count) for place in corner)
        found.append(Axis(stride, count))
    period = found[-1].stride * found[-1].count if found else 1
    if corner != places:
        raise _not_clear(given, world_size, "they lie in no regular pattern")
    if world_size % period:
        raise _not_clear(
            given,
            world_size,
            f"their pattern repeats every {period} ranks, and {period} does not divide {world_size}",
        )
    return tuple(found)


def _not_clear(given: Sequence[int], world_size: int, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E234",
        f"cannot tell which of {world_size} ranks equal the recorded ones: {why}",
        hint="name all ranks that differ, as --ranks 0,8,16, or record everybody: --ranks all",
        values={"recorded": tuple(given[:16]), "world size": world_size},
    )


def stands_for(ranks: Sequence[int], world_size: int, besides: Collection[int] = ()) -> list[int]:
    """For every rank of the cluster the position in ``ranks`` of the one it equals. Raises E234.

    ``besides``: recorded because somebody asked, though the others do not need them. Where they make no grid
    with the others, they stand for themselves alone.
    """
    if len(ranks) == 1:
        return [0] * world_size
    places = {rank: number for number, rank in enumerate(ranks)}
    if len(places) == world_size:
        return [places[rank] for rank in range(world_size)]
    try:
        return [places[rank] for rank in _equals(ranks, world_size)]
    except WindtunnelError:
        needed = [rank for rank in ranks if rank not in besides]
        if not needed or len(needed) == len(places):
            raise
    every = _equals(needed, world_size)
    return [places[rank if rank in besides else equal] for rank, equal in enumerate(every)]


def _equals(ranks: Sequence[int], world_size: int) -> list[int]:
    """For every rank of the cluster the one of ``ranks`` in the same place of the grid."""
    grid = axes(ranks, world_size)

    def corner(rank: int) -> int:
        return sum(rank // axis.stride % axis.count * axis.stride for axis in grid)

    in_corner = {corner(rank): rank for rank in ranks}
    if len(in_corner) < len(ranks):
        raise _not_clear(sorted(ranks), world_size, "two of them have the same place")
    return [in_corner[corner(rank)] for rank in range(world_size)]


def asked_besides(programs: Sequence[Program]) -> frozenset[int]:
    """Recorded ranks that the first one does not reach by messages, nor those it reaches."""
    by_rank = {program.origin.rank: program for program in programs}
    reached, new = set[int](), [programs[0].origin.rank]
    while new:
        rank = new.pop()
        reached.add(rank)
        if rank in by_rank:
            new += _peers(by_rank[rank]) - reached
    return frozenset(by_rank) - reached


def _peers(program: Program) -> set[int]:
    """The ranks that a recorded rank sends to or receives from."""
    found: set[int] = set()
    for spec, work in zip(program.specs, program.works, strict=True):
        if work.family is Family.COLLECTIVE and work.kernels and kind_of(spec.name) in POINT_TO_POINT:
            index = spec.attribute("group", 0)
            group = program.groups[index if isinstance(index, int) else 0]
            found.update(pair_of(program.origin.rank, spec.attribute("peer", -1), group))
    return found


def different_batches(programs: Sequence[Program]) -> int:
    """How many batches the cluster works on at once: ranks over the size of the groups that share one.

    Pipeline stages share a batch, and so do ranks that add up activations in forward (tensor parallel); those
    are told from groups that add up gradients by the phase, and by the names that meshes give groups.
    """
    world = programs[0].origin.world_size
    stages = pipeline_stages(programs)
    tensor = max((_tensor_parallel(program) for program in programs), default=1)
    return max(1, world // (stages * tensor))


def pipeline_stages(programs: Sequence[Program]) -> int:
    """Recorded ranks that work on the same batch one after the other: only the first embeds tokens."""
    reading = sum(1 for program in programs if program.last_step().tokens)
    return max(1, len(programs) // reading) if reading else len(programs)


def _tensor_parallel(program: Program) -> int:
    sites = program.sites[np.unique(step_sites(program, program.last_step()))]
    sizes = [1]
    for number, phase in {(int(site[0]), int(site[4])) for site in sites}:
        work, spec = program.works[number], program.specs[number]
        if work.family is not Family.COLLECTIVE or not work.kernels:
            continue
        index = spec.attribute("group", 0)
        group = program.groups[index if isinstance(index, int) else 0]
        kind = kind_of(spec.name)
        if kind in POINT_TO_POINT:
            continue
        adds_activations = kind in _REDUCING and phase in (Phase.FORWARD, Phase.RECOMPUTE)
        if _named(group) or (adds_activations and not _DATA.search(group.label.lower())):
            sizes.append(len(group.ranks))
    return max(sizes)


def _named(group: ProcessGroup) -> bool:
    label = group.label.lower()
    return bool(_TENSOR.search(label)) and not _DATA.search(label)
