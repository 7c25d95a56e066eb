"""From what ``serve --record`` wrote to call graphs: what waited for what is read off times and agents.

A call waits for all calls that had ended when it began and that nothing later waited for. Where its agent's own last
call was a tool call, only for what came after that one: agents that work side by side do not wait for each other.
Two tasks of the same team tell which blocks every task has.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.agents.graph import Call, CallGraph

BLOCK_TOKENS = 16
SLACK_S = 0.001
"""Calls that end less than this after another begins still count as before it: clocks of two processes."""
UNNAMED = "team"
"""Calls whose client did not say what they belong to."""
HAND_OFFS = ("transfer_to_", "handoff_to_")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a recording."""

    task: str
    agent: str
    began_s: float
    ended_s: float
    kind: str
    calls: tuple[str, ...]
    prompt_tokens: int
    output_tokens: int
    keys: tuple[int, ...]

    @property
    def uses_tool(self) -> bool:
        """Whether a tool runs after it (passing the task on is none)."""
        return any(not name.startswith(HAND_OFFS) for name in self.calls)


def read(path: Path, source: str) -> list[CallGraph]:
    """One graph for each team's first task in a recording. Raises E665 where nothing can be read."""
    rows, bad = [], 0
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise _unreadable(path, str(error)) from None
    for line in filter(None, lines):
        try:
            rows.append(msgspec.json.decode(line, type=Row))
        except (msgspec.DecodeError, msgspec.ValidationError, json.JSONDecodeError):
            bad += 1
    if not rows:
        raise _unreadable(path, f"none of its {bad} lines is a recorded call")
    teams: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        teams[row.task.rpartition(":")[0] or row.task][row.task].append(row)
    return [_graph(name, list(tasks.values()), source) for name, tasks in teams.items()]


def _unreadable(path: Path, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E665",
        f"cannot read the recorded calls {path}: {why}",
        hint="record them: windtunnel serve MODEL --port 8000 --record calls.jsonl, and run your agents",
        values={"file": str(path)},
    )


@dataclass(slots=True)
class _Placed:
    row: Row
    after: tuple[int, ...]
    ancestors: set[int]


def _graph(name: str, tasks: Sequence[list[Row]], source: str) -> CallGraph:
    rows = sorted(tasks[0], key=lambda row: (row.began_s, row.ended_s))
    elsewhere = {key for other in tasks[1:] for row in other for key in row.keys}
    placed: list[_Placed] = []
    for row in rows:
        after = _waits_for(row, placed)
        ancestors = set(after).union(*(placed[index].ancestors for index in after))
        placed.append(_Placed(row, after, ancestors))
    numbers: dict[int, int] = {}
    calls = tuple(_call(one, placed, numbers, elsewhere) for one in placed)
    return CallGraph(name or UNNAMED, source, BLOCK_TOKENS, calls)


def _waits_for(row: Row, placed: Sequence[_Placed]) -> tuple[int, ...]:
    ended = [index for index, one in enumerate(placed) if one.row.ended_s <= row.began_s + SLACK_S]
    own = [index for index in ended if placed[index].row.agent == row.agent]
    if own and placed[own[-1]].row.uses_tool:
        ended = [index for index in ended if index == own[-1] or own[-1] in placed[index].ancestors]
    before = set().union(*(placed[index].ancestors for index in ended)) if ended else set()
    return tuple(index for index in ended if index not in before)


def _call(one: _Placed, placed: Sequence[_Placed], numbers: dict[int, int], elsewhere: set[int]) -> Call:
    row = one.row
    ended = max((placed[index].row.ended_s for index in one.after), default=row.began_s)
    return Call(
        agent=row.agent,
        kind=row.kind,
        after=one.after,
        gap_s=round(max(0.0, row.began_s - ended), 4),
        tool=any(placed[index].row.uses_tool for index in one.after),
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        blocks=tuple(numbers.setdefault(key, len(numbers)) for key in row.keys),
        common=_leading_in(row.keys, elsewhere),
    )


def _leading_in(keys: Iterable[int], known: set[int]) -> int:
    count = 0
    for key in keys:
        if key not in known:
            break
        count += 1
    return count
