"""Small rank programs written by hand: matrix products, collectives and marks in a given order."""

from __future__ import annotations

import numpy as np

from windtunnel.program.count import work_of
from windtunnel.program.op import Attribute, OpSpec, TensorSpec
from windtunnel.program.program import (
    Origin,
    Phase,
    ProcessGroup,
    Program,
    SourceLine,
    StepKind,
    StepMark,
)


def mm(size: int = 4096) -> OpSpec:
    square = TensorSpec("bfloat16", (size, size))
    return OpSpec("aten.mm.default", (square, square), (square,))


def collective(name: str, group: int = 0, numel: int = 1 << 24, **attributes: Attribute) -> OpSpec:
    tensor = TensorSpec("bfloat16", (numel,))
    named = {"group": group, "async_op": False, **attributes}
    return OpSpec(f"c10d.{name}", (tensor,), (tensor,), tuple(named.items()))


def wait(work: int) -> OpSpec:
    return OpSpec("windtunnel.wait_collective", attributes=(("work", work),))


def program(
    ops: list[OpSpec],
    *,
    rank: int = 0,
    world: int = 2,
    groups: list[ProcessGroup] | None = None,
    kind: StepKind = StepKind.SCRIPT,
) -> Program:
    """One site per operation, on stream 0, each with a line of its own: ``train.py:1`` and so on."""
    sites = np.array([(i, 0, 0, i, int(Phase.FORWARD)) for i in range(len(ops))], dtype=np.int64)
    return Program(
        origin=Origin(script="train.py", world_size=world, rank=rank),
        specs=ops,
        works=[work_of(op) for op in ops],
        sites=sites.reshape(-1, 5),
        events=np.arange(len(ops), dtype=np.int64),
        storage_bytes=np.zeros(0, dtype=np.int64),
        storage_category=np.zeros(0, dtype=np.int64),
        scopes=[""],
        lines=[SourceLine("train.py", i + 1) for i in range(len(ops))],
        groups=groups if groups is not None else [ProcessGroup(tuple(range(world)), "nccl", "world")],
        steps=[StepMark(kind, 0, len(ops))],
    )
