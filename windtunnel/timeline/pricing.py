"""A program priced on a chip: one price for each distinct operation, a site table, and what-if variants."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from windtunnel.cost.model import CostModel, Settings
from windtunnel.estimate import Estimate, Source, normalised_shares, total
from windtunnel.program.program import Program, StepKind
from windtunnel.program.work import Work
from windtunnel.results.run_result import Sensitivity
from windtunnel.specs.schema import Chip, Quantity
from windtunnel.timeline.prices import CollectiveTime, OpPrice, PriceModel, price_ops
from windtunnel.timeline.provenance import allows_tf32
from windtunnel.timeline.sites import SiteTable
from windtunnel.timeline.step import step_seconds
from windtunnel.timeline.sustained import runs_for_long, sustained

ModelFor = Callable[[Chip], PriceModel]

# Eager PyTorch is known to take 5 to 10 µs an operation on server processors (``cost/host.py``): the middle,
# times and divided by the root of two.
HOST_FACTOR = math.sqrt(2.0)

REPRICED = 0.999  # part of the device time that what-ifs price again


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices of a program's operations, by spec number, and the table that a card replays.

    ``is_long``: at the clock that the power limit leaves in long runs, collectives until the last rank has come.
    """

    prices: list[OpPrice]
    table: SiteTable
    graph_launch_s: float
    is_long: bool


def default_model(chip: Chip) -> PriceModel:
    """The project's own cost model."""
    return CostModel(chip)


def for_program(program: Program, model_for: ModelFor) -> ModelFor:
    """The default model with what the script set: whether FP32 products may run in TF32."""
    if model_for is not default_model:
        return model_for
    return lambda chip: CostModel(chip, Settings(allow_tf32=allows_tf32(program, chip)))


def price_program(
    program: Program,
    chip: Chip,
    model_for: ModelFor,
    collective_time: CollectiveTime | None,
    kind: StepKind,
) -> Priced:
    """Price every distinct operation on ``chip`` for a step of ``kind``. Raises what ``price_ops`` raises."""
    model = for_program(program, model_for)(chip)
    prices = price_ops(program.specs, program.works, model, program.groups, collective_time)
    if runs_for_long(kind):
        prices = _over_hours(prices, program.works, program, chip)
    hosts = np.array([price.host_s for price in prices])
    devices = np.array([price.seconds for price in prices])
    table = SiteTable.of_sites(prices, program.sites, hosts, devices)
    return Priced(prices, table, chip.graph_launch_s.value, runs_for_long(kind))


def _over_hours(prices: list[OpPrice], works: Sequence[Work], program: Program, chip: Chip) -> list[OpPrice]:
    """At the clock that the power limit leaves, among ranks that do not all come at once."""
    constants = sustained()
    return constants.with_waits(constants.prices(prices, works, chip), program.groups)


def step_estimate(
    priced: Priced,
    program: Program,
    sites: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    kind: StepKind,
    seconds: float,
    host_gap_s: float,
) -> Estimate:
    """The step's length with its 80 % interval and what it rests on.

    Device times move to their low and high ends, less what correlation takes off their sum
    (``estimate.total``), host times by ``HOST_FACTOR``; the step is replayed at both ends, so that overlap
    and waiting count.
    """
    uses = np.bincount(program.sites[:, 0], weights=counts, minlength=len(priced.prices))
    parts = [
        Estimate(price.seconds, price.low_s, price.high_s, ((price.source, 1.0),)).scaled(float(times))
        for price, times in zip(priced.prices, uses.tolist())
        if times and price.seconds
    ]
    device = total(parts)
    lower = _shrink(device.value - device.low, (part.value - part.low for part in parts))
    upper = _shrink(device.high - device.value, (part.high - part.value for part in parts))
    middle = np.array([price.seconds for price in priced.prices])
    low = middle - lower * (middle - np.array([price.low_s for price in priced.prices]))
    high = middle + upper * (np.array([price.high_s for price in priced.prices]) - middle)
    specs = program.sites[:, 0]
    hosts = priced.table.floats[0]
    low_s = step_seconds(
        priced.table.with_times(hosts / HOST_FACTOR, low[specs]), sites, kind, priced.graph_launch_s
    )
    high_s = step_seconds(
        priced.table.with_times(hosts * HOST_FACTOR, high[specs]), sites, kind, priced.graph_launch_s
    )
    return Estimate(seconds, min(low_s, seconds), max(high_s, seconds), _shares(device, seconds, host_gap_s))


def _shrink(combined: float, widths: Iterable[float]) -> float:
    whole = math.fsum(widths)
    return combined / whole if whole > 0 else 0.0


def _shares(device: Estimate, seconds: float, host_gap_s: float) -> tuple[tuple[Source, float], ...]:
    """Time on the device rests on its prices, waiting for the host on the assumed dispatch time."""
    if seconds <= 0:
        return device.shares
    waiting = min(1.0, host_gap_s / seconds)
    weights = {source: share * (1 - waiting) for source, share in device.shares}
    weights[Source.ASSUMED] = weights.get(Source.ASSUMED, 0.0) + waiting
    return normalised_shares(weights)


@dataclass(frozen=True, slots=True)
class _WhatIf:
    what: str
    change: str
    chip: Callable[[Chip], Chip]
    moves_device: bool = True
    host_factor: float = 1.0
    floors: float = 1.0


def _scaled(quantity: Quantity, factor: float) -> Quantity:
    return replace(quantity, value=quantity.value * factor)


def _faster_compute(chip: Chip) -> Chip:
    return replace(chip, peak_flops={name: _scaled(peak, 1.1) for name, peak in chip.peak_flops.items()})


_WHAT_IFS = (
    _WhatIf("compute peaks", "+10 %", _faster_compute),
    _WhatIf(
        "memory bandwidth",
        "+10 %",
        lambda chip: replace(chip, memory_bytes_per_s=_scaled(chip.memory_bytes_per_s, 1.1)),
    ),
    _WhatIf(
        "L2 bandwidth", "+10 %", lambda chip: replace(chip, l2_bytes_per_s=_scaled(chip.l2_bytes_per_s, 1.1))
    ),
    _WhatIf(
        "kernel launch",
        "−50 %",
        lambda chip: replace(chip, launch_s=_scaled(chip.launch_s, 0.5)),
        moves_device=False,
    ),
    _WhatIf("host time of every operation", "−50 %", lambda chip: chip, moves_device=False, host_factor=0.5),
    _WhatIf("kernel floor", "−50 %", lambda chip: chip, floors=0.5),
)


def _with_floors(model: PriceModel, factor: float) -> PriceModel:
    """The model if what every kernel costs however small it is were ``factor`` of it; others than ours stay."""
    return model.with_floors(factor) if isinstance(model, CostModel) and factor != 1.0 else model


def _heaviest(priced: Priced, uses: npt.NDArray[np.int64]) -> list[int]:
    """Spec numbers that together make up ``REPRICED`` of the device time, heaviest first."""
    amounts = np.array([price.seconds for price in priced.prices]) * uses
    order = np.argsort(-amounts, kind="stable")
    reached = np.cumsum(amounts[order])
    count = int(np.searchsorted(reached, REPRICED * reached[-1])) + 1 if len(reached) else 0
    return [int(number) for number in order[:count] if amounts[number] > 0]


def sensitivities(
    priced: Priced,
    program: Program,
    chip: Chip,
    model_for: ModelFor,
    sites: npt.NDArray[np.int64],
    kind: StepKind,
    collective_time: CollectiveTime | None,
) -> tuple[Sensitivity, ...]:
    """The step's length if one number of the chip were another.

    Operations that make up ``REPRICED`` of the device time are priced again; the rest keep their time.
    """
    numbers = program.sites[:, 0]
    used = _heaviest(priced, np.bincount(numbers[sites], minlength=len(priced.prices)))
    specs, works = [program.specs[n] for n in used], [program.works[n] for n in used]
    known_hosts = np.array([price.host_s for price in priced.prices])
    known_devices = np.array([price.seconds for price in priced.prices])
    answers = []
    for what_if in _WHAT_IFS:
        hosts, devices = known_hosts * what_if.host_factor, known_devices.copy()
        model = _with_floors(model_for(what_if.chip(chip)), what_if.floors)
        if what_if.moves_device:
            prices = price_ops(specs, works, model, program.groups, collective_time)
            if priced.is_long:
                prices = _over_hours(prices, works, program, chip)  # what draws more is not asked here
            devices[used] = [price.seconds for price in prices]
        else:
            hosts = np.array([model.host_time_s(work) for work in program.works]) * what_if.host_factor
        table = priced.table.with_times(hosts[numbers], devices[numbers])
        seconds = step_seconds(table, sites, kind, priced.graph_launch_s)
        answers.append(Sensitivity(what_if.what, what_if.change, seconds))
    return tuple(answers)
