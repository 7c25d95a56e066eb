"""Memory while the script runs: cheap counting until it matters, then the full allocator.

The allocator replay (``windtunnel.memory``) catches up with the recording only when someone asks, or
when live bytes come near the card's memory, so that ordinary recording costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from windtunnel.program.program import NoticeKind

if TYPE_CHECKING:
    from windtunnel.capture.state import State

_NEAR = 0.80
"""Part of the card's memory below which live bytes cannot run out: fragmentation and caching are
given back before PyTorch's allocator gives up."""


class LiveMemory:
    """Answers ``torch.cuda.memory_*`` and raises ``torch.OutOfMemoryError`` at the operation that asks."""

    def __init__(self, state: State, oom_continue: bool) -> None:
        self.state = state
        self.oom_continue = oom_continue
        self.total_bytes = int(state.chip.memory_bytes.value)
        self._base_peak = 0
        state.ledger.limit_bytes = self.total_bytes
        state.ledger.on_pressure = self._pressure
        self.out_of_memory = ""

    def active_bytes(self) -> int:
        return self.state.ledger.live_bytes

    def peak_active_bytes(self) -> int:
        return self.state.ledger.peak_bytes

    def reserved_bytes(self) -> int:
        return self.state.ledger.live_bytes

    def peak_reserved_bytes(self) -> int:
        return self.state.ledger.peak_bytes

    def used_on_card_bytes(self) -> int:
        return self.reserved_bytes()

    def stats(self) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": self.active_bytes(),
            "allocated_bytes.all.peak": self.peak_active_bytes(),
            "reserved_bytes.all.current": self.reserved_bytes(),
            "reserved_bytes.all.peak": self.peak_reserved_bytes(),
            "num_alloc_retries": 0,
            "num_ooms": 0,
        }

    def snapshot(self) -> list[dict[str, Any]]:
        return []

    def reset_peak(self) -> None:
        self.state.ledger.peak_bytes = self.state.ledger.live_bytes

    def reset_accumulated(self) -> None:
        return None

    def empty_cache(self) -> None:
        return None

    def set_fraction(self, fraction: float) -> None:
        self.state.ledger.limit_bytes = self.total_bytes * fraction

    def _pressure(self, nbytes: int) -> float:
        where = self.state.context.current_line()
        self.out_of_memory = str(where)
        if self.oom_continue:
            self.state.recorder.notice(NoticeKind.SKIPPED, "ran out of memory here and went on")
            return float("inf")
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {nbytes} bytes.")
