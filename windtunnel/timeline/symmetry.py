"""Which recorded rank every rank of the cluster equals, and how many different batches the cluster works on.

Recorded are rank 0 and whoever differs from it (point-to-point peers, and theirs). Layouts are products:
ranks count through one kind of parallelism after the other with fixed strides, so the recorded ranks are the
corner of a grid, and every other rank equals the corner that lies in the same place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import POINT_TO_POINT, Collective, kind_of
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
    """The grid whose corner the recorded ranks are.

    Raises:
        WindtunnelError: E234, they are no such grid.
    """
    given = sorted(ranks)
    found: list[Axis] = []
    corner = [0]
    while len(corner) < len(given):
        stride = next((rank for rank in given if rank not in corner), 0)
        count = 1
        while {stride * count + rank for rank in corner} <= set(given):
            count += 1
        if count == 1 or (found and stride % (found[-1].stride * found[-1].count)):
            break
        corner = sorted(stride * step + rank for step in range(count) for rank in corner)
        found.append(Axis(stride, count))
    period = found[-1].stride * found[-1].count if found else 1
    if corner != given or world_size % period:
        raise WindtunnelError(
            "E234",
            f"cannot tell which of {world_size} ranks equal the recorded ones",
            hint="name all ranks that differ, as --ranks 0,8,16",
            values={"recorded": tuple(given[:16]), "world size": world_size},
        )
    return tuple(found)


def stands_for(ranks: Sequence[int], world_size: int) -> list[int]:
    """For every rank of the cluster the position in ``ranks`` of the one it equals. Raises E234."""
    if len(ranks) == 1:
        return [0] * world_size
    if sorted(ranks) == list(range(world_size)):
        return [list(ranks).index(rank) for rank in range(world_size)]
    every = np.arange(world_size)
    corner = np.zeros(world_size, np.int64)
    for axis in axes(ranks, world_size):
        corner += every // axis.stride % axis.count * axis.stride
    places = {rank: number for number, rank in enumerate(ranks)}
    return [places[rank] for rank in corner.tolist()]


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
