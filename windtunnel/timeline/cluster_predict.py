"""The prediction for a cluster: recorded ranks replayed together, told as the rank that ends last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.estimate import Estimate
from windtunnel.network.collective import POINT_TO_POINT, bus_factor, kind_of, message_bytes
from windtunnel.network.model import NetworkModel
from windtunnel.program.program import Program
from windtunnel.program.work import Family
from windtunnel.results.run_result import Communication, MemoryResult, RankResult, RunResult, StepParts
from windtunnel.specs.schema import Chip
from windtunnel.timeline.card import Trace
from windtunnel.timeline.cluster import ClusterReplay
from windtunnel.timeline.interference import loads, settle
from windtunnel.timeline.parts import covered_s, step_parts
from windtunnel.timeline.parts import kind_of as part_of
from windtunnel.timeline.predict import predict
from windtunnel.timeline.prices import CollectiveTime
from windtunnel.timeline.pricing import ModelFor, default_model, price_program
from windtunnel.timeline.ranks import Representatives
from windtunnel.timeline.sites import SiteTable
from windtunnel.timeline.step import StepTimeline, step_sites


@dataclass(frozen=True, slots=True)
class RankTiming:
    """One recorded rank in the step of the whole cluster."""

    rank: int
    seconds: float
    parts: StepParts


@dataclass(frozen=True, slots=True)
class ClusterTiming:
    """The step of the cluster: its length and every recorded rank; ``critical`` ended last."""

    seconds: float
    ranks: tuple[RankTiming, ...]
    critical: int
    timelines: tuple[StepTimeline, ...]


def replay_cluster(
    programs: Sequence[Program],
    chip: Chip,
    network: NetworkModel,
    *,
    stands_for: Mapping[int, int] | Sequence[int] | None = None,
    model_for: ModelFor = default_model,
) -> ClusterTiming:
    """Replay the last step of every recorded rank together.

    Raises:
        WindtunnelError: E210 ranks nobody stands for, E211 a rank missing from a collective, E212 ranks that
            disagree about one, and what pricing raises.
    """
    who = Representatives(programs, stands_for)
    priced = [price_program(p, chip, model_for, _times(network, p)) for p in programs]
    sites = [step_sites(p, p.last_step()) for p in programs]
    tables = [p.table for p in priced]
    last: list[ClusterReplay] = []

    def replay(given: Sequence[SiteTable]) -> tuple[float, list[Trace]]:
        last[:] = [ClusterReplay(who, given, sites, chip.graph_launch_s.value)]
        seconds = last[0].run()
        return seconds, [rank.card.timeline for rank in last[0].ranks]

    settle(tables, sites, [loads(program, network) for program in programs], replay)
    return _timing(last[0], programs)


def predict_cluster(
    programs: Sequence[Program],
    chip: Chip,
    network: NetworkModel,
    *,
    stands_for: Mapping[int, int] | Sequence[int] | None = None,
    model_for: ModelFor = default_model,
    memory: MemoryResult | None = None,
    memories: Sequence[MemoryResult] = (),
    strict: bool = False,
    command: str = "",
) -> RunResult:
    """What `windtunnel run` says for a cluster. Raises what ``replay_cluster`` and ``predict`` raise.

    Args:
        memory: shown as the memory of the cluster's cards. memories: of every recorded rank, if known.
    """
    timing = replay_cluster(programs, chip, network, stands_for=stands_for, model_for=model_for)
    program = programs[timing.critical]
    world = max(p.origin.world_size for p in programs)
    alone = predict(
        program,
        chip,
        cards=world,
        collective_time=_times(network, program),
        model_for=model_for,
        memory=memory,
        strict=strict,
        command=command,
    )
    parts = timing.ranks[timing.critical].parts
    ratio = timing.seconds / alone.step_time_s.value if alone.step_time_s.value else 1.0
    step_time = alone.step_time_s.scaled(ratio)
    return replace(
        alone,
        step_time_s=step_time,
        parts=parts,
        tokens_per_s_per_gpu=_rated(alone.tokens_per_s_per_gpu, ratio),
        model_tflops_per_gpu=_rated(alone.model_tflops_per_gpu, ratio),
        mfu=_rated(alone.mfu, ratio),
        mfu_causal=_rated(alone.mfu_causal, ratio),
        hfu=_rated(alone.hfu, ratio),
        mbu=_rated(alone.mbu, ratio),
        communication=communication(program, network, parts.exposed_comm_s),
        ranks=_rank_rows(timing, memories, Representatives(programs, stands_for)),
    )


def _rank_rows(
    timing: ClusterTiming, memories: Sequence[MemoryResult], who: Representatives
) -> tuple[RankResult, ...]:
    counts = np.bincount([who.of(rank) for rank in range(who.world_size)], minlength=len(timing.ranks))
    peaks = [memory.peak_reserved_bytes.value for memory in memories] or [0.0] * len(timing.ranks)
    return tuple(
        RankResult(
            rank=rank.rank,
            count=int(count),
            step_time_s=rank.seconds,
            parts=rank.parts,
            peak_reserved_bytes=peak,
        )
        for rank, count, peak in zip(timing.ranks, counts, peaks, strict=True)
    )


def communication(program: Program, network: NetworkModel, exposed_s: float) -> tuple[Communication, ...]:
    """Collectives of the last step by kind and group; exposed time is shared out by their durations."""
    sites = step_sites(program, program.last_step())
    uses = np.bincount(program.sites[sites, 0], minlength=len(program.specs))
    rows: dict[tuple[str, int], list[tuple[int, float, float]]] = defaultdict(list)
    for spec, work, count in zip(program.specs, program.works, uses.tolist(), strict=True):
        if work.family is Family.COLLECTIVE and work.kernels and count:
            index = spec.attribute("group", 0)
            index = index if isinstance(index, int) else 0
            time = network.recorded_time(spec, program.groups[index], program.origin.rank)
            rows[(str(kind_of(spec.name)), index)].append((count, message_bytes(spec), time.seconds))
    whole = sum(count * seconds for items in rows.values() for count, _, seconds in items)
    answers = []
    for (name, index), items in sorted(rows.items()):
        group = program.groups[index]
        kind = kind_of(f"c10d.{name}")
        ranks = 2 if kind in POINT_TO_POINT else len(group.ranks)
        seconds = sum(count * time for count, _, time in items)
        nbytes = sum(count * size for count, size, _ in items)
        rate = nbytes / seconds if seconds else 0.0
        answers.append(
            Communication(
                collective=name,
                group=group.label or str(index),
                ranks=ranks,
                count=sum(count for count, _, _ in items),
                bytes=nbytes,
                seconds=seconds,
                exposed_s=exposed_s * seconds / whole if whole else 0.0,
                algbw_bytes_per_s=rate,
                busbw_bytes_per_s=rate * bus_factor(kind, ranks),
            )
        )
    return tuple(answers)


def _times(network: NetworkModel, program: Program) -> CollectiveTime:
    rank = program.origin.rank
    return lambda spec, work, group: network.recorded_time(spec, group, rank).estimate()


def _timing(replay: ClusterReplay, programs: Sequence[Program]) -> ClusterTiming:
    timelines, ranks = [], []
    seconds = max(rank.card.finish_s for rank in replay.ranks)
    for program, rank in zip(programs, replay.ranks, strict=True):
        trace = rank.card.timeline
        position, start, end = trace.arrays()
        timeline = StepTimeline(
            seconds, rank.sites, position, start, end, tuple(trace.waits), tuple(trace.delays)
        )
        timelines.append(timeline)
        kinds = np.array([part_of(work.family) for work in program.works], np.int64)[program.sites[:, 0]]
        parts = step_parts(timeline, kinds, program.sites[:, 4])
        ranks.append(
            RankTiming(
                program.origin.rank, rank.card.finish_s, _with_bubble(parts, timeline, rank.card.stalls)
            )
        )
    critical = max(range(len(ranks)), key=lambda n: (ranks[n].seconds, -n))
    return ClusterTiming(seconds, tuple(ranks), critical, tuple(timelines))


def _with_bubble(
    parts: StepParts, timeline: StepTimeline, stalls: Sequence[tuple[float, float]]
) -> StepParts:
    """Idle time in which a rank waited for others is bubble, and so is the time after its own end."""
    finish_s = float(timeline.end_s.max(initial=0.0))
    pairs = np.array([*stalls, (finish_s, timeline.seconds)]).reshape(-1, 2)
    own = np.array(timeline.delays).reshape(-1, 2)
    busy_start = np.concatenate((timeline.start_s, own[:, 0]))
    busy_end = np.concatenate((timeline.end_s, own[:, 1]))
    busy = covered_s(busy_start, busy_end, timeline.seconds)
    both = covered_s(
        np.concatenate((busy_start, pairs[:, 0])), np.concatenate((busy_end, pairs[:, 1])), timeline.seconds
    )
    bubble = min(parts.host_gap_s, max(0.0, both - busy))
    return replace(parts, bubble_s=bubble, host_gap_s=parts.host_gap_s - bubble)


def _rated(rate: Estimate | None, ratio: float) -> Estimate | None:
    return None if rate is None else rate.scaled(1 / ratio)
