"""The allocator beside a recording that is still going on: it catches up only when someone asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel.memory.allocator import CachingAllocator


class MemoryReplay:
    """Feeds a growing list of events to an allocator.

    Args:
        events: as ``Program.events``; only the sign of operations matters here. May grow between calls.
        storage_bytes: size of each storage; may grow.
        allocator: what they are replayed on.
        stream_of: from the number of an operation (counted from 0) to its stream; None puts everything on
            the default stream.
    """

    def __init__(
        self,
        events: Sequence[int],
        storage_bytes: Sequence[int],
        allocator: CachingAllocator,
        stream_of: Callable[[int], int] | None = None,
    ) -> None:
        self.events = events
        self.storage_bytes = storage_bytes
        self.allocator = allocator
        self.position = 0
        self._stream_of = stream_of
        self._operations = 0
        self._address: dict[int, int] = {}

    def catch_up(self) -> CachingAllocator:
        """Replay what was recorded since the last call.

        Raises:
            OutOfMemory: an allocation does not fit; ``position`` is behind its event, which counts as not
                having happened, so that a script that catches the error can go on.
        """
        allocate, free = self.allocator.allocate, self.allocator.free
        address, sizes, stream_of = self._address, self.storage_bytes, self._stream_of
        end = len(self.events)
        while self.position < end:
            event = self.events[self.position]
            self.position += 1
            if event >= 0:
                self._operations += 1
            elif event & 1:
                storage = (-event - 1) >> 1
                stream = stream_of(self._operations - 1) if stream_of and self._operations else 0
                address[storage] = allocate(sizes[storage], stream)
            else:
                free(address.pop((-event - 1) >> 1, 0))
        return self.allocator

    def address(self, storage: int) -> int:
        """Device address of a live storage; 0 for an empty one.

        Raises:
            KeyError: the storage is not alive.
        """
        if storage not in self._address:
            self.catch_up()
        return self._address[storage]
