"""Step time of a training configuration, end to end: recipe, prices, pipeline replay.

Each distinct chunk program is replayed once on a card of its own stage (kernels, collectives beside them,
multiprocessors that communication holds); the pipeline replay then places all chunks of all stages; gradient
exchange that is left over and the optimizer follow. The cost does not grow with the number of cards.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from windtunnel.cost.model import OUTSIDE_WIDENING
from windtunnel.estimate import Estimate, Source, normalised_shares
from windtunnel.network.collective import Collective
from windtunnel.network.model import NetworkModel
from windtunnel.planner.exchange import PipelineExchange
from windtunnel.planner.hidden import expert_exchange, hidden
from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.op import OpSpec
from windtunnel.program.program import Program
from windtunnel.program.work import Family
from windtunnel.recipes.architecture import MoeFfn
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layout import FLASH_1_FACTOR, AttentionKernel, Layout, Precision
from windtunnel.recipes.training import TrainingRecipe
from windtunnel.results.run_result import StepParts
from windtunnel.specs.schema import Chip
from windtunnel.timeline.card import Card, Trace
from windtunnel.timeline.interference import loads, settle
from windtunnel.timeline.parts import beyond_rounding, kind_of, step_parts
from windtunnel.timeline.pipeline import PipelineTiming, replay
from windtunnel.timeline.prices import OpPrice, price_ops
from windtunnel.timeline.pricing import ModelFor, default_model
from windtunnel.timeline.schedule import Chunk, ChunkKind, Schedule, order
from windtunnel.timeline.sites import SiteTable
from windtunnel.timeline.step import StepTimeline
from windtunnel.timeline.sustained import Sustained, sustained

CORRELATION = 0.5
"""Between errors of kernels on one chip: the convention of ``estimate.total``."""
_KNOWN = (Source.MEASURED, Source.CALIBRATED)
_ATTENTION = (Family.ATTENTION, Family.ATTENTION_BACKWARD)


@dataclass(frozen=True, slots=True)
class ProgramTime:
    """One program replayed on a card of its own.

    ``relative``: half-widths of its interval, low and high; ``borrowed``: the part of them that comes from kernels
    and collectives not calibrated on this chip. ``sources``: device seconds by source.
    ``device_s``: seconds on the device of each distinct operation of the program.
    """

    program: Program
    device_s: tuple[float, ...]
    parts: StepParts
    relative: tuple[float, float]
    borrowed: tuple[float, float]
    flops: float
    sources: tuple[tuple[Source, float], ...]

    @property
    def seconds(self) -> float:
        """Length of the program."""
        return self.parts.total_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPrediction:
    """The step of a training configuration.

    Attributes:
        parts: of the stage that is busiest; they sum to the step. pipeline: the replay of all stages.
        hardware_flops: of one rank of the busiest stage, recomputation included.
        busiest: every program that the busiest stage runs, in order.
    """

    step_time_s: Estimate
    parts: StepParts
    pipeline: PipelineTiming
    hardware_flops: float
    tokens_per_s_per_gpu: float
    busiest: tuple[ProgramTime, ...]


class TrainingPredictor:
    """Predicts steps on one chip and cluster; prices of distinct operations are kept between calls."""

    def __init__(
        self,
        chip: Chip,
        network: NetworkModel,
        model_for: ModelFor = default_model,
        long_run: Sustained | None = None,
    ) -> None:
        self.chip = chip
        self.network = network
        self._model = model_for(chip)
        self._long_run = long_run or sustained()
        self._priced: dict[object, OpPrice] = {}
        self._limited: dict[object, OpPrice] = {}  # the same at the clock that the power limit leaves

    def with_constants(self, long_run: Sustained) -> TrainingPredictor:
        """The same predictor under other constants; prices already known are shared."""
        other = TrainingPredictor(self.chip, self.network, lambda chip: self._model, long_run)
        other._priced = self._priced
        return other

    def program_time(self, program: Program, attention_factor: float = 1.0, load: str = "") -> ProgramTime:
        """Replay one program on a card of its own.

        ``attention_factor`` scales attention kernels, for older ones; ``load`` is the ``HostLoad`` of a framework that
        issues more operations than are written here, and whose ranks come to collectives at different times.
        """
        prices = self._prices(program)
        hosts = np.array([price.host_s for price in prices]) * self._long_run.host_factor(load)
        waits = self._long_run.waits_s(prices, program.groups, load)
        devices = self._devices(program, prices, attention_factor) + waits
        table = SiteTable.of_sites(prices, program.sites, hosts, devices)
        trace = self._settled(table, program)
        position, start, end = trace.arrays()
        seconds = float(end.max(initial=0.0))
        timeline = StepTimeline(seconds, program.events, position, start, end, (), ())
        kinds = np.array([kind_of(work.family) for work in program.works], np.int64)[program.sites[:, 0]]
        counts = np.bincount(program.sites[program.events, 0], minlength=len(prices))
        whole = float((counts * devices).sum()) or 1.0
        relative = _widths(zip(counts.tolist(), prices, strict=True), whole)
        strange = [(c, p) for c, p in zip(counts.tolist(), prices, strict=True) if p.source not in _KNOWN]
        borrowed = _widths(strange, whole)
        flops = float(sum(c * w.flops for c, w in zip(counts.tolist(), program.works, strict=True)))
        weights: dict[Source, float] = defaultdict(float)
        for count, price in zip(counts.tolist(), prices, strict=True):
            weights[price.source] += count * price.seconds
        parts = step_parts(timeline, kinds, program.sites[:, 4])
        return ProgramTime(
            program, tuple(devices.tolist()), parts, relative, borrowed, flops, tuple(weights.items())
        )

    def device_seconds(
        self, program: Program, layout: Layout
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Device time of each distinct operation of ``program``, with what long runs cost."""
        return self._devices(program, self._prices(program), _attention_factor(layout))

    def _devices(
        self, program: Program, prices: list[OpPrice], attention_factor: float
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        factors = [attention_factor if work.family in _ATTENTION else 1.0 for work in program.works]
        return np.array([price.seconds for price in prices]) * factors

    def _prices(self, program: Program) -> list[OpPrice]:
        """Prices of the program's distinct operations under power; each is computed once for all programs."""
        keys = [_place(spec, program) for spec in program.specs]
        new = [number for number, key in enumerate(keys) if key not in self._limited]
        prices = self._alone(program, [keys[number] for number in new], new)
        limited = self._long_run.prices(prices, [program.works[number] for number in new], self.chip)
        self._limited.update(zip([keys[number] for number in new], limited, strict=True))
        return [self._limited[key] for key in keys]

    def _alone(self, program: Program, keys: list[object], numbers: list[int]) -> list[OpPrice]:
        """Prices of some operations, by number, as in short benchmarks."""
        rank = program.origin.rank
        missing = [n for key, n in zip(keys, numbers, strict=True) if key not in self._priced]
        found = price_ops(
            [program.specs[number] for number in missing],
            [program.works[number] for number in missing],
            self._model,
            program.groups,
            lambda spec, work, group: self.network.recorded_time(spec, group, rank).estimate(),
        )
        self._priced.update(zip([_place(program.specs[n], program) for n in missing], found, strict=True))
        return [self._priced[key] for key in keys]

    def _estimate(self, own: list[ProgramTime], seconds: float, recipe: TrainingRecipe) -> Estimate:
        """The interval of steps on unseen systems, widened by kernels that the fit of steps cannot vouch for.

        On architectures of the fit these are kernels and collectives not calibrated on this chip, else all. Steps
        of a kind that the fit has none of (experts, adapters, four bits) lie outside its range.
        """
        busy = sum(time.seconds for time in own) or 1.0
        known = self.chip.architecture in dict(self._long_run.watts_per_pflops)
        # many kernels whose errors are half shared: their widths add up to the root of a half of the sum
        shared = math.sqrt(CORRELATION)
        widths = [(t.borrowed if known else t.relative, t.seconds) for t in own]
        extra = [shared * sum(width[side] * seconds for width, seconds in widths) / busy for side in (0, 1)]
        low = math.hypot(1 - self._long_run.low, extra[0])
        high = math.hypot(self._long_run.high - 1, extra[1])
        if _outside(recipe):
            low, high = 1 - max(0.0, 1 - low) ** OUTSIDE_WIDENING, (1 + high) ** OUTSIDE_WIDENING - 1
        weights: dict[Source, float] = defaultdict(float)
        for time in own:
            for source, share in time.sources:
                weights[source] += share
        shares = normalised_shares(weights)
        return Estimate(seconds, seconds * max(0.0, 1 - low), seconds * (1 + high), shares)

    def _settled(self, table: SiteTable, program: Program) -> Trace:
        last: list[Trace] = []

        def replay(given: Sequence[SiteTable]) -> tuple[float, list[Trace]]:
            last[:] = [Trace()]
            card = Card(given[0], graph_launch_s=self.chip.graph_launch_s.value, trace=last[0])
            card.advance_array(program.events)
            return card.finish_s, last[:]

        settle([table], [program.events], [loads(program, self.network)], replay)
        return last[0]

    def predict(self, recipe: TrainingRecipe) -> TrainingPrediction:
        """The step of ``recipe``. Raises E202 where its schedule cannot run, and what pricing raises."""
        layout = recipe.layout
        plan = order(Schedule(layout.schedule), layout.pipeline, layout.micro_batches, layout.chunks)
        times: dict[int, ProgramTime] = {}
        slower = _attention_factor(layout)
        hides = layout.overlap_experts or plan.schedule is Schedule.DUALPIPE

        def timed(program: Program) -> ProgramTime:
            if id(program) not in times:
                time = self.program_time(program, slower, layout.host)
                exchanged = expert_exchange(program, self.network) if hides else (0.0, 0.0)
                times[id(program)] = replace(time, parts=hidden(time.parts, *exchanged))
            return times[id(program)]

        last = layout.micro_batches - 1
        of_kind: dict[tuple[ChunkKind, int, int], ProgramTime] = {}

        def of_chunk(chunk: Chunk) -> ProgramTime:
            # only the first and last micro-batch differ from the others
            edge = 0 if chunk.micro_batch == 0 else 2 if chunk.micro_batch == last else 1
            key = (chunk.kind, chunk.virtual, edge)
            if key not in of_kind:
                virtual, part = chunk.virtual % len(recipe.chunks), Part(str(chunk.kind))
                program = recipe.program(virtual, part, chunk.micro_batch, plan.splits_backward)
                pass_s = 0.0 if part is Part.WEIGHT else self._long_run.pass_s(layout.host)
                of_kind[key] = _after(timed(program), pass_s)
            return of_kind[key]

        boundary = float(recipe.boundary.nbytes)

        @cache
        def transfer_s(origin: int, stage: int) -> float:
            pair = (origin * layout.stage_ranks, stage * layout.stage_ranks)
            return self.network.collective_time(Collective.SEND, boundary, pair).seconds

        exchange = PipelineExchange(
            recipe, lambda virtual, way: timed(recipe.exchange(virtual, way)).parts.exposed_comm_s
        )
        pipeline = replay(
            plan, lambda chunk, stage: of_chunk(chunk).seconds, transfer_s, exchange.earliest_end(plan)
        )
        ends = [timed(recipe.optimizer(stage)) for stage in range(layout.pipeline)]
        tail = max(ends, key=lambda end: end.seconds)
        busiest = max(range(layout.pipeline), key=lambda s: (pipeline.busy_s[s], -s))
        own = [of_chunk(chunk) for chunk in plan.stages[busiest]] + [tail]
        exposed = exchange.tail_s(plan, pipeline)
        seconds = pipeline.total_s + exposed + tail.seconds
        return TrainingPrediction(
            step_time_s=self._estimate(own, seconds, recipe),
            parts=_summed([time.parts for time in own], seconds, exposed),
            pipeline=pipeline,
            hardware_flops=sum(time.flops for time in own),
            tokens_per_s_per_gpu=layout.step_tokens / seconds / layout.cards,
            busiest=tuple(own),
        )


def _after(time: ProgramTime, host_s: float) -> ProgramTime:
    """The same program behind ``host_s`` of the host's own work."""
    return replace(time, parts=replace(time.parts, host_gap_s=time.parts.host_gap_s + host_s))


def _attention_factor(layout: Layout) -> float:
    return FLASH_1_FACTOR if layout.attention is AttentionKernel.FLASH_1 else 1.0


def _place(spec: OpSpec, program: Program) -> object:
    """What decides the price of an operation: itself, and for a collective where its group sits."""
    if not spec.name.startswith(COLLECTIVE_PREFIX):
        return spec
    group = spec.attribute("group", 0)
    ranks = program.groups[group].ranks if isinstance(group, int) and group < len(program.groups) else ()
    return spec, ranks, program.origin.rank


def _outside(recipe: TrainingRecipe) -> bool:
    """Whether the fit of steps has seen none of this kind: its tables are dense, trained whole, in 8 bits or more."""
    layout = recipe.layout
    sparse = any(isinstance(layer.ffn, MoeFfn) for layer in recipe.model.layers)
    return sparse or layout.adapter_rank > 0 or layout.precision is Precision.NVFP4


def _widths(uses: Iterable[tuple[int, OpPrice]], whole_s: float) -> tuple[float, float]:
    """Half-widths of priced operations together, low and high, relative to ``whole_s``."""
    low = high = 0.0
    for count, price in uses:
        low += count * (price.seconds - price.low_s)
        high += count * (price.high_s - price.seconds)
    return low / whole_s, high / whole_s


def _summed(parts: list[StepParts], seconds: float, exposed_s: float) -> StepParts:
    """Parts of all programs of a stage; what they leave of the step is bubble."""
    names = ("compute_s", "exposed_comm_s", "host_gap_s", "optimizer_s", "io_s")
    sums = {name: sum(getattr(part, name) for part in parts) for name in names}
    sums["exposed_comm_s"] += exposed_s
    return StepParts(**sums, bubble_s=beyond_rounding(seconds - sum(sums.values()), seconds))
