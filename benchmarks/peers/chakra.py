"""A step of a recipe as execution traces for ASTRA-sim: one file for every rank, in Chakra's wire format.

Chakra's schema is a protocol-buffer message for each node, with its length in front. ASTRA-sim takes compute times as
given, so they are ours; collectives and messages it prices itself. Everything of a rank is one chain, as Megatron-LM's
1F1B without overlap runs; sending does not hold up what follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windtunnel.network.collective import Collective, kind_of, message_bytes
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.program import Program
from windtunnel.recipes.chunk import Direction, Part
from windtunnel.recipes.groups import DATA, SHARD, TENSOR
from windtunnel.recipes.training import TrainingRecipe
from windtunnel.timeline.schedule import Chunk, ChunkKind, Schedule, order

COMPUTE, SEND, RECV, COLLECTIVE = 4, 5, 6, 7
"""Values of Chakra's ``NodeType``."""
KINDS = {Collective.ALL_REDUCE: 0, Collective.ALL_GATHER: 2, Collective.REDUCE_SCATTER: 7}
"""Values of Chakra's ``CollectiveCommType``."""
SMALLEST_BYTES = 4096
"""Smaller collectives (gradient norm) are left out."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Compute for some seconds, or one collective of a group (by its index in the recipe's groups)."""

    seconds: float = 0.0
    kind: Collective | None = None
    nbytes: int = 0
    group: int = 0


def varint(value: int) -> bytes:
    """An unsigned integer in protocol buffers' base-128 form."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """An integer field."""
    return varint(field << 3) + varint(value)


def block(field: int, value: bytes) -> bytes:
    """A string or message field."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def attribute(name: str, value: int | str, unsigned_32: bool = False) -> bytes:
    """A node's attribute."""
    if isinstance(value, str):
        said = block(29, value.encode())
    else:
        said = number(11 if unsigned_32 else 13, value)
    return block(10, block(1, name.encode()) + said)


def pieces(program: Program, predictor: TrainingPredictor, recipe: TrainingRecipe) -> list[Piece]:
    """A program of the recipe as compute and collectives in turns."""
    seconds = predictor.device_seconds(program, recipe.layout)
    found: list[Piece] = []
    busy = 0.0
    for site in program.events[program.events >= 0].tolist():
        spec_number = int(program.sites[site, 0])
        spec = program.specs[spec_number]
        if not spec.name.startswith(COLLECTIVE_PREFIX):
            busy += float(seconds[spec_number])
            continue
        nbytes, group = message_bytes(spec), spec.attribute("group", 0)
        assert isinstance(group, int)
        if nbytes < SMALLEST_BYTES:
            continue
        found.append(Piece(busy))
        found.append(Piece(0.0, kind_of(spec.name), nbytes, group))
        busy = 0.0
    return [*found, Piece(busy)]


class RankTrace:
    """The trace of one rank while it is written."""

    def __init__(self, rank: int, recipe: TrainingRecipe) -> None:
        self.layout = recipe.layout
        self.rank, self.stage = rank, rank // recipe.layout.stage_ranks
        self.parts = [block(1, b"0.0.4")]
        self._next, self._last = 0, -1
        self._owed_s = 0.0  # durations are whole microseconds

    def node(self, kind: int, body: bytes, chained: bool = True) -> None:
        """Add a node behind the last one; the next waits for it if ``chained``."""
        before = block(5, varint(self._last)) if self._last >= 0 else b""
        self.parts.append(number(1, self._next) + number(3, kind) + before + body)
        if chained:
            self._last = self._next
        self._next += 1

    def compute(self, seconds: float) -> None:
        """Compute for some time."""
        self._owed_s += seconds
        microseconds = int(self._owed_s * 1e6)
        if microseconds > 0:
            self._owed_s -= microseconds / 1e6
            self.node(COMPUTE, number(7, microseconds))

    def group(self, index: int) -> tuple[int, list[int]]:
        """Name and ranks of one of this rank's groups."""
        layout = self.layout
        lane = self.rank % layout.tensor
        base = self.stage * layout.stage_ranks
        if index == TENSOR:
            first = self.rank - lane
            return 1 + self.rank // layout.tensor, list(range(first, first + layout.tensor))
        if index in (DATA, SHARD):
            name = 1 + layout.cards // layout.tensor + self.stage * layout.tensor + lane
            return name, list(range(base + lane, base + layout.stage_ranks, layout.tensor))
        raise ValueError(f"no trace for group {index} of the recipe")

    def run(self, found: list[Piece]) -> None:
        """What a program does."""
        for piece in found:
            if piece.kind is None:
                self.compute(piece.seconds)
                continue
            name, ranks = self.group(piece.group)
            if len(ranks) == 1:
                continue
            # of an all-gather it counts what one rank brings
            nbytes = piece.nbytes // len(ranks) if piece.kind is Collective.ALL_GATHER else piece.nbytes
            body = attribute("comm_type", KINDS[piece.kind]) + attribute("comm_size", nbytes)
            self.node(COLLECTIVE, body + attribute("pg_name", str(name)))

    def message(self, way: int, stage: int, tag: int, nbytes: int) -> None:
        """Send to or receive from the same rank of another stage."""
        other = self.rank + (stage - self.stage) * self.layout.stage_ranks
        source, target = (self.rank, other) if way == SEND else (other, self.rank)
        body = b"".join(
            attribute(name, value, unsigned_32=True)
            for name, value in (("comm_src", source), ("comm_dst", target), ("comm_tag", tag))
        )
        self.node(way, body + attribute("comm_size", nbytes), chained=way == RECV)

    def bytes(self) -> bytes:
        """The file."""
        return b"".join(varint(len(part)) + part for part in self.parts)


def write(recipe: TrainingRecipe, predictor: TrainingPredictor, folder: Path) -> dict[int, list[int]]:
    """Write ``step.RANK.et`` for every rank; the answer is the ranks of every group by name."""
    layout = recipe.layout
    plan = order(Schedule.ONE_F_ONE_B, layout.pipeline, layout.micro_batches)
    known: dict[int, list[Piece]] = {}

    def of(program: Program) -> list[Piece]:
        if id(program) not in known:
            known[id(program)] = pieces(program, predictor, recipe)
        return known[id(program)]

    groups: dict[int, list[int]] = {}
    for rank in range(layout.cards):
        trace = RankTrace(rank, recipe)
        trace.run(of(recipe.exchange(trace.stage, Direction.PARAMETERS)))
        for chunk in plan.stages[trace.stage]:
            for stage, tag, way in _messages(chunk, trace.stage, layout.pipeline):
                if way == RECV:
                    trace.message(RECV, stage, tag, recipe.boundary.nbytes)
            trace.run(of(recipe.program(trace.stage, Part(str(chunk.kind)), chunk.micro_batch)))
            for stage, tag, way in _messages(chunk, trace.stage, layout.pipeline):
                if way == SEND:
                    trace.message(SEND, stage, tag, recipe.boundary.nbytes)
        trace.run(of(recipe.exchange(trace.stage, Direction.GRADIENTS)))
        trace.run(of(recipe.optimizer(trace.stage)))
        (folder / f"step.{rank}.et").write_bytes(trace.bytes())
        groups.update(trace.group(index) for index in (TENSOR, DATA))
    return groups


def _messages(chunk: Chunk, stage: int, stages: int) -> Iterator[tuple[int, int, int]]:
    """Stage, tag and way of what a chunk receives and sends: activations have even tags, gradients odd ones."""
    forward = chunk.kind is ChunkKind.FORWARD
    tag = 2 * chunk.micro_batch + (0 if forward else 1)
    before, after = (stage - 1, stage + 1) if forward else (stage + 1, stage - 1)
    if 0 <= before < stages:
        yield before, tag, RECV
    if 0 <= after < stages:
        yield after, tag, SEND
