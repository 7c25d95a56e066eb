"""Whether a run of teams can still keep to an SLA: it need not end to be known to miss it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.serving.metrics import Sla
from windtunnel.serving.request import Served
from windtunnel.workloads.agents.graph import CallGraph
from windtunnel.workloads.agents.replay import TaskRun

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class Hopeless:
    """Counts values above their limit among measured tasks; means and gaps between tokens it does not judge."""

    def __init__(self, terms: Sequence[Sla], graph: CallGraph, teams: int) -> None:
        values = {
            "task": teams,
            "ttft": teams * len(graph.calls),
            "e2e": teams * len(graph.calls),
            "tpot": teams * sum(call.output_tokens > 1 for call in graph.calls),
        }
        self._left = {
            term: values[term.what] - math.floor(_SHARES[term.percentile] * (values[term.what] - 1))
            for term in terms
            if term.what in values and term.percentile in _SHARES
        }

    def after(self, task: TaskRun) -> bool:
        """Whether a term is missed for certain with this task done: its percentile's lower neighbour is above."""
        for term in self._left:
            if term.what == "task":
                self._left[term] -= task.seconds > term.most_s
            else:
                self._left[term] -= sum(_seen(one, term.what) > term.most_s for one in task.served)
        return any(left <= 0 for left in self._left.values())


def _seen(one: Served, what: str) -> float:
    if what == "ttft":
        return one.ttft_s
    return one.e2e_s if what == "e2e" else one.tpot_s or 0.0
