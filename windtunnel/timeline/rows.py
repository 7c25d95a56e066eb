"""The operator table of a step: operations of one kind at one place, summed.

Places of repeated layers are one place: the numbers in module paths are replaced by ``*``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel import units
from windtunnel.estimate import Source
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Phase, Program
from windtunnel.program.work import Work
from windtunnel.results.run_result import OpRow
from windtunnel.specs.schema import Chip
from windtunnel.timeline.prices import Act, OpPrice
from windtunnel.timeline.provenance import peak_flops

_LAYER_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_SHAPES_SHOWN = 4
_LIMIT_WORDS = {"cache": "l2"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, longest first, and the row of each site (-1: nothing on the device)."""

    rows: tuple[OpRow, ...]
    row_of_site: npt.NDArray[np.int64]


def op_table(program: Program, prices: Sequence[OpPrice], counts: npt.NDArray[np.int64], chip: Chip) -> Table:
    """The table of a step in which site ``i`` ran ``counts[i]`` times."""
    used, group = _groups(program, prices, counts)
    row_of_site = np.full(len(program.sites), -1, dtype=np.int64)
    if not len(used):
        return Table((), row_of_site)
    sums = _sums(program, prices, counts, used, group)
    first = np.full(len(sums.count), -1, dtype=np.int64)
    first[group[::-1]] = used[::-1]  # the site that stands for each group: its first
    rows = [_row(program, prices, site, sums, number, chip) for number, site in enumerate(first.tolist())]
    order = sorted(
        range(len(rows)), key=lambda i: (-rows[i].seconds, rows[i].name, rows[i].module, rows[i].line)
    )
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    row_of_site[used] = place[group]
    return Table(tuple(rows[index] for index in order), row_of_site)


def module_pattern(scope: str) -> str:
    """``layers.17.mlp`` → ``layers.*.mlp``."""
    return _LAYER_NUMBER.sub("*", scope)


def shapes_text(spec: OpSpec) -> str:
    """Shapes of the first tensors: ``4096×7168 · 7168×2048``."""
    tensors = spec.inputs or spec.outputs
    shown = " · ".join(_shape(tensor) for tensor in tensors[:_SHAPES_SHOWN])
    return shown if len(tensors) <= _SHAPES_SHOWN else f"{shown} · … {len(tensors):,} tensors"


def _shape(tensor: TensorSpec) -> str:
    return "×".join(str(size) for size in tensor.shape) if tensor.shape else "scalar"


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the sites of each group."""

    count: list[float]
    seconds: list[float]
    low_s: list[float]
    high_s: list[float]
    flops: list[float]
    bytes_moved: list[float]


def _groups(
    program: Program, prices: Sequence[OpPrice], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sites of the step that work on the device, and the group of each."""
    patterns: dict[str, int] = {}
    scope_group = [patterns.setdefault(module_pattern(scope), len(patterns)) for scope in program.scopes]
    kinds: dict[tuple[str, str, str], int] = {}
    spec_group = [
        kinds.setdefault((spec.name, shapes_text(spec), work.precision), len(kinds))
        if price.act <= Act.SMALL_KERNEL or price.act is Act.COLLECTIVE or price.seconds
        else -1
        for spec, work, price in zip(program.specs, program.works, prices)
    ]
    sites = program.sites
    kind = np.array(spec_group, np.int64)[sites[:, 0]]
    used = np.flatnonzero((counts > 0) & (kind >= 0))
    key = kind[used]
    columns = (sites[:, 1], np.array(scope_group, np.int64)[sites[:, 2]], sites[:, 3], sites[:, 4])
    for column in columns:  # one number for each group, built column by column
        key = np.unique(key * (int(column.max(initial=0)) + 1) + column[used], return_inverse=True)[1]
    return used, key


def _sums(
    program: Program,
    prices: Sequence[OpPrice],
    counts: npt.NDArray[np.int64],
    used: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
) -> _Sums:
    spec = program.sites[used, 0]
    ran = counts[used].astype(np.float64)

    def by_group(values: list[float]) -> list[float]:
        summed: list[float] = np.bincount(group, weights=ran * np.array(values)[spec]).tolist()
        return summed

    return _Sums(
        count=np.bincount(group, weights=ran).tolist(),
        seconds=by_group([price.seconds for price in prices]),
        low_s=by_group([price.low_s for price in prices]),
        high_s=by_group([price.high_s for price in prices]),
        flops=by_group([work.flops for work in program.works]),
        bytes_moved=by_group([work.bytes_moved for work in program.works]),
    )


def _row(
    program: Program, prices: Sequence[OpPrice], site: int, sums: _Sums, number: int, chip: Chip
) -> OpRow:
    spec_number, stream, scope, line, phase = (int(value) for value in program.sites[site])
    spec, work, price = program.specs[spec_number], program.works[spec_number], prices[spec_number]
    return OpRow(
        name=spec.name,
        family=str(work.family),
        phase=Phase(phase).name.lower(),
        module=module_pattern(program.scopes[scope]),
        line=str(program.lines[line]),
        stream=program.streams[stream],
        shapes=shapes_text(spec),
        count=int(sums.count[number]),
        seconds=sums.seconds[number],
        low_s=sums.low_s[number],
        high_s=sums.high_s[number],
        flops=sums.flops[number],
        bytes_moved=sums.bytes_moved[number],
        precision=work.precision,
        limit=_LIMIT_WORDS.get(price.limit, price.limit),
        source=price.source if price.seconds else Source.ANALYTIC,
        formula=formula_text(work, price),
        peak_fraction=_fraction(work.flops, price.seconds, peak_flops(program, chip, work.precision)),
        bandwidth_fraction=_fraction(work.bytes_moved, price.seconds, chip.memory_bytes_per_s.value),
    )


def formula_text(work: Work, price: OpPrice) -> str:
    """One such kernel in numbers, then how its time is found."""
    amounts = [units.decimal(work.bytes_moved, "B")]
    if work.flops:
        amounts.insert(0, units.decimal(work.flops, "FLOP"))
    numbers = f"{', '.join(amounts)} → {units.seconds(price.seconds)}"
    return f"{numbers}: {price.formula}" if price.formula else numbers


def _fraction(amount: float, seconds: float, rate: float) -> float:
    return amount / seconds / rate if seconds > 0 and rate > 0 else 0.0
