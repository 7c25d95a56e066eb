"""What `windtunnel serve --agents` says: teams on a deployment, and how many it carries. Plain data, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate
from windtunnel.results.serving_result import Limit, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamsLoad:
    """What the search saw of ``teams`` teams. ``met``: every term of the SLA held."""

    teams: int
    task_s: Spread
    ttft_s: Spread
    tpot_s: Spread
    tasks_per_hour: float
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsResult:
    """One deployment under ``teams`` teams of one kind that work without end.

    Attributes:
        scenario: name of the call graph; graph_source: who made it, when.
        sustained_teams: most teams within every term of the SLA, with what fast and slow steps would allow.
        loads: all numbers of teams that were tried, fewest first.
        task_s: one task of a team, from its start to its last answer; alone_s: when its team is alone.
        task_quantiles_s: the distribution at ``QUANTILES``.
        ttft_s, tpot_s: over calls. in_flight: calls under way on average.
        cached_fraction: of prompt tokens, found in the cache; shared_fraction: what a cache without end would find.
        tasks_per_hour: of all teams. cost_per_task: at ``card_hour_price``, which is assumed.
        prompt_tokens_per_task, output_tokens_per_task: sums over the calls of a task.
    """

    model: str
    model_title: str
    chip: str
    chip_title: str
    cards: int
    layout: str
    scenario: str
    graph_source: str
    teams: int
    sustained_teams: Estimate
    loads: tuple[TeamsLoad, ...]
    task_s: Spread
    task_quantiles_s: tuple[float, ...]
    alone_s: float
    ttft_s: Spread
    tpot_s: Spread
    in_flight: float
    calls_per_task: int
    prompt_tokens_per_task: int
    output_tokens_per_task: int
    cached_fraction: float
    shared_fraction: float
    tasks_per_hour: Estimate
    card_hour_price: float
    cost_per_task: Estimate
    preemptions: int
    limits: tuple[Limit, ...]
    assumptions: tuple[str, ...]

    @property
    def meets_sla(self) -> bool:
        """Whether every term holds at ``teams`` teams."""
        return all(limit.met for limit in self.limits)
