"""When each storage is born and dies, and by which operation: the tables that memory questions start from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.memory.allocator import MIN_BLOCK_BYTES
from windtunnel.program.program import Program

Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Arrays over storages (in the order of allocation) and over memory events (as recorded).

    Attributes:
        born, died: event numbers; ``died`` is the number of events for what is never freed, and both are
            for what never was allocated.
        birth_site: site of the operation that allocated it, -1 where there is none before.
        block_bytes: size rounded as the allocator rounds (512 bytes), 0 for empty storages.
        event, storage, freeing, stream: event number, storage, whether it is a free, and stream of each
            memory event.
    """

    born: Array
    died: Array
    birth_site: Array
    block_bytes: Array
    event: Array
    storage: Array
    freeing: npt.NDArray[np.bool_]
    stream: Array

    def active_bytes(self) -> Array:
        """Bytes alive after each memory event."""
        return np.cumsum(self.deltas())

    def deltas(self) -> Array:
        """Change of live bytes at each memory event."""
        nbytes = self.block_bytes[self.storage]
        return np.where(self.freeing, -nbytes, nbytes)


def lifetimes_of(program: Program) -> Lifetimes:
    """Lifetimes of a program's storages."""
    events = program.events
    count = len(program.storage_bytes)
    event = np.flatnonzero(events < 0)
    code = -events[event] - 1
    storage, freeing = code >> 1, (code & 1).astype(bool)
    site = site_before(events)[event]
    stream = np.zeros(len(event), dtype=np.int64)
    known = site >= 0
    stream[known] = program.sites[site[known], 1]
    born = np.full(count, len(events), dtype=np.int64)
    died = np.full(count, len(events), dtype=np.int64)
    birth_site = np.full(count, -1, dtype=np.int64)
    born[storage[~freeing]] = event[~freeing]
    birth_site[storage[~freeing]] = site[~freeing]
    died[storage[freeing]] = event[freeing]
    rounded = -(-program.storage_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES
    return Lifetimes(born, died, birth_site, rounded, event, storage, freeing, stream)


def site_before(events: Array) -> Array:
    """The site of the last operation at or before each event; -1 where there is none."""
    place = np.maximum.accumulate(np.where(events >= 0, np.arange(len(events)), -1))
    return np.where(place >= 0, events[np.maximum(place, 0)], -1)
