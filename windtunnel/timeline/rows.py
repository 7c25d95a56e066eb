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
    members = _group(program, prices, counts)
    rows = [_row(program, prices, sites, counts, chip) for sites in members]
    order = sorted(
        range(len(rows)), key=lambda i: (-rows[i].seconds, rows[i].name, rows[i].module, rows[i].line)
    )
    row_of_site = np.full(len(program.sites), -1, dtype=np.int64)
    for place, index in enumerate(order):
        row_of_site[members[index]] = place
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


def _group(program: Program, prices: Sequence[OpPrice], counts: npt.NDArray[np.int64]) -> list[list[int]]:
    patterns: dict[str, int] = {}
    scope_group = [patterns.setdefault(module_pattern(scope), len(patterns)) for scope in program.scopes]
    kinds: dict[tuple[str, str, str], int] = {}
    spec_group = [
        kinds.setdefault((spec.name, shapes_text(spec), work.precision), len(kinds))
        if price.act is not Act.HOST
        and (price.act <= Act.HOST or price.seconds or price.act is Act.COLLECTIVE)
        else -1
        for spec, work, price in zip(program.specs, program.works, prices)
    ]
    sites = program.sites
    keys = np.stack(
        [
            np.array(spec_group, np.int64)[sites[:, 0]],
            sites[:, 1],
            np.array(scope_group, np.int64)[sites[:, 2]],
            sites[:, 3],
            sites[:, 4],
        ],
        axis=1,
    )
    used = np.flatnonzero((counts > 0) & (keys[:, 0] >= 0))
    if not len(used):
        return []
    _, inverse = np.unique(keys[used], axis=0, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    cuts = np.flatnonzero(np.diff(inverse[order])) + 1
    return [part.tolist() for part in np.split(used[order], cuts)]


def _row(
    program: Program,
    prices: Sequence[OpPrice],
    sites: list[int],
    counts: npt.NDArray[np.int64],
    chip: Chip,
) -> OpRow:
    number, stream, scope, line, phase = (int(value) for value in program.sites[sites[0]])
    spec, work, price = program.specs[number], program.works[number], prices[number]
    ran = counts[sites]
    numbers = program.sites[sites, 0].tolist()
    times = int(ran.sum())

    def summed(values: Sequence[float]) -> float:
        return float(np.dot(ran, np.array(values)))

    return OpRow(
        name=spec.name,
        family=str(work.family),
        phase=Phase(phase).name.lower(),
        module=module_pattern(program.scopes[scope]),
        line=str(program.lines[line]),
        stream=program.streams[stream],
        shapes=shapes_text(spec),
        count=times,
        seconds=summed([prices[n].seconds for n in numbers]),
        low_s=summed([prices[n].low_s for n in numbers]),
        high_s=summed([prices[n].high_s for n in numbers]),
        flops=summed([program.works[n].flops for n in numbers]),
        bytes_moved=summed([program.works[n].bytes_moved for n in numbers]),
        precision=work.precision,
        limit=_LIMIT_WORDS.get(price.limit, price.limit),
        source=price.source if price.seconds else Source.ANALYTIC,
        formula=formula_text(work, price),
        peak_fraction=_fraction(work.flops, price.seconds, peak_flops(chip, work.precision)),
        bandwidth_fraction=_fraction(work.bytes_moved, price.seconds, chip.memory_bytes_per_s.value),
    )


def formula_text(work: Work, price: OpPrice) -> str:
    """One such kernel in numbers, then how its time is found."""
    amounts = [units.decimal(work.bytes_moved, "B")]
    if work.flops:
        amounts.insert(0, units.decimal(work.flops, "FLOP"))
    numbers = f"{', '.join(amounts)} → {units.seconds(price.seconds)}"
    return f"{numbers}: {price.formula}" if price.formula else numbers


def peak_flops(chip: Chip, precision: str) -> float:
    """The dense peak that products of ``precision`` run against; 0 where the chip has none."""
    name = "tf32" if precision == "fp32" and chip.tf32_default and "tf32" in chip.peak_flops else precision
    quantity = chip.peak_flops.get(name)
    return quantity.value if quantity else 0.0


def _fraction(amount: float, seconds: float, rate: float) -> float:
    return amount / seconds / rate if seconds > 0 and rate > 0 else 0.0
