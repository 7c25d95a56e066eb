"""What each storage holds, finalised after the recording.

The recording marks what it knows for certain (parameters, inputs, and what the script itself declares). The
rest follows from when a storage is born and dies, in this order:

1. marked by the recording: kept;
2. born by a collective: communication;
3. born in the optimizer and alive when that optimizer phase ends: optimizer state;
4. born in forward (or re-computation) and still alive when the next backward begins, or, where the recording
   is inside it, after it began: activation;
5. born in backward and alive when that backward ends (``.grad``, reduction buckets): gradient;
6. born and gone within one phase: temporary;
7. else other.

A phase is a stretch of operations with the same ``Phase``; re-computation inside backward belongs to it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from windtunnel.memory.lifetimes import Lifetimes, site_before
from windtunnel.program.program import Category, Phase, Program

Array = npt.NDArray[np.int64]


def categories_of(program: Program, lifetimes: Lifetimes) -> Array:
    """The ``Category`` of every storage, shape (storages,)."""
    category = program.storage_category.copy()
    if not len(category):
        return category
    stretch, phase_of_stretch = _stretches(program)
    last = len(phase_of_stretch) - 1
    birth_event = np.minimum(lifetimes.born, len(stretch) - 1)
    death_event = np.minimum(lifetimes.died, len(stretch) - 1)
    birth, death = stretch[birth_event], stretch[death_event]
    survives = death > birth
    forever = lifetimes.died >= len(stretch)
    phase = _birth_phase(program, lifetimes)
    next_backward = _next_of(phase_of_stretch, Phase.BACKWARD)
    reaches = np.where(birth < last, next_backward[np.minimum(birth + 1, last)], last + 1)
    kept_for_backward = (death >= reaches) | (phase == Phase.RECOMPUTE)
    rules: tuple[tuple[Category, npt.NDArray[np.bool_]], ...] = (
        (Category.COMMUNICATION, _of_collectives(program, lifetimes)),
        (Category.OPTIMIZER_STATE, (phase == Phase.OPTIMIZER) & (survives | forever)),
        (Category.ACTIVATION, np.isin(phase, (Phase.FORWARD, Phase.RECOMPUTE)) & kept_for_backward),
        (Category.GRADIENT, (phase == Phase.BACKWARD) & (survives | forever)),
        (Category.TEMPORARY, ~survives & ~forever),
    )
    undecided = category == Category.OTHER
    for value, holds in rules:
        category[undecided & holds] = value
        undecided &= ~holds
    return category


def _stretches(program: Program) -> tuple[Array, Array]:
    """For every event the number of its phase stretch, and the phase of every stretch."""
    phase = _event_phase(program)
    phase[phase == Phase.RECOMPUTE] = Phase.BACKWARD
    begins = np.flatnonzero(np.diff(phase, prepend=phase[:1]) != 0)
    stretch = np.zeros(len(phase), dtype=np.int64)
    stretch[begins] = 1
    return np.cumsum(stretch), phase[np.concatenate(([0], begins))]


def _event_phase(program: Program) -> Array:
    """Phase of every event; memory events have that of the operation before them."""
    events = program.events
    site = site_before(events)
    phase = np.zeros(len(events), dtype=np.int64)
    known = site >= 0
    phase[known] = program.sites[site[known], 4]
    return phase


def _birth_phase(program: Program, lifetimes: Lifetimes) -> Array:
    site = lifetimes.birth_site
    phase = np.zeros(len(site), dtype=np.int64)
    known = site >= 0
    phase[known] = program.sites[site[known], 4]
    return phase


def _of_collectives(program: Program, lifetimes: Lifetimes) -> npt.NDArray[np.bool_]:
    is_collective = np.array([spec.name.startswith("c10d.") for spec in program.specs], dtype=bool)
    site = lifetimes.birth_site
    known = site >= 0
    result = np.zeros(len(site), dtype=bool)
    if known.any():
        result[known] = is_collective[program.sites[site[known], 0]]
    return result


def _next_of(phase_of_stretch: Array, wanted: Phase) -> Array:
    """For each stretch the number of the first stretch of ``wanted`` at or after it; past the end if none."""
    count = len(phase_of_stretch)
    place = np.where(phase_of_stretch == wanted, np.arange(count), count)
    return np.minimum.accumulate(place[::-1])[::-1]
