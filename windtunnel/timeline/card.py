"""Replay of operations on one card: when the host issues each, when the device starts and ends it.

The host issues one operation after another. A kernel starts when it is issued, its stream is free and what
the stream waits for has happened; a stream keeps the order of its kernels. Two kernels that each fill the
card do not run at once: one that would start while such a kernel of another stream is running waits for its
end. Collectives run on a track of their own beside the streams.

``Card`` keeps its state between calls, so that a recording can ask for the time as it goes (virtual clock).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from windtunnel.timeline.prices import Act, OpPrice
from windtunnel.timeline.sites import SiteTable

_EVENT_RECORD, _EVENT_WAIT, _EVENT_SYNCHRONIZE = Act.EVENT_RECORD, Act.EVENT_WAIT, Act.EVENT_SYNCHRONIZE
_STREAM_SYNCHRONIZE, _SYNCHRONIZE, _ITEM = Act.STREAM_SYNCHRONIZE, Act.SYNCHRONIZE, Act.ITEM
_HOST_DELAY, _GRAPH_LAUNCH, _GRAPH_END = Act.HOST_DELAY, Act.GRAPH_LAUNCH, Act.GRAPH_END
_COLLECTIVE, _WAIT_COLLECTIVE = (
    Act.COLLECTIVE,
    Act.WAIT_COLLECTIVE,
)  # members are slow to look up on their class

ARRAY_RUN = 48  # shorter runs between marks go one by one: numpy's fixed cost is that of about 40 operations


@dataclass(slots=True)
class Trace:
    """What happened, in the order of issue; one row for each interval on the device.

    Attributes:
        position: index of the operation among all that were replayed.
        start_s, end_s: chunks of arrays; ``arrays`` joins them.
        waits: (position, host time before, host time after) where the host waited for the device.
        delays: (start, end) where the host did something else.
    """

    positions: list[npt.NDArray[np.int64]] = field(default_factory=list)
    starts: list[npt.NDArray[np.float64]] = field(default_factory=list)
    ends: list[npt.NDArray[np.float64]] = field(default_factory=list)
    waits: list[tuple[int, float, float]] = field(default_factory=list)
    delays: list[tuple[float, float]] = field(default_factory=list)

    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Positions, starts and ends of all intervals."""
        if not self.positions:
            return np.empty(0, np.int64), np.empty(0), np.empty(0)
        return np.concatenate(self.positions), np.concatenate(self.starts), np.concatenate(self.ends)


class Card:
    """The state of one card and its host.

    Attributes:
        table: the operations; it may grow between calls.
        host_s: the host's clock. issued: operations replayed so far.
    """

    def __init__(self, table: SiteTable, *, graph_launch_s: float, trace: Trace | None = None) -> None:
        self.table = table
        self.host_s = 0.0
        self.issued = 0
        self.trace = trace
        self._graph_launch_s = graph_launch_s
        self._in_graph = False
        self._free: list[float] = [0.0]
        self._busy: dict[int, tuple[float, float]] = {}  # by stream: the last interval that filled the card
        self._events: dict[float, float] = {}
        self._collectives: dict[float, float] = {}
        self._group_free: dict[int, float] = {}

    def stream_free_s(self, stream: int) -> float:
        """When everything issued to a stream is done."""
        return self._free[stream] if stream < len(self._free) else 0.0

    def event_time_s(self, event: int) -> float | None:
        """When a recorded event completes; None if it was never recorded."""
        return self._events.get(float(event))

    @property
    def device_free_s(self) -> float:
        """When everything issued to the device is done."""
        return max(*self._free, *self._group_free.values(), 0.0)

    @property
    def finish_s(self) -> float:
        """When host and device are both done."""
        return max(self.host_s, self.device_free_s)

    def wait_until(self, time_s: float) -> None:
        """The host sleeps or waits until a point in time."""
        self.host_s = max(self.host_s, time_s)

    def advance(self, numbers: Sequence[int]) -> None:
        """Issue operations in order, by their numbers in the table."""
        self._one_by_one(numbers)

    def advance_array(self, numbers: npt.NDArray[np.int64]) -> None:
        """The same for many at once: runs of kernels on one stream are computed as arrays."""
        all_acts, all_streams = self.table.integers
        if len(numbers) < ARRAY_RUN:
            self._one_by_one(numbers.tolist())
            return
        acts, streams = all_acts[numbers], all_streams[numbers]
        singly = 0  # from here on nothing was issued yet
        for begin, end in _long_runs(acts, streams):
            self._one_by_one(numbers[singly:begin].tolist())
            singly = begin
            if not self._others_busy(int(streams[begin])):
                self._at_once(numbers[begin:end], acts[begin:end], int(streams[begin]))
                singly = end
        self._one_by_one(numbers[singly:].tolist())

    def _others_busy(self, stream: int) -> bool:
        return any(other != stream and end > self.host_s for other, (_, end) in self._busy.items())

    def _open(self, stream: int) -> None:
        while len(self._free) <= stream:
            self._free.append(0.0)

    def _at_once(self, numbers: npt.NDArray[np.int64], acts: npt.NDArray[np.int64], stream: int) -> None:
        """Kernels of one stream: end_i = max(issue_i, end_{i-1}) + d_i, as a running maximum."""
        hosts, devices = self.table.floats
        self._open(stream)
        if self._in_graph:
            issue = np.full(len(numbers), self.host_s)
        else:
            issue = self.host_s + np.cumsum(hosts[numbers])
        self.host_s = float(issue[-1])
        kernels = np.flatnonzero(acts != Act.HOST)
        if len(kernels):
            lengths = devices[numbers[kernels]]
            done = np.cumsum(lengths)
            before = np.maximum.accumulate(issue[kernels] - (done - lengths))
            ends = done + np.maximum(before, self._free[stream])
            starts = ends - lengths
            self._free[stream] = float(ends[-1])
            full = np.flatnonzero(acts[kernels] == Act.KERNEL)
            if len(full):
                self._busy[stream] = (float(starts[full[-1]]), float(ends[full[-1]]))
            self._note(self.issued + kernels, starts, ends)
        self.issued += len(numbers)

    def _one_by_one(self, numbers: Iterable[int]) -> None:
        table, free = self.table, self._free
        acts, streams, hosts, devices = table.acts, table.streams, table.hosts, table.devices
        busy, host, position, in_graph = self._busy, self.host_s, self.issued, self._in_graph
        positions: list[int] = []
        starts: list[float] = []
        ends: list[float] = []
        for number in numbers:
            act = acts[number]
            if act <= 2:
                if not in_graph:
                    host += hosts[number]
                if act != 2:
                    stream = streams[number]
                    if stream >= len(free):
                        self._open(stream)
                    start = free[stream]
                    start = max(start, host)
                    if act == 0:
                        if len(busy) > 1 or stream not in busy:
                            start = _when_free(busy, stream, start)
                        busy[stream] = (start, start + devices[number])
                    free[stream] = end = start + devices[number]
                    positions.append(position)
                    starts.append(start)
                    ends.append(end)
            else:
                self.host_s, self.issued = host, position
                interval = self._mark(table.prices[number], hosts[number], devices[number], streams[number])
                host, in_graph = self.host_s, self._in_graph
                if interval is not None:
                    positions.append(position)
                    starts.append(interval[0])
                    ends.append(interval[1])
            position += 1
        self.host_s, self.issued = host, position
        if positions:
            self._note(np.array(positions, np.int64), np.array(starts), np.array(ends))

    def _note(
        self, positions: npt.NDArray[np.int64], starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64]
    ) -> None:
        if self.trace is not None:
            self.trace.positions.append(positions)
            self.trace.starts.append(starts)
            self.trace.ends.append(ends)

    def _mark(
        self, price: OpPrice, host_s: float, device_s: float, stream: int
    ) -> tuple[float, float] | None:
        """Everything that is not a plain kernel. Answers the interval it takes on the device, if any."""
        if not self._in_graph:
            self.host_s += host_s
        self._open(stream)
        act = price.act
        if act is _EVENT_RECORD:
            self._events[price.argument] = max(self.host_s, self._free[stream])
        elif act is _EVENT_WAIT:
            self._free[stream] = max(self._free[stream], self._events.get(price.argument, 0.0))
        elif act is _EVENT_SYNCHRONIZE:
            self._host_waits(self._events.get(price.argument, 0.0))
        elif act is _STREAM_SYNCHRONIZE:
            self._host_waits(self._free[stream])
        elif act is _SYNCHRONIZE:
            self._host_waits(self.device_free_s)
        elif act is _ITEM:
            start = max(self.host_s, self._free[stream])
            self._free[stream] = start + device_s
            self._host_waits(self._free[stream])
            return start, start + device_s
        elif act is _HOST_DELAY:
            self._delay(max(0.0, price.argument))
        elif act is _GRAPH_LAUNCH:
            self.host_s += self._graph_launch_s
            self._in_graph = True
        elif act is _GRAPH_END:
            self._in_graph = False
        elif act is _WAIT_COLLECTIVE:
            self._free[stream] = max(self._free[stream], self._collective_end(price.argument))
        elif act is _COLLECTIVE:
            return self._collective(price, device_s, stream)
        return None

    def _collective(self, price: OpPrice, device_s: float, stream: int) -> tuple[float, float]:
        start = max(self.host_s, self._free[stream], self._group_free.get(price.group, 0.0))
        end = start + device_s
        self._group_free[price.group] = end
        self._collectives[price.argument] = end
        if price.blocks:
            self._free[stream] = end
        return start, end

    def _collective_end(self, work: float) -> float:
        if work in self._collectives:
            return self._collectives[work]
        return max(self._collectives.values(), default=0.0)  # a wait that does not say for what: for all

    def _host_waits(self, until_s: float) -> None:
        if until_s > self.host_s:
            if self.trace is not None:
                self.trace.waits.append((self.issued, self.host_s, until_s))
            self.host_s = until_s

    def _delay(self, seconds: float) -> None:
        if self.trace is not None:
            self.trace.delays.append((self.host_s, self.host_s + seconds))
        self.host_s += seconds


def _when_free(busy: dict[int, tuple[float, float]], stream: int, start_s: float) -> float:
    """The first time from ``start_s`` at which no other stream's latest full kernel is running."""
    for begun, done in sorted(interval for other, interval in busy.items() if other != stream):
        if begun <= start_s < done:
            start_s = done
    return start_s


def _long_runs(acts: npt.NDArray[np.int64], streams: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Runs of plain operations on one stream that are worth computing as arrays."""
    plain = acts <= Act.HOST
    bounds = np.concatenate(([0], np.flatnonzero(np.diff(np.where(plain, streams, -1))) + 1, [len(acts)]))
    begins, ends = bounds[:-1], bounds[1:]
    long = (ends - begins >= ARRAY_RUN) & plain[begins]
    return list(zip(begins[long].tolist(), ends[long].tolist(), strict=True))
