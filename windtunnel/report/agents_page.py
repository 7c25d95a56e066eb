"""The page of `windtunnel serve --agents`: how many teams a deployment carries, and what they see. One offline file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from windtunnel import units
from windtunnel.report import html
from windtunnel.report.figure_cards import Card, card
from windtunnel.report.files import write_bytes
from windtunnel.report.line_plots import Axis, LinePlot, Series, linear, plot
from windtunnel.results.agents_result import AgentsResult
from windtunnel.results.serving_result import QUANTILES, Limit, Spread

WORDS = {
    "task": "Task",
    "ttft": "Time to first token",
    "tpot": "Time per output token",
    "itl": "Gap between tokens",
    "e2e": "Whole call",
}


def write(found: AgentsResult, path: str | Path) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(found).encode())


def render(found: AgentsResult) -> str:
    """The page of one deployment and one kind of team."""
    most = found.sustained_teams
    carried = f"{most.value:,.0f} teams of {found.scenario}"
    answer = f"Carries {carried} within the SLA" if most.value else "Carries not one team within the SLA"
    return html.fill(
        "agents.html.j2", found=found, answer=answer, cards=_cards(found), plots=_plots(found),
        spreads=[
            ("Task", found.task_s), ("Time to first token", found.ttft_s), ("Time per output token", found.tpot_s),
        ],
        words=WORDS, data="",
    )  # fmt: skip


def _cards(found: AgentsResult) -> list[Card]:
    alone = f"{units.seconds(found.alone_s)} when a team is alone"
    most = found.sustained_teams
    between = f"{most.low:,.0f} – {most.high:,.0f}"
    return [
        Card("Teams within the SLA", f"{most.value:,.0f}", "", between, "every term kept"),
        Card(f"A task at {found.teams:,} teams", units.seconds(found.task_s.p90), "p90", "", alone),
        card("Tasks an hour", found.tasks_per_hour, f"{found.teams:,} teams", ""),
        card("Cost of a task", found.cost_per_task, f"at {found.card_hour_price:g} a card hour (assumed)", ""),
        Card("Calls under way", f"{found.in_flight:.0f}", "", "", f"{found.calls_per_task} calls a task"),
        Card(
            "Found in the cache", f"{100 * found.cached_fraction:.0f}", "%", "",
            f"of tokens read; a cache without end would find {100 * found.shared_fraction:.0f} %",
        ),
    ]  # fmt: skip


def _plots(found: AgentsResult) -> list[LinePlot]:
    made = []
    if len(found.loads) > 1:
        teams = linear([load.teams for load in found.loads], lambda value: f"{value:,.0f}")
        kinds: tuple[tuple[str, Callable[[int], Spread]], ...] = (
            ("task", lambda place: found.loads[place].task_s),
            ("ttft", lambda place: found.loads[place].ttft_s),
            ("tpot", lambda place: found.loads[place].tpot_s),
        )
        made += [_against_teams(found, what, spread, teams) for what, spread in kinds]
        hourly = [(load.teams, load.tasks_per_hour) for load in found.loads]
        y = linear([rate for _, rate in hourly], lambda value: f"{value:,.0f}")
        made.append(plot("Tasks an hour", "teams", [Series("tasks an hour", hourly)], teams, y))
    if found.task_quantiles_s:
        points = list(zip(found.task_quantiles_s, QUANTILES, strict=True))
        x = linear(found.task_quantiles_s, units.seconds)
        title = f"A task at {found.teams:,} teams"
        share = linear([1 / 1.04], lambda value: f"{100 * value:.0f} %")
        made.append(plot(title, "tasks that took at most", [Series(title, points)], x, share))
    return made


def _against_teams(found: AgentsResult, what: str, spread: Callable[[int], Spread], teams: Axis) -> LinePlot:
    loads = found.loads
    percentiles = list(dict.fromkeys(["p50", "p90", *(limit.percentile for limit in _terms(found, what))]))
    series = [
        Series(name, [(load.teams, spread(place).to_dict()[name]) for place, load in enumerate(loads)])
        for name in percentiles
    ]
    ends = (loads[0].teams, loads[-1].teams)
    for limit in _terms(found, what):
        line = [(end, limit.most_s) for end in ends]
        series.append(Series(f"most that {limit.percentile} may be", line, dashed=True))
    values = [value for one in series for _, value in one.points]
    return plot(WORDS[what], "teams", series, teams, linear(values, units.seconds))


def _terms(found: AgentsResult, what: str) -> list[Limit]:
    return [limit for limit in found.limits if limit.what == what]
