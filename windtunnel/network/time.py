"""What the network says about one collective: seconds, interval, and what it asks of the links."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate, Source


@dataclass(frozen=True, slots=True)
class NetworkTime:
    """One collective, alone on its links.

    Attributes:
        low_s, high_s: 80 % interval. limit: ``latency``, ``links`` or ``nic``.
        sm_share: fraction of the chip's multiprocessors held meanwhile.
        algorithm: as the library would call it. formula: the arithmetic in words.
        link_busy, nic_busy: share of the card's scale-up links and of its network card that it fills while
            it runs; ``contention.py`` shares out what several ask for at once.
    """

    seconds: float
    low_s: float
    high_s: float
    source: Source
    limit: str
    formula: str
    algorithm: str = ""
    sm_share: float = 0.0
    link_busy: float = 0.0
    nic_busy: float = 0.0

    def estimate(self) -> Estimate:
        """The same as an estimate."""
        return Estimate(self.seconds, self.low_s, self.high_s, ((self.source, 1.0),))


FREE = NetworkTime(0.0, 0.0, 0.0, Source.ANALYTIC, "latency", "one rank")
"""A collective of one rank."""
