"""Call graphs: which calls one task of a team makes, what each waits for, how long it is and what it shares.

Recorded from live runs of real frameworks (``windtunnel serve --record``). Prompts are known by chained block keys;
a graph keeps for each call which earlier call shares most of them, and how many blocks are the same in other teams'
tasks (system prompts, tool descriptions). With that, any number of teams can be replayed with the sharing they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from windtunnel.errors import WindtunnelError
from windtunnel.specs.table import did_you_mean

RECORDED = Path(__file__).parent / "graphs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the model.

    Attributes:
        after: places of the calls that must be answered before. gap_s: from the last of these to this call, as
            recorded: the framework's time and, where ``tool``, that of the tools that were called.
        blocks: keys of the prompt, numbered within the graph; equal leading ones are shared prefixes.
        common: how many leading blocks are the same in every team's task.
    """

    agent: str
    kind: str
    after: tuple[int, ...]
    gap_s: float
    tool: bool
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...]
    common: int


@dataclass(frozen=True, slots=True)
class CallGraph:
    """One task of one team. ``source`` says which framework made it and when."""

    name: str
    source: str
    block_tokens: int
    calls: tuple[Call, ...]

    @property
    def prompt_tokens(self) -> int:
        """Tokens that all calls read."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def output_tokens(self) -> int:
        """Tokens that all calls write."""
        return sum(call.output_tokens for call in self.calls)

    @property
    def shared_fraction(self) -> float:
        """Of prompt tokens: those whose blocks an earlier call of the task, or every other task, has read."""
        seen: set[int] = set()
        shared = 0
        for call in self.calls:
            known = sum(block in seen or place < call.common for place, block in enumerate(call.blocks))
            shared += min(call.prompt_tokens, known * self.block_tokens)
            seen.update(call.blocks)
        return shared / self.prompt_tokens


class StoredCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it is kept: ``shares``: the earlier call with most leading blocks in common, and how many."""

    agent: str
    kind: str
    after: tuple[int, ...]
    gap_s: float
    tool: bool
    prompt: int
    output: int
    blocks: int
    shares: tuple[int, int]
    common: int


class StoredGraph(msgspec.Struct, frozen=True, kw_only=True):
    """A graph as it is kept."""

    name: str
    source: str
    block_tokens: int
    calls: tuple[StoredCall, ...]

    def graph(self) -> CallGraph:
        """The graph with its blocks numbered."""
        calls: list[Call] = []
        number = 0
        for kept in self.calls:
            best, count = kept.shares
            fresh = kept.blocks - count
            shared = calls[best].blocks[:count] if count else ()
            calls.append(
                Call(
                    agent=kept.agent, kind=kept.kind, after=kept.after, gap_s=kept.gap_s, tool=kept.tool,
                    prompt_tokens=kept.prompt, output_tokens=kept.output,
                    blocks=(*shared, *range(number, number + fresh)), common=kept.common,
                )
            )  # fmt: skip
            number += fresh
        return CallGraph(self.name, self.source, self.block_tokens, tuple(calls))


def stored(graph: CallGraph) -> StoredGraph:
    """The form in which a graph is kept."""
    calls = []
    for place, call in enumerate(graph.calls):
        shares = [_leading(call.blocks, other.blocks) for other in graph.calls[:place]]
        best = max(range(place), key=lambda index: shares[index]) if shares else 0
        calls.append(
            StoredCall(
                agent=call.agent, kind=call.kind, after=call.after, gap_s=call.gap_s, tool=call.tool,
                prompt=call.prompt_tokens, output=call.output_tokens, blocks=len(call.blocks),
                shares=(best, shares[best] if shares else 0), common=call.common,
            )
        )  # fmt: skip
    return StoredGraph(
        name=graph.name, source=graph.source, block_tokens=graph.block_tokens, calls=tuple(calls)
    )


@cache
def graphs() -> dict[str, CallGraph]:
    """The graphs that ship with the package, by name (``autogen:swarm``)."""
    kept = msgspec.json.decode(RECORDED.read_bytes(), type=list[StoredGraph])
    return {one.name: one.graph() for one in kept}


def graph_called(name: str) -> CallGraph:
    """The shipped graph of that name. Raises E664."""
    found = graphs().get(name.strip().lower())
    if found is None:
        raise WindtunnelError(
            "E664",
            f"no recorded team is called `{name}`",
            hint=f"{did_you_mean(name, sorted(graphs()))}recorded: {', '.join(sorted(graphs()))}; or a file that "
            "serve --record wrote",
        )
    return found


def _leading(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
