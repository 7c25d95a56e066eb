"""Operations added up by kind, module, source line or step part, for tables. Sums only: no new numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from windtunnel.program.work import Family
from windtunnel.results.run_result import OpRow

KIND_NAMES: dict[str, str] = {
    Family.GEMM: "matmul",
    Family.GROUPED_GEMM: "grouped matmul",
    Family.ATTENTION: "attention",
    Family.ATTENTION_BACKWARD: "attention, backward",
    Family.DECODE_ATTENTION: "attention, decode",
    Family.DELTANET: "gated delta net",
    Family.HOST_COPY: "host copy",
    Family.LINALG: "linear algebra",
    Family.COLLECTIVE: "communication",
    Family.FFT: "FFT",
    Family.UNKNOWN: "no cost model",
    Family.VIEW: "view",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that share a name: their sums, and what limits most of their time."""

    name: str
    count: int
    seconds: float
    low_s: float
    high_s: float
    flops: float
    bytes_moved: float
    limit: str
    peak_fraction: float  # means weighted by time
    bandwidth_fraction: float
    rows: tuple[OpRow, ...]


def kind(row: OpRow) -> str:
    """What people call the family of an operation."""
    return KIND_NAMES.get(row.family, row.family.replace("_", " "))


def op_name(row: OpRow) -> str:
    """The name without the overload that nearly all operations have: ``aten.mm.default`` → ``aten.mm``."""
    return row.name.removesuffix(".default")


def part(row: OpRow) -> str:
    """The key of the step part that an operation belongs to."""
    if row.family == Family.COLLECTIVE:
        return "exposed_comm_s"
    if row.family in (Family.HOST_COPY, Family.HOST):
        return "io_s"
    return "optimizer_s" if row.phase == "optimizer" else "compute_s"


def generic_module(path: str) -> str:
    """``model.layers.17.mlp`` → ``model.layers.*.mlp``: equal layers add up."""
    return ".".join("*" if piece.isdigit() else piece for piece in path.split("."))


def grouped(rows: Iterable[OpRow], name: Callable[[OpRow], str]) -> list[Group]:
    """Rows added up by ``name``, most time first; ties in alphabetical order."""
    members: dict[str, list[OpRow]] = {}
    for row in rows:
        members.setdefault(name(row), []).append(row)
    groups = [_group(key, tuple(value)) for key, value in members.items()]
    return sorted(groups, key=lambda group: (-group.seconds, group.name))


def _group(name: str, rows: tuple[OpRow, ...]) -> Group:
    seconds = sum(row.seconds for row in rows)
    by_limit: dict[str, float] = {}
    for row in rows:
        by_limit[row.limit] = by_limit.get(row.limit, 0.0) + row.seconds
    limit = max(by_limit, key=lambda key: by_limit[key])
    limited = [row for row in rows if row.limit == limit]
    return Group(
        name=name,
        count=sum(row.count for row in rows),
        seconds=seconds,
        low_s=sum(row.low_s for row in rows),
        high_s=sum(row.high_s for row in rows),
        flops=sum(row.flops for row in rows),
        bytes_moved=sum(row.bytes_moved for row in rows),
        limit=limit,
        peak_fraction=_mean(limited, lambda row: row.peak_fraction),
        bandwidth_fraction=_mean(limited, lambda row: row.bandwidth_fraction),
        rows=rows,
    )


def _mean(rows: list[OpRow], value: Callable[[OpRow], float]) -> float:
    whole = sum(row.seconds for row in rows)
    return sum(value(row) * row.seconds for row in rows) / whole if whole > 0 else 0.0
