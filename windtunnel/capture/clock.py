"""The virtual clock: what time it is on the chip, from replaying the recording so far.

Nothing is priced until someone asks; then only what is new since the last question is replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from windtunnel.cost.model import CostModel, Settings
from windtunnel.errors import WindtunnelError
from windtunnel.timeline.card import Card
from windtunnel.timeline.prices import CollectiveTime, OpPrice, price_ops
from windtunnel.timeline.sites import SiteTable

if TYPE_CHECKING:
    from windtunnel.capture.state import State


class Clock:
    """Host time and event times of one recording.

    Attributes:
        collective_time: seconds of a collective; set where the run has a network.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.collective_time: CollectiveTime | None = None
        self._table = SiteTable()
        self._card = Card(self._table, graph_launch_s=state.chip.graph_launch_s.value)
        self._prices: list[OpPrice] = []
        self._numbers: dict[tuple[int, int], int] = {}  # (spec, stream) → row of the table
        self._next_event = 0
        self._next_op = 0

    def now_s(self) -> float:
        """Host time since the recording began, as it would be with the real card."""
        self._catch_up()
        return self._card.host_s

    def event_time_s(self, event: int) -> float:
        """When a recorded event completed on its stream.

        Raises:
            WindtunnelError: E403, the event was never recorded.
        """
        self._catch_up()
        time_s = self._card.event_time_s(event)
        if time_s is None:
            raise WindtunnelError(
                "E403",
                f"event {event} was never recorded on a stream",
                hint="call `event.record()` before `elapsed_time`",
            )
        return time_s

    def _catch_up(self) -> None:
        recorder = self.state.recorder
        self._price_new_specs()
        places = self.state.context.places
        numbers: list[int] = []
        for event in recorder.events[self._next_event :]:
            if event >= 0:
                stream = places[recorder.contexts[self._next_op]][0]
                self._next_op += 1
                numbers.append(self._number(event, stream))
        self._next_event = len(recorder.events)
        self._card.advance(numbers)

    def _number(self, spec: int, stream: int) -> int:
        key = (spec, stream)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = self._table.add(self._prices[spec], stream)
        return number

    def _price_new_specs(self) -> None:
        recorder = self.state.recorder
        new = recorder.specs[len(self._prices) :]
        if new:
            works = [recorder.work_of(spec) for spec in new]
            model = CostModel(self.state.chip, Settings(allow_tf32=self.state.allow_tf32))
            self._prices += price_ops(new, works, model, recorder.groups, self.collective_time)
