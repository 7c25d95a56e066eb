"""The clock of a recording in progress: what time it is on the card after the operations issued so far.

Operations come by number of their spec, which a recorder interns as it goes; each distinct one is priced when
it first comes. Not the prediction: that prices the finished program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel.cost.model import CostModel
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Work
from windtunnel.specs.schema import Chip
from windtunnel.timeline.card import Card
from windtunnel.timeline.prices import CollectiveTime, PriceModel, price_ops
from windtunnel.timeline.sites import SiteTable


class LiveClock:
    """Host and event times of a growing recording.

    Args:
        specs: the recorder's own list of distinct operations; it may grow between calls.
        groups: the recorder's own list of process groups.
        work: how operations are counted; a recorder with custom operations gives its own.
    """

    def __init__(
        self,
        chip: Chip,
        specs: Sequence[OpSpec],
        groups: Sequence[ProcessGroup] = (),
        *,
        model: PriceModel | None = None,
        collective_time: CollectiveTime | None = None,
        work: Callable[[OpSpec], Work] = work_of,
    ) -> None:
        self._specs, self._groups, self._work = specs, groups, work
        self._model = model or CostModel(chip)
        self._collective_time = collective_time
        self._table = SiteTable()
        self._numbers: dict[tuple[int, int], int] = {}
        self._card = Card(self._table, graph_launch_s=chip.graph_launch_s.value)

    @property
    def now_s(self) -> float:
        """Host time since the beginning."""
        return self._card.host_s

    @property
    def finish_s(self) -> float:
        """When everything issued so far is done, on the host and on the device."""
        return self._card.finish_s

    def event_time_s(self, event: int) -> float | None:
        """When a recorded event completes; None if it was never recorded."""
        return self._card.event_time_s(event)

    def stream_free_s(self, stream: int) -> float:
        """When everything issued to a stream is done."""
        return self._card.stream_free_s(stream)

    def wait_until(self, time_s: float) -> None:
        """The host does something else until a point in time."""
        self._card.wait_until(time_s)

    def advance(self, specs: Sequence[int], streams: Sequence[int]) -> None:
        """Issue operations in order: spec numbers, and the stream of each."""
        known = self._numbers
        pairs = list(zip(specs, streams, strict=True))
        fresh = [pair for pair in dict.fromkeys(pairs) if pair not in known]
        if fresh:
            self._price(fresh)
        self._card.advance([known[pair] for pair in pairs])

    def _price(self, pairs: Sequence[tuple[int, int]]) -> None:
        specs = [self._specs[number] for number, _ in pairs]
        works = [self._work(spec) for spec in specs]
        prices = price_ops(specs, works, self._model, self._groups, self._collective_time)
        for pair, price in zip(pairs, prices):
            self._numbers[pair] = self._table.add(price, pair[1])
