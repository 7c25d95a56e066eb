"""How many teams of agents a deployment carries within an SLA, and what their tasks cost.

Teams are added until a term breaks, then the border is closed in on. The same search from that border, with steps as
fast and as slow as the 80 % interval at the border allows, gives the interval of the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from windtunnel.estimate import Estimate, Source
from windtunnel.recipes.layers.cached import Batch
from windtunnel.results.agents_result import AgentsResult, TeamsLoad
from windtunnel.results.serving_result import Spread
from windtunnel.serving import metrics
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.metrics import Sla, parse_sla
from windtunnel.serving.predict import engine_assumptions
from windtunnel.serving.progress import Say
from windtunnel.serving.router import Policy
from windtunnel.serving.uncertainty import Width, width_of
from windtunnel.workloads.agents.graph import CallGraph
from windtunnel.workloads.agents.hopeless import Hopeless
from windtunnel.workloads.agents.replay import Outcome, Pace, TaskRun, replay

DEFAULT_SLA = "ttft:p90<3s,tpot:p90<80ms"
"""First words within three seconds and twelve words a second, for nine calls of ten: assumed where none is given."""
DEFAULT_CARD_HOUR = 2.0
"""Assumed price of a card hour, in any currency."""
TEAMS_MAX = 8192
CLOSE, CLOSE_ENOUGH = 1.03, 1.08
"""The border is known when what holds and what breaks differ by this factor; an end of its interval by the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a deployment."""

    graph: CallGraph
    teams: int
    sla: tuple[Sla, ...]
    pace: Pace
    card_hour_price: float = DEFAULT_CARD_HOUR
    policy: Policy = Policy.LEAST_LOAD


def parse_terms(text: str) -> tuple[Sla, ...]:
    """An SLA with terms for tasks too: ``task:p90<120s,ttft:p90<3s``. Raises E654."""
    terms = []
    for part in filter(None, (part.strip() for part in (text or DEFAULT_SLA).split(","))):
        whole = part.lower().startswith("task")
        (term,) = parse_sla("e2e" + part[4:] if whole else part)
        terms.append(replace(term, what="task") if whole else term)
    return tuple(terms)


def sustained(deployment: Deployment, question: Question, say: Say = lambda text: None) -> AgentsResult:
    """Teams, their latencies, the most that hold, and costs."""
    graph, pace = question.graph, question.pace
    alone = replay(deployment, graph, 1, pace, say=say)
    alone_s = alone.tasks[0].seconds
    outcome = _run(deployment, question, question.teams, alone_s, say)
    seen = {1: _load(question, 1, _spreads(alone))}
    ran = {question.teams: outcome}
    most = _most(deployment, question, alone_s, say, seen=seen, ran=ran)
    border = ran[most] if most else alone
    at_border = width_of(deployment, _batch(border, graph))

    def end(name: str, factor: float) -> int:
        """The border with steps that take ``factor`` times as long."""

        def tell(text: str) -> None:
            say(f"{most:,} teams; {name} steps: {text}")

        return _most(_at(deployment, factor), question, alone_s * factor, tell, start=most)

    slow, fast = end("slowest", at_border.high), end("fastest", at_border.low)
    width = width_of(deployment, _batch(outcome, graph))
    between = Estimate(most, min(slow, most), max(fast, most), at_border.shares)
    loads = tuple(seen[teams] for teams in sorted(seen))
    return _told(deployment, question, outcome, between, loads, alone_s, width)


def _run(
    deployment: Deployment, question: Question, teams: int, spread_s: float, say: Say | None = None, known: str = "",
    enough: Callable[[TaskRun], bool] | None = None,
) -> Outcome:  # fmt: skip
    return replay(
        deployment, question.graph, teams, question.pace, policy=question.policy, spread_s=spread_s,
        say=(lambda far: say(f"{teams:,} teams{known}: {far}")) if say else None, enough=enough,
    )  # fmt: skip


def _most(
    deployment: Deployment, question: Question, alone_s: float, say: Say, start: int = 0,
    seen: dict[int, TeamsLoad] | None = None, ran: dict[int, Outcome] | None = None,
) -> int:  # fmt: skip
    """Most teams that hold; 0 where one does not. ``seen`` takes what every number of teams gave.

    ``start``: a border that is close; it is left in strides that grow. ``ran``: runs there are; the one of the answer
    is added. Where nobody wants to see them, runs end when they are known to miss a term.
    """

    broke: list[int] = []

    def holds(teams: int) -> bool:
        known = [f"{low:,} hold"] * bool(low) + [f"{min(broke, default=0):,} do not"] * bool(broke)
        said = f" ({', '.join(known)})" if known else ""
        hopeless = Hopeless(question.sla, question.graph, teams) if seen is None else None
        outcome = (ran or {}).get(teams) or _run(
            deployment, question, teams, alone_s, say, said, hopeless.after if hopeless else None
        )
        met = len(outcome.tasks) == teams
        if met:  # else stopped
            load = _load(question, teams, _spreads(outcome))
            met = load.met
            if seen is not None:
                seen[teams] = load
        if met and ran is not None:
            for older in [one for one in ran if one < teams and one != question.teams]:
                del ran[older]
            ran[teams] = outcome
        if not met:
            broke.append(teams)
        return met

    low, high = 0, max(1, start or question.teams)
    stride, close = (1.25, CLOSE_ENOUGH) if start else (2.0, CLOSE)
    while holds(high):
        low = high
        if high >= TEAMS_MAX:
            return TEAMS_MAX
        high = min(TEAMS_MAX, max(high + 1, round(high * stride)))
        stride = min(2.0, stride**2)
    if not low:
        low = int(high / stride)
        while low and not holds(low):
            stride = min(4.0, stride**2)
            low, high = int(low / stride), low
    while high - low > 1 and high > low * close:
        middle = min(high - 1, max(low + 1, round((low * high) ** 0.5)))
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _at(deployment: Deployment, factor: float) -> Deployment:
    return replace(deployment, slower=deployment.slower * factor)


def _spreads(outcome: Outcome) -> dict[str, Spread]:
    calls = outcome.calls
    return {
        "task": metrics.spread([task.seconds for task in outcome.tasks]),
        "ttft": metrics.spread([one.ttft_s for one in calls]),
        "tpot": metrics.spread([tpot for one in calls if (tpot := one.tpot_s) is not None]),
        "e2e": metrics.spread([one.e2e_s for one in calls]),
        "itl": metrics.latencies([], outcome.replicas)["itl"],
    }


def _load(question: Question, teams: int, found: dict[str, Spread]) -> TeamsLoad:
    return TeamsLoad(
        teams=teams,
        task_s=found["task"],
        ttft_s=found["ttft"],
        tpot_s=found["tpot"],
        tasks_per_hour=_per_hour(question, teams, found["task"]),
        met=all(limit.met for limit in metrics.limits(question.sla, found)),
    )


def _per_hour(question: Question, teams: int, task_s: Spread) -> float:
    return 3600 * teams / (task_s.mean + question.pace.think_s)


def _batch(outcome: Outcome, graph: CallGraph) -> Batch:
    """The mean batch of a step, for the interval."""
    tokens = sum(replica.gaps.count for replica in outcome.replicas)
    steps = sum(replica.decode_steps for replica in outcome.replicas)
    ranks = len(outcome.replicas[0].ranks)
    context = (graph.prompt_tokens + graph.output_tokens / 2) / len(graph.calls)
    return Batch(sequences=max(1, round(tokens / max(1, steps) / ranks)), context=max(1, round(context)))


def _told(
    deployment: Deployment, question: Question, outcome: Outcome, most: Estimate, loads: tuple[TeamsLoad, ...],
    alone_s: float, width: Width,
) -> AgentsResult:  # fmt: skip
    graph, calls, found = question.graph, outcome.calls, _spreads(outcome)
    cards = deployment.layout.cards * deployment.replicas
    per_hour = _per_hour(question, question.teams, found["task"])
    # gaps and tools do not stretch with steps, so this is the wider side
    rate = Estimate(per_hour, per_hour / width.high, per_hour / width.low, width.shares)
    price = question.card_hour_price * cards
    cost = Estimate(price / per_hour, price / rate.high, price / rate.low, ((Source.ASSUMED, 1.0),))
    busy_s = sum(one.e2e_s for one in calls) / len(outcome.tasks)
    cluster, model = deployment.cluster, deployment.model
    return AgentsResult(
        model=model.name,
        model_title=model.title or model.name,
        chip=cluster.chip.name,
        chip_title=cluster.chip.title,
        cards=cards,
        layout=deployment.words(),
        scenario=graph.name,
        graph_source=graph.source,
        teams=question.teams,
        sustained_teams=most,
        loads=loads,
        task_s=found["task"],
        task_quantiles_s=metrics.quantiles([task.seconds for task in outcome.tasks]),
        alone_s=alone_s,
        ttft_s=found["ttft"],
        tpot_s=found["tpot"],
        in_flight=question.teams * busy_s / (found["task"].mean + question.pace.think_s),
        calls_per_task=len(graph.calls),
        prompt_tokens_per_task=graph.prompt_tokens,
        output_tokens_per_task=graph.output_tokens,
        cached_fraction=sum(one.cached_tokens for one in calls)
        / sum(one.request.prompt_tokens for one in calls),
        shared_fraction=graph.shared_fraction,
        tasks_per_hour=rate,
        card_hour_price=question.card_hour_price,
        cost_per_task=cost,
        preemptions=sum(rank.preempted for replica in outcome.replicas for rank in replica.ranks),
        limits=metrics.limits(question.sla, found),
        assumptions=(*_assumptions(question), *engine_assumptions(deployment)),
    )


def _assumptions(question: Question) -> tuple[str, ...]:
    pace = question.pace
    tools = (
        "tools take as long as they did when recorded" if pace.tool_s < 0 else f"tools take {pace.tool_s:g} s"
    )
    think = f"{pace.think_s:g} s pass" if pace.think_s else "no time passes"
    return (
        f"call graph: {question.graph.source}",
        f"{tools}; {think} between two tasks of a team",
        f"a card hour costs {question.card_hour_price:g} (assumed), used or not",
        "answers have the lengths that the recorded ones had",
    )
