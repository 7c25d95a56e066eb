"""Figures of a whole cluster that no single rank knows: tokens, model FLOPs and memory over all ranks.

A pipeline's stages share their batch and have different work: tokens are counted once, FLOPs are the mean
over ranks, memory is that of the rank with the highest peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from windtunnel.estimate import Estimate
from windtunnel.memory.replay import memory_result
from windtunnel.network.model import NetworkModel
from windtunnel.program.program import Program
from windtunnel.results.run_result import MemoryResult, RunResult
from windtunnel.specs.schema import Chip
from windtunnel.timeline.cluster_predict import predict_cluster
from windtunnel.timeline.expert_load import load_of
from windtunnel.timeline.flops import StepFlops, step_flops
from windtunnel.timeline.pricing import ModelFor, default_model
from windtunnel.timeline.step import step_sites
from windtunnel.timeline.symmetry import asked_besides, different_batches, stands_for

NO_EXPERTS = (
    "no grouped products of experts that are spread over ranks were recorded: an unequal load changes nothing"
)


def predict_world(
    programs: Sequence[Program],
    chip: Chip,
    network: NetworkModel,
    *,
    model_for: ModelFor = default_model,
    strict: bool = False,
    command: str = "",
    experts: str = "",
) -> RunResult:
    """The prediction for the world that ``programs`` are ranks of, tokens and FLOPs counted over all ranks.

    ``experts``: popularity of experts (``expert_load.drawn``); empty: every rank gets its share.

    Raises:
        WindtunnelError: E214, a popularity that cannot be read; E234, the recorded ranks do not say whom they
            stand for; and what ``predict_cluster`` raises.
    """
    world = programs[0].origin.world_size
    ranks = [program.origin.rank for program in programs]
    who = stands_for(ranks, world, asked_besides(programs))
    memories = [memory_result(program, chip) for program in programs]
    worst = max(memories, key=_peak)
    loads = [load_of(program, experts) for program in programs] if experts else []
    load = next((found for found in loads if found is not None), None)
    result = predict_cluster(
        programs,
        chip,
        network,
        stands_for=who,
        model_for=model_for,
        memory=worst,
        memories=memories,
        strict=strict,
        command=command,
        expert_load=load,
    )
    if experts and load is None:
        result = replace(result, warnings=(*result.warnings, NO_EXPERTS))
    weights = np.bincount(who, minlength=len(programs)) / world
    return _counted(result, [_flops(program) for program in programs], weights.tolist(), programs)


def _peak(memory: MemoryResult) -> tuple[bool, float]:
    return not memory.fits, memory.peak_reserved_bytes.value


def _flops(program: Program) -> StepFlops:
    counts = np.bincount(step_sites(program, program.last_step()), minlength=len(program.sites))
    return step_flops(program.works, program.sites, counts)


def _counted(
    result: RunResult, flops: Sequence[StepFlops], weights: Sequence[float], programs: Sequence[Program]
) -> RunResult:
    model = sum(one.model * weight for one, weight in zip(flops, weights, strict=True))
    causal = sum(one.model_causal * weight for one, weight in zip(flops, weights, strict=True))
    hardware = sum(one.hardware * weight for one, weight in zip(flops, weights, strict=True))
    batches = different_batches(programs)
    marks = [program.last_step() for program in programs]
    tokens = max(mark.tokens for mark in marks) * batches
    rate = result.step_time_s.inverse(tokens / result.cards) if tokens and result.step_time_s.value else None
    recorded = [program.origin.recorded_s for program in programs]
    return replace(
        result,
        tokens_per_step=tokens,
        samples_per_step=marks[0].samples * batches,
        tokens_per_s_per_gpu=rate,
        model_flops_per_step=model,
        model_flops_per_step_causal=causal,
        hardware_flops_per_step=hardware,
        model_flops_per_token=model * result.cards / tokens if tokens else 0.0,
        model_tflops_per_gpu=_moved(result.model_tflops_per_gpu, model, result.model_flops_per_step),
        mfu=_moved(result.mfu, model, result.model_flops_per_step),
        mfu_causal=_moved(result.mfu_causal, causal, result.model_flops_per_step_causal),
        hfu=_moved(result.hfu, hardware, result.hardware_flops_per_step),
        recorded_ops=sum(program.num_ops for program in programs),
        recorded_s=max(recorded),
    )


def _moved(rate: Estimate | None, amount: float, before: float) -> Estimate | None:
    """A rate that was computed with ``before`` FLOPs, with ``amount`` instead."""
    return rate.scaled(amount / before) if rate is not None and before else rate
