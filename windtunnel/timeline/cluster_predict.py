"""The prediction for a cluster: recorded ranks replayed together, told as the rank that ends last."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from windtunnel.estimate import Estimate
from windtunnel.network.model import NetworkModel
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup, Program
from windtunnel.program.work import Work
from windtunnel.results.run_result import MemoryResult, RunResult, StepParts
from windtunnel.specs.schema import Chip
from windtunnel.timeline.card import Trace
from windtunnel.timeline.cluster import ClusterReplay
from windtunnel.timeline.cluster_rows import (
    ClusterTiming,
    RankTiming,
    communication,
    critical_spans,
    rank_results,
)
from windtunnel.timeline.expert_load import ExpertLoad, factors
from windtunnel.timeline.interference import exchange_key, loads, settle
from windtunnel.timeline.parts import beyond_rounding, covered_s, kinds_of, step_parts
from windtunnel.timeline.predict import predict
from windtunnel.timeline.prices import CollectiveTime
from windtunnel.timeline.pricing import ModelFor, Priced, default_model, price_program
from windtunnel.timeline.ranks import Representatives
from windtunnel.timeline.sites import SiteTable
from windtunnel.timeline.step import StepTimeline, step_sites


def replay_cluster(
    programs: Sequence[Program],
    chip: Chip,
    network: NetworkModel,
    *,
    stands_for: Mapping[int, int] | Sequence[int] | None = None,
    model_for: ModelFor = default_model,
    expert_load: ExpertLoad | None = None,
) -> ClusterTiming:
    """Replay the last step of every recorded rank together; ``expert_load``: of mixtures of experts.

    Raises:
        WindtunnelError: E210 ranks nobody stands for, E211 a rank missing from a collective, E212 ranks that
            disagree about one, and what pricing raises.
    """
    who = Representatives(programs, stands_for)
    priced = [price_program(p, chip, model_for, _times(network, p), p.last_step().kind) for p in programs]
    sites = [step_sites(p, p.last_step()) for p in programs]
    tables = [p.table for p in priced]
    if expert_load is not None:
        tables = [
            table.with_times(table.floats[0], table.floats[1] * factors(program, expert_load))
            for table, program in zip(tables, programs, strict=True)
        ]
    last: list[ClusterReplay] = []

    def replay(given: Sequence[SiteTable]) -> tuple[float, list[Trace]]:
        last[:] = [ClusterReplay(who, given, sites, chip.graph_launch_s.value)]
        seconds = last[0].run()
        return seconds, [rank.card.timeline for rank in last[0].ranks]

    settle(tables, sites, [loads(program, network) for program in programs], replay)
    return _timing(last[0], programs, priced)


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
    expert_load: ExpertLoad | None = None,
) -> RunResult:
    """What `windtunnel run` says for a cluster. Raises what ``replay_cluster`` and ``predict`` raise.

    Args:
        memory: shown as the memory of the cluster's cards. memories: of every recorded rank, if known.
    """
    timing = replay_cluster(
        programs, chip, network, stands_for=stands_for, model_for=model_for, expert_load=expert_load
    )
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
    rank = timing.ranks[timing.critical]
    ratio = timing.seconds / alone.step_time_s.value if alone.step_time_s.value else 1.0
    step_time = alone.step_time_s.scaled(ratio)
    return replace(
        alone,
        step_time_s=step_time,
        parts=rank.parts,
        tokens_per_s_per_gpu=_rated(alone.tokens_per_s_per_gpu, ratio),
        model_tflops_per_gpu=_rated(alone.model_tflops_per_gpu, ratio),
        mfu=_rated(alone.mfu, ratio),
        mfu_causal=_rated(alone.mfu_causal, ratio),
        hfu=_rated(alone.hfu, ratio),
        mbu=_rated(alone.mbu, ratio),
        assumptions=(*alone.assumptions, *([expert_load.sentence()] if expert_load is not None else [])),
        # asked of the critical rank alone: what waits for others is taken to shrink with it
        sensitivities=tuple(
            replace(what, step_time_s=what.step_time_s * ratio) for what in alone.sensitivities
        ),
        communication=communication(program, rank.timeline, rank.parts.exposed_comm_s),
        spans=critical_spans(timing, program, chip),
        ranks=rank_results(timing, programs, chip, memories, Representatives(programs, stands_for)),
    )


def _times(network: NetworkModel, program: Program) -> CollectiveTime:
    """The network's times on the rank of ``program``, each distinct exchange asked for once."""
    known: dict[Hashable, Estimate] = {}

    def time_of(spec: OpSpec, work: Work, group: ProcessGroup) -> Estimate:
        key = exchange_key(spec)
        if key not in known:
            known[key] = network.recorded_time(spec, group, program.origin.rank).estimate()
        return known[key]

    return time_of


def _timing(replay: ClusterReplay, programs: Sequence[Program], priced: Sequence[Priced]) -> ClusterTiming:
    ranks = []
    seconds = max(rank.card.finish_s for rank in replay.ranks)
    for program, prices, rank in zip(programs, priced, replay.ranks, strict=True):
        trace = rank.card.timeline
        position, start, end = trace.arrays()
        timeline = StepTimeline(
            seconds, rank.sites, position, start, end, tuple(trace.waits), tuple(trace.delays)
        )
        kinds, phases = kinds_of(program), program.sites[:, 4]
        parts = _with_bubble(step_parts(timeline, kinds, phases), timeline, rank.card.stalls)
        ranks.append(RankTiming(program.origin.rank, rank.card.finish_s, parts, prices, timeline))
    return ClusterTiming(seconds, tuple(ranks), _critical(ranks, seconds))


TOGETHER = 0.01
"""Ranks that end within this share of the step end together: a last exchange has them wait for each other."""


def _critical(ranks: Sequence[RankTiming], seconds: float) -> int:
    """Of the ranks that end last, the one that waits least for others: the step is as long as it is busy."""
    last = [n for n, rank in enumerate(ranks) if rank.seconds >= (1 - TOGETHER) * seconds]
    return min(last, key=lambda n: (ranks[n].parts.bubble_s, n))


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
    bubble = min(parts.host_gap_s, beyond_rounding(both - busy, timeline.seconds))
    return replace(parts, bubble_s=bubble, host_gap_s=parts.host_gap_s - bubble)


def _rated(rate: Estimate | None, ratio: float) -> Estimate | None:
    return None if rate is None else rate.scaled(1 / ratio)
