"""The table of operations that a card replays: what each does, on which stream, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from windtunnel.timeline.prices import OpPrice

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class SiteTable:
    """Operations by number, as arrays for many at once and as lists for one by one.

    Attributes:
        acts, streams: what an operation does (``Act``) and on which stream.
        hosts, devices: seconds on the host and on the device.
    """

    def __init__(self) -> None:
        self.prices: list[OpPrice] = []
        self.acts: list[int] = []
        self.streams: list[int] = []
        self.hosts: list[float] = []
        self.devices: list[float] = []
        self._integers: tuple[Ints, Ints] | None = None
        self._floats: tuple[Floats, Floats] | None = None

    def add(self, price: OpPrice, stream: int) -> int:
        """Add an operation on a stream; the answer is its number."""
        self.prices.append(price)
        self.acts.append(int(price.act))
        self.streams.append(stream)
        self.hosts.append(price.host_s)
        self.devices.append(price.seconds)
        self._integers = self._floats = None
        return len(self.acts) - 1

    @classmethod
    def of_sites(cls, prices: Sequence[OpPrice], sites: Ints, hosts: Floats, devices: Floats) -> SiteTable:
        """The sites of a program, with host and device seconds by spec number."""
        table = cls()
        numbers = sites[:, 0]
        acts = np.array([price.act for price in prices], np.int64)[numbers]
        streams = np.ascontiguousarray(sites[:, 1])
        table._integers = (acts, streams)
        table._floats = (hosts[numbers], devices[numbers])
        table.acts, table.streams = acts.tolist(), streams.tolist()
        table.hosts, table.devices = (column.tolist() for column in table._floats)
        table.prices = [prices[number] for number in numbers.tolist()]
        return table

    def with_times(self, hosts: Floats, devices: Floats) -> SiteTable:
        """The same operations with other seconds, by number."""
        table = SiteTable()
        table.prices, table.acts, table.streams = self.prices, self.acts, self.streams
        table._integers = self.integers
        table._floats = (hosts, devices)
        table.hosts, table.devices = hosts.tolist(), devices.tolist()
        return table

    @property
    def integers(self) -> tuple[Ints, Ints]:
        """Acts and streams as arrays."""
        if self._integers is None:
            self._integers = (np.array(self.acts, np.int64), np.array(self.streams, np.int64))
        return self._integers

    @property
    def floats(self) -> tuple[Floats, Floats]:
        """Host and device seconds as arrays."""
        if self._floats is None:
            self._floats = (np.array(self.hosts), np.array(self.devices))
        return self._floats
