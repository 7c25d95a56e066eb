"""`windtunnel serve --agents autogen:swarm×200`: how many teams of agents a deployment carries, and at what cost."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path

from windtunnel import units
from windtunnel.cli import output
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.report import agents_page
from windtunnel.report.text_table import TextColumn, render
from windtunnel.results.agents_result import AgentsResult
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.router import Policy
from windtunnel.workloads.agents import capacity, graph, recording
from windtunnel.workloads.agents.capacity import Question
from windtunnel.workloads.agents.graph import CallGraph
from windtunnel.workloads.agents.replay import Pace

_MANY = re.compile(r"^(?P<name>.+?)(?:\s*[×xX*]\s*(?P<teams>\d+))?$")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The group `agents` of `windtunnel serve --help`."""
    add = parser.add_argument_group("agents").add_argument
    add(
        "--agents",
        metavar="TEAM×N",
        help="how many such teams are carried: autogen:swarm×200 (or x200), or of a recording, FILE.jsonl[:TEAM]×N",
    )
    add("--think-time", type=float, default=0.0, metavar="S", help="between tasks of a team; default: 0")
    add("--tool-time", type=float, default=-1.0, metavar="S", help="mean of tools; default: as recorded")
    add(
        "--card-hour-price",
        type=float,
        default=capacity.DEFAULT_CARD_HOUR,
        metavar="P",
        help=f"for the cost of a task; default: {capacity.DEFAULT_CARD_HOUR:g} (assumed)",
    )


def wanted_graph(text: str) -> tuple[CallGraph, int]:
    """The call graph and the number of teams that ``--agents`` names. Raises E650, E664, E665."""
    found = _MANY.match(text.strip())
    name, teams = (found["name"], int(found["teams"] or 1)) if found else (text, 1)
    if not 1 <= teams <= capacity.TEAMS_MAX:
        raise WindtunnelError(
            "E650",
            f"--agents takes 1 to {capacity.TEAMS_MAX:,} teams, not {teams:,}",
            hint=f"--agents {name}×200",
        )
    file, colon, team = name.partition(".jsonl:")
    path = Path(file + ".jsonl") if colon else Path(name)
    if path.suffix == ".jsonl" or path.is_file():
        return _recorded(path, team), teams
    return graph.graph_called(name), teams


def _recorded(path: Path, team: str) -> CallGraph:
    """That team of a recording, or its first one; calls that name no task are one only where there is no other."""
    found = {one.name: one for one in recording.read(path, f"recorded in {path.name}")}
    named = [name for name in found if name != recording.UNNAMED] or list(found)
    if team and team not in found:
        raise WindtunnelError(
            "E664",
            f"no team in {path.name} is called `{team}`",
            hint=f"recorded there: {', '.join(named)}",
        )
    chosen = found[team or named[0]]
    others = [name for name in named if name != chosen.name]
    if others and not team:
        source = f"{chosen.source}, which has {', '.join(others)}, too (--agents {path.name}:{others[0]}×N)"
        return replace(chosen, source=source)
    return chosen


def run(args: argparse.Namespace, deployment: Deployment, team: CallGraph, teams: int) -> int:
    """Search, print; exit status 1 where the teams asked for are too many."""
    for name in ("prefill_cards", "rate", "concurrency", "trace", "port"):
        if getattr(args, name):
            option = f"--{name.replace('_', '-')}"
            raise WindtunnelError(
                "E650", f"--agents and {option} exclude each other", hint="keep one of them"
            )
    for name in ("think_time", "card_hour_price"):
        if not 0 <= getattr(args, name) < float("inf"):
            option = f"--{name.replace('_', '-')}"
            raise WindtunnelError(
                "E650", f"{option} {getattr(args, name)} must be zero or more", hint=f"{option} 1"
            )
    question = Question(
        graph=team,
        teams=teams,
        sla=capacity.parse_terms(args.sla),
        pace=Pace(think_s=args.think_time, tool_s=args.tool_time, seed=args.seed),
        card_hour_price=args.card_hour_price,
        policy=Policy(args.router),
    )
    with output.Progress("searching", quiet=args.quiet) as progress:
        found = capacity.sustained(deployment, question, progress.update)
    if args.html:
        agents_page.write(found, args.html)
        output.say(f"wrote {args.html}", quiet=args.quiet)
    if args.json:
        output.print_json(as_json(found))
    else:
        output.print_lines(text(found, output.width()))
    return 0 if found.meets_sla else 1


def text(found: AgentsResult, width: int) -> list[str]:
    """The answer for a terminal of ``width`` columns."""
    head = f"{found.teams:,} × {found.scenario} on {found.cards} × {found.chip_title}, {found.model_title}"
    latencies = [
        (label, *(units.seconds(value) for value in spread.to_dict().values()))
        for label, spread in (
            ("Task", found.task_s), ("Time to first token", found.ttft_s), ("Time per output token", found.tpot_s),
        )
    ]  # fmt: skip
    columns = [
        TextColumn(f"At {found.teams:,} teams"),
        *(TextColumn(name, right=True) for name in ("mean", "p50", "p90", "p99")),
    ]
    lines = [head, *output.wrapped(found.layout, width, " "), "", *render(columns, latencies, width), ""]
    lines += render(
        [TextColumn("Teams"), TextColumn("", right=True), TextColumn("", rank=1)], _figures(found), width
    )
    rows = [
        (
            f"{limit.what.upper()} {limit.percentile}", units.seconds(limit.most_s),
            units.seconds(limit.actual_s), "met" if limit.met else "missed",
        )
        for limit in found.limits
    ]  # fmt: skip
    columns = [
        TextColumn("SLA"),
        TextColumn("most", right=True),
        TextColumn("is", right=True),
        TextColumn(""),
    ]
    lines += ["", *render(columns, rows, width), "", "Rests on"]
    for said in found.assumptions:
        lines += output.wrapped(said, width, " ")
    return lines


def _figures(found: AgentsResult) -> list[tuple[str, ...]]:
    cards = found.cards
    most = found.sustained_teams
    return [
        (
            "Sustained",
            f"{most.value:,.0f}",
            f"{most.low:,.0f} – {most.high:,.0f} within every term of the SLA",
        ),
        ("Calls under way", f"{found.in_flight:.0f}", f"alone, a task takes {units.seconds(found.alone_s)}"),
        (
            "A task",
            f"{found.calls_per_task} calls",
            f"{found.prompt_tokens_per_task:,} tokens read, {found.output_tokens_per_task:,} written",
        ),
        (
            "Found in the cache",
            units.percent(found.cached_fraction),
            f"of tokens read; a cache without end: {units.percent(found.shared_fraction)}",
        ),
        ("Tasks an hour", _range(found.tasks_per_hour, ",.0f"), f"{cards} cards"),
        (
            "Cost of a task",
            _range(found.cost_per_task, ".4f"),
            f"at {found.card_hour_price:g} a card hour (assumed)",
        ),
        ("Preemptions", f"{found.preemptions:,}", ""),
    ]


def _range(value: Estimate, form: str) -> str:
    return f"{value.value:{form}} ({value.low:{form}} – {value.high:{form}})"


def as_json(found: AgentsResult) -> dict[str, object]:
    """The object of ``--json``."""
    plain = {
        name: getattr(found, name)
        for name in (
            "model", "chip", "chip_title", "cards", "layout", "scenario", "graph_source", "teams", "alone_s",
            "in_flight", "calls_per_task", "prompt_tokens_per_task", "output_tokens_per_task",
            "cached_fraction", "shared_fraction", "card_hour_price", "preemptions",
        )
    }  # fmt: skip
    spreads = {name: getattr(found, name).to_dict() for name in ("task_s", "ttft_s", "tpot_s")}
    estimates = {
        name: getattr(found, name).to_dict()
        for name in ("sustained_teams", "tasks_per_hour", "cost_per_task")
    }
    sla = [
        {
            "what": limit.what, "percentile": limit.percentile, "most_s": limit.most_s,
            "actual_s": limit.actual_s, "met": limit.met,
        }
        for limit in found.limits
    ]  # fmt: skip
    status = "ok" if found.meets_sla else "no"
    loads = [
        {
            "teams": load.teams, "task_s": load.task_s.to_dict(), "ttft_s": load.ttft_s.to_dict(),
            "tpot_s": load.tpot_s.to_dict(), "tasks_per_hour": load.tasks_per_hour, "met": load.met,
        }
        for load in found.loads
    ]  # fmt: skip
    return {
        "schema": output.schema("serve.agents"), "status": status, **plain, **spreads, **estimates,
        "sla": sla, "loads": loads, "assumptions": list(found.assumptions),
    }  # fmt: skip
