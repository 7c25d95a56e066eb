"""Births and deaths of buffers, written down as the events of a recorded program.

A buffer is freed when nothing holds it any more, as a tensor's storage is: the lifetimes of Python's own references
are those of the model code that the recipes follow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from windtunnel.program.op import OpSpec
from windtunnel.program.program import (
    Category,
    Origin,
    Phase,
    Program,
    Site,
    SourceLine,
    StepKind,
    StepMark,
    allocation_event,
    free_event,
)
from windtunnel.program.work import Family, Work

COMPUTE, GATHER, REDUCE = 0, 1, 2
"""Streams of a step: blocks of one serve no other."""

STREAMS = ("default", "gather", "reduce")


def own_stream(stream: int, chunk: int) -> int:
    """The stream of one chunk of a pipeline stage: each has its own for what data-parallel ranks exchange."""
    return stream + (len(STREAMS) - 1) * chunk


class Tape:
    """Events in order. ``scope`` and ``phase`` hold for what is allocated next."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.sizes: list[int] = []
        self.categories: list[int] = []
        self.scope = ""
        self.phase = Phase.OTHER
        self._sites: dict[tuple[str, int, str, Phase], int] = {}
        self._shared: dict[str, Buffer] = {}
        self._steps: list[StepMark] = []
        self._step_begins = 0

    def allocate(
        self, nbytes: int, by: str, stream: int = COMPUTE, category: Category = Category.OTHER
    ) -> Buffer:
        """A buffer of ``nbytes`` that operation ``by`` makes on ``stream``.

        Without a category it gets one by when it is born and freed, as in any recording.
        """
        number = len(self.sizes)
        self.sizes.append(nbytes)
        self.categories.append(category)
        site = self._sites.setdefault((by, stream, self.scope, self.phase), len(self._sites))
        self.events += (site, allocation_event(number))
        return Buffer(self.events, number)

    def share(self, by: str, nbytes: int) -> None:
        """A buffer that all calls of ``by`` take turns with and nobody frees: the largest that was asked for."""
        held = self._shared.get(by)
        if held is None or self.sizes[held.number] < nbytes:
            self._shared[by] = self.allocate(nbytes, by)

    def end_step(self, tokens: int = 0) -> None:
        """All events since the last end are one step."""
        self._steps.append(StepMark(StepKind.TRAIN, self._step_begins, len(self.events), tokens))
        self._step_begins = len(self.events)

    def begin_step(self) -> None:
        """What was allocated so far belongs to no step."""
        self._step_begins = len(self.events)

    def program(self, name: str, ranks: int = 1) -> Program:
        """The events as a program of one rank."""
        names = {by: number for number, by in enumerate(dict.fromkeys(key[0] for key in self._sites))}
        scopes = {scope: number for number, scope in enumerate(dict.fromkeys(key[2] for key in self._sites))}
        used = max((key[1] for key in self._sites), default=COMPUTE)
        chunks = max(1, -(-used // (len(STREAMS) - 1)))
        sites = [
            Site(names[by], stream, scopes[scope], 0, int(phase)) for by, stream, scope, phase in self._sites
        ]
        specs = [OpSpec(by) for by in names]
        return Program(
            origin=Origin(script=name, world_size=ranks, mode="recipe"),
            specs=specs,
            works=[Work(family=Family.HOST, kernels=0)] * len(specs),
            sites=np.array(sites, dtype=np.int64).reshape(-1, 5),
            events=np.array(self.events, dtype=np.int64),
            storage_bytes=np.array(self.sizes, dtype=np.int64),
            storage_category=np.array(self.categories, dtype=np.int64),
            scopes=list(scopes),
            lines=[SourceLine("recipe", 0)],
            streams=[STREAMS[0], *(name for _ in range(chunks) for name in STREAMS[1:])],
            steps=self._steps,
        )


class Buffer:
    """Memory on the card for as long as something holds this object."""

    __slots__ = ("_events", "number")

    def __init__(self, events: list[int], number: int) -> None:
        self._events = events
        self.number = number

    def __del__(self) -> None:
        self._events.append(free_event(self.number))


def free(held: list[Any]) -> None:
    """Drop references in order: a list that goes out of scope drops its last one first."""
    while held:
        held.pop(0)
