"""The virtual clock: what time it is on the chip, from replaying the recording so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windtunnel.capture.state import State


class Clock:
    """Host time and event times of one recording; replays lazily, only what is new."""

    def __init__(self, state: State) -> None:
        self.state = state

    def now_s(self) -> float:
        """Host time since the recording began, as it would be with the real card."""
        raise NotImplementedError

    def event_time_s(self, event: int) -> float:
        """When a recorded event completed on its stream."""
        raise NotImplementedError
