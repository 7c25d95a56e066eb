"""Writes operations down as a ``Program``: interned specs and sites, as a recording has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from windtunnel.program.count import work_of
from windtunnel.program.marks import GRAPH_END, GRAPH_LAUNCH
from windtunnel.program.op import OpSpec
from windtunnel.program.program import (
    Origin,
    Phase,
    ProcessGroup,
    Program,
    Site,
    SourceLine,
    StepKind,
    StepMark,
)
from windtunnel.program.work import Work

_WORKS: dict[OpSpec, Work] = {}
"""Work of every distinct operation met so far: recipes of one model share most of theirs."""


class ProgramBuilder:
    """Appends operations; ``finish`` answers the program."""

    def __init__(self, groups: Sequence[ProcessGroup], *, rank: int, world_size: int, name: str) -> None:
        self._groups = list(groups)
        self._origin = Origin(script=name, world_size=world_size, rank=rank, mode="recipe")
        self._specs: dict[OpSpec, int] = {}
        self._sites: dict[Site, int] = {}
        self._scopes: dict[str, int] = {"": 0}
        self._events: list[int] = []

    def add(self, specs: Iterable[OpSpec], phase: Phase, scope: str = "") -> None:
        """Issue operations in order on the compute stream."""
        place = self._scopes.setdefault(scope, len(self._scopes))
        for spec in specs:
            number = self._specs.setdefault(spec, len(self._specs))
            site = Site(number, 0, place, 0, int(phase))
            self._events.append(self._sites.setdefault(site, len(self._sites)))

    def captured(self, phase: Phase, begins: bool) -> None:
        """A captured graph begins or ends here: what is between costs the host one launch."""
        self.add((OpSpec(GRAPH_LAUNCH if begins else GRAPH_END),), phase)

    def append(self, program: Program) -> None:
        """All operations of another program of the same rank."""
        sites = [program.site(number) for number in range(len(program.sites))]
        for event in program.events.tolist():
            site = sites[event]
            self.add((program.specs[site.spec],), Phase(site.phase), program.scopes[site.scope])

    def finish(self, kind: StepKind, *, tokens: int = 0, samples: int = 0) -> Program:
        """The program, as one step."""
        for spec in self._specs:
            if spec not in _WORKS:
                _WORKS[spec] = work_of(spec)
        events = np.array(self._events, dtype=np.int64)
        return Program(
            origin=self._origin,
            specs=list(self._specs),
            works=[_WORKS[spec] for spec in self._specs],
            sites=np.array(list(self._sites), dtype=np.int64).reshape(-1, 5),
            events=events,
            storage_bytes=np.zeros(0, dtype=np.int64),
            storage_category=np.zeros(0, dtype=np.int64),
            scopes=list(self._scopes),
            lines=[SourceLine("recipe", 0)],
            groups=self._groups,
            steps=[StepMark(kind, 0, len(events), tokens, samples)],
        )
