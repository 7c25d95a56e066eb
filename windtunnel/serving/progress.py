"""How far a load is, and what is known of it when it is broken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from windtunnel import units
from windtunnel.serving import metrics
from windtunnel.serving.engine import Replica
from windtunnel.serving.request import Served

Say = Callable[[str], None]


class Watch:
    """Looks at replicas every few of their steps; ``first``: those that only compute prompts.

    Where what runs in its block is interrupted, it says what is known by then.
    """

    def __init__(
        self, requests: int, replicas: Sequence[Replica], first: Sequence[Replica], say: Say | None
    ) -> None:
        self._requests, self._replicas, self._first = requests, replicas, first
        self._say: Say = say or (lambda text: None)
        if say is not None:
            for replica in (*replicas, *first):
                replica.watch = self.look

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is KeyboardInterrupt:
            self.known()

    def look(self, now_s: float) -> None:
        """Say where a replica is, and how many requests are answered."""
        self._say(f"{now_s:,.0f} s, {self._far}")

    def known(self) -> None:
        """Say what those answered so far have seen."""
        served = [one for replica in self._replicas for one in replica.served]
        now_s = max((one.finished_s for one in served), default=0.0)
        self._say(f"{now_s:,.0f} s, {self._far}{_seen(served)}")

    @property
    def _far(self) -> str:
        answered = sum(len(replica.served) for replica in self._replicas)
        prompts = sum(len(replica.served) for replica in self._first)
        before = f"{prompts:,} prompts done, " if self._first else ""
        return f"{before}{answered:,} of {self._requests:,} requests answered"


def _seen(served: Sequence[Served]) -> str:
    if not served:
        return ""
    found = metrics.latencies(served, [])
    return "".join(
        f"; {what.upper()} p50 {units.seconds(found[what].p50)}, p90 {units.seconds(found[what].p90)}"
        for what in ("ttft", "tpot")
    )
