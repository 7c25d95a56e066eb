"""Memory while the script runs: cheap counting until it matters, then the full allocator.

The allocator replay (``windtunnel.memory``) catches up with the recording only when someone asks, or
when live bytes come near the card's memory, so that ordinary recording costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.memory.allocator import CachingAllocator
from windtunnel.memory.live import MemoryReplay
from windtunnel.memory.oom import OutOfMemory
from windtunnel.memory.overhead import usable_bytes
from windtunnel.program.program import NoticeKind
from windtunnel.specs.schema import Vendor

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_NEAR = 0.7
"""Part of usable memory below which live bytes cannot run out: PyTorch's allocator gives back all that it
caches before it gives up, and what then is lost to splitting is less than this leaves."""

_BOUNDLESS = 1 << 46


class LiveMemory:
    """Answers ``torch.cuda.memory_*`` and raises ``torch.OutOfMemoryError`` at the operation that asks.

    Attributes:
        out_of_memory: where the first allocation failed; empty when all fitted.
    """

    def __init__(self, state: State, oom_continue: bool) -> None:
        self.state = state
        self.oom_continue = oom_continue
        self.total_bytes = int(state.chip.memory_bytes.value)
        self.usable_bytes = usable_bytes(state.chip)
        self.out_of_memory = ""
        self._replay = self._new_replay(self.usable_bytes)
        ledger = state.ledger
        ledger.limit_bytes = _NEAR * self.usable_bytes
        ledger.on_pressure = self._pressure
        ledger.address_of = self._address

    def _new_replay(self, capacity_bytes: int) -> MemoryReplay:
        recorder = self.state.recorder
        places, contexts = self.state.context.places, recorder.contexts
        return MemoryReplay(
            recorder.events,
            self.state.ledger.sizes,
            CachingAllocator(capacity_bytes, total_bytes=max(capacity_bytes, self.total_bytes)),
            lambda operation: places[contexts[operation]][0],
        )

    @property
    def allocator(self) -> CachingAllocator:
        """The allocator, caught up with the recording."""
        return self._replay.catch_up()

    def used_on_card_bytes(self) -> int:
        """Reserved bytes and what driver and libraries take."""
        return self.allocator.reserved_bytes + self.total_bytes - self.usable_bytes

    def stats(self) -> dict[str, int]:
        """Flat statistics with PyTorch's key names."""
        return self.allocator.stats()

    def snapshot(self) -> list[dict[str, Any]]:
        """Segments and their blocks, as ``torch.cuda.memory_snapshot`` lists them."""
        return [segment.to_dict() for segment in self.allocator.snapshot()]

    def set_fraction(self, fraction: float) -> None:
        """Cap this process at a part of the card's memory."""
        self.allocator.set_fraction(fraction)
        self.state.ledger.limit_bytes = _NEAR * fraction * self.usable_bytes

    def _address(self, storage: int) -> int:
        try:
            return self._replay.address(storage)
        except KeyError:
            return 0

    def _pressure(self) -> None:
        """Live bytes are near the card's memory: let the allocator decide about the last allocation.

        Raises:
            torch.OutOfMemoryError: it does not fit.
        """
        try:
            self._replay.catch_up()
        except OutOfMemory as error:
            where = str(self.state.context.current_line())
            first, self.out_of_memory = not self.out_of_memory, self.out_of_memory or where
            if not self.oom_continue:
                self._replay.position -= 1
                self.state.ledger.take_back()
                platform = "CUDA" if self.state.chip.vendor is Vendor.NVIDIA else "MUSA"
                raise torch.OutOfMemoryError(error.message(0, platform)) from None
            if first:
                what = f"ran out of memory here and went on (--oom continue): {error.message(0)}"
                self.state.recorder.notice(NoticeKind.SKIPPED, what)
            self.state.ledger.limit_bytes = float("inf")
            self._replay = self._new_replay(_BOUNDLESS)
