"""Small programs written as a script of phases, allocations and frees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windtunnel.program.op import OpSpec
from windtunnel.program.program import (
    Category,
    Origin,
    Phase,
    Program,
    SourceLine,
    allocation_event,
    free_event,
)
from windtunnel.program.work import Family, Work

Step = tuple[str, object]


class Script:
    """Collects events; each operation gets a line of its own."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.sites: list[tuple[int, int, int, int, int]] = []
        self.sizes: list[int] = []
        self.marked: dict[int, Category] = {}
        self.specs = [OpSpec("aten.mm.default"), OpSpec("c10d.allreduce_"), OpSpec("aten.add.Tensor")]

    def op(self, phase: Phase = Phase.OTHER, spec: int = 0, stream: int = 0) -> None:
        self.events.append(len(self.sites))
        self.sites.append((spec, stream, 0, len(self.sites), int(phase)))

    def new(self, nbytes: int, category: Category | None = None) -> int:
        storage = len(self.sizes)
        self.sizes.append(nbytes)
        self.events.append(allocation_event(storage))
        if category is not None:
            self.marked[storage] = category
        return storage

    def free(self, storages: Sequence[int] | int) -> None:
        for storage in [storages] if isinstance(storages, int) else storages:
            self.events.append(free_event(storage))

    def program(self, family: Family = Family.POINTWISE, **origin: object) -> Program:
        category = np.zeros(len(self.sizes), dtype=np.int64)
        for storage, value in self.marked.items():
            category[storage] = value
        return Program(
            origin=Origin(script="train.py", **origin),  # type: ignore[arg-type]
            specs=self.specs,
            works=[Work(family=family) for _ in self.specs],
            sites=np.array(self.sites or np.zeros((0, 5)), dtype=np.int64),
            events=np.array(self.events, dtype=np.int64),
            storage_bytes=np.array(self.sizes, dtype=np.int64),
            storage_category=category,
            scopes=["model.layer"],
            lines=[SourceLine("train.py", line + 1) for line in range(len(self.sites))],
        )
