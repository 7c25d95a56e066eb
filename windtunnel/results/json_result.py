"""The object that ``--json`` prints: stable keys, numbers in base units, estimates with interval and sources.

One chip: the keys at top level. Several: one such object per chip under ``runs``, in the order asked for.
What this is not: a file to load again; ``results/file.py`` is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.program.program import Notice, Outcome
from windtunnel.results.columns import LONG_RUN_KEYS, PART_KEYS
from windtunnel.results.run_result import (
    Communication,
    LiveStorage,
    LongRun,
    MemoryResult,
    OpRow,
    RankResult,
    RunResult,
    ScalingPoint,
)

SCHEMA = "windtunnel.run/1"
TOP_OPS = 50
"""Rows of ``ops`` in the object, most time first; the CSV table holds them all."""

Json = dict[str, object]


def answer(results: Sequence[RunResult], saved: str = "") -> Json:
    """The whole object for one result or several. ``saved``: path of the program file, if any."""
    if len(results) == 1:
        return {"schema": SCHEMA, "status": status(results), **_saved(saved), **run(results[0])}
    runs = [{"status": status([result]), **run(result)} for result in results]
    return {"schema": SCHEMA, "status": status(results), **_saved(saved), "runs": runs}


def failure(error: WindtunnelError, schema: str = SCHEMA) -> Json:
    """The object when there is no result."""
    verdict = "no" if error.exit_status == 1 else "error"
    return {"schema": schema, "status": verdict, "error": error.to_dict()}


def status(results: Sequence[RunResult]) -> str:
    """``ok`` when every result fits and ran to its end, else ``no``."""
    good = all(result.memory.fits and result.outcome is Outcome.COMPLETE for result in results)
    return "ok" if good else "no"


def run(result: RunResult) -> Json:
    """The keys of one result."""
    return {
        "chip": result.chip,
        "chip_title": result.chip_title,
        "cards": result.cards,
        "outcome": str(result.outcome),
        "outcome_detail": result.outcome_detail,
        "fits": result.memory.fits,
        "step_kind": str(result.step_kind),
        "step_time_s": estimate(result.step_time_s),
        "tokens_per_step": result.tokens_per_step,
        "samples_per_step": result.samples_per_step,
        "tokens_per_s_per_gpu": estimate(result.tokens_per_s_per_gpu),
        "tokens_per_s": estimate(_all_cards(result)),
        "samples_per_s_per_gpu": estimate(samples_per_s_per_gpu(result)),
        "model_flops_per_token": result.model_flops_per_token,
        "model_flops_per_step": result.model_flops_per_step,
        "model_flops_per_step_causal": result.model_flops_per_step_causal,
        "hardware_flops_per_step": result.hardware_flops_per_step,
        "model_tflops_per_gpu": estimate(result.model_tflops_per_gpu),
        "mfu": estimate(result.mfu),
        "mfu_causal": estimate(result.mfu_causal),
        "hfu": estimate(result.hfu),
        "mfu_peak": result.mfu_peak,
        "mbu": estimate(result.mbu),
        **{key: getattr(result.parts, key) for key in PART_KEYS},
        "peak_reserved_bytes": estimate(result.memory.peak_reserved_bytes),
        "peak_active_bytes": estimate(result.memory.peak_active_bytes),
        "memory": _memory(result.memory),
        "communication": [_communication(row) for row in result.communication],
        "ranks": [_rank(row) for row in result.ranks],
        "scaling": [_scaling(point) for point in result.scaling],
        "long_run": None if result.long_run is None else _long_run(result.long_run),
        "ops": [_op(row) for row in sorted(result.ops, key=_slowest_first)[:TOP_OPS]],
        "sensitivities": [
            {"what": row.what, "change": row.change, "step_time_s": row.step_time_s}
            for row in result.sensitivities
        ],
        "steps": [{"step_kind": kind, "step_time_s": seconds} for kind, seconds in result.steps],
        "notices": [_notice(notice) for notice in result.notices],
        "warnings": list(result.warnings),
        "assumptions": list(result.assumptions),
        "recorded": {
            "ops": result.recorded_ops,
            "collectives": result.recorded_collectives,
            "seconds": result.recorded_s,
        },
        "command": result.command,
        "program_hash": result.program_hash,
        "versions": dict(result.versions),
    }


def estimate(value: Estimate | None) -> Json | None:
    """An estimate as JSON; null where it does not apply. An unbounded end is null: JSON has no infinity."""
    if value is None:
        return None
    object_ = value.to_dict()
    return object_ if math.isfinite(value.high) else {**object_, "high": None}


def samples_per_s_per_gpu(result: RunResult) -> Estimate | None:
    """Samples of the global batch over step time and cards; None where the model's input is not batched."""
    if result.samples_per_step <= 0 or result.step_time_s.value <= 0:
        return None
    return result.step_time_s.inverse(result.samples_per_step / result.cards)


def _saved(path: str) -> Json:
    return {"saved": path} if path else {}


def _all_cards(result: RunResult) -> Estimate | None:
    rate = result.tokens_per_s_per_gpu
    return None if rate is None else rate.scaled(result.cards)


def _slowest_first(row: OpRow) -> float:
    return -row.seconds


def _memory(memory: MemoryResult) -> Json:
    reserved = memory.peak_reserved_bytes.value
    return {
        "fits": memory.fits,
        "usable_bytes": memory.usable_bytes,
        "total_bytes": memory.total_bytes,
        "headroom_bytes": memory.usable_bytes - reserved,
        "peak_by_category": dict(memory.peak_by_category),
        "peak_at": memory.peak_at,
        "out_of_memory_at": memory.out_of_memory_at or None,
        "largest": [_storage(storage) for storage in memory.largest],
    }


def _storage(storage: LiveStorage) -> Json:
    return {
        "bytes": storage.bytes,
        "count": storage.count,
        "category": storage.category,
        "line": storage.line,
        "module": storage.module,
        "op": storage.op,
    }


def _communication(row: Communication) -> Json:
    return {
        "collective": row.collective,
        "group": row.group,
        "ranks": row.ranks,
        "count": row.count,
        "bytes": row.bytes,
        "seconds": row.seconds,
        "exposed_s": row.exposed_s,
        "algbw_bytes_per_s": row.algbw_bytes_per_s,
        "busbw_bytes_per_s": row.busbw_bytes_per_s,
    }


def _rank(row: RankResult) -> Json:
    return {
        "rank": row.rank,
        "count": row.count,
        "step_time_s": row.step_time_s,
        **{key: getattr(row.parts, key) for key in PART_KEYS},
        "peak_reserved_bytes": row.peak_reserved_bytes,
    }


def _scaling(point: ScalingPoint) -> Json:
    return {
        "cards": point.cards,
        "step_time_s": estimate(point.step_time_s),
        "tokens_per_s_per_gpu": estimate(point.tokens_per_s_per_gpu),
        "mfu": estimate(point.mfu),
        "efficiency": point.efficiency,
        **{key: getattr(point.parts, key) for key in PART_KEYS},
        "peak_reserved_bytes": point.peak_reserved_bytes,
        "limit": point.limit,
    }


def _long_run(run: LongRun) -> Json:
    return {
        "days": run.days,
        "cards": run.cards,
        "histories": run.histories,
        "seed": run.seed,
        "effective": estimate(run.effective),
        "failures": estimate(run.failures),
        "tokens": estimate(run.tokens),
        **{key: getattr(run, key) for key in LONG_RUN_KEYS},
        "checkpoint_interval_s": run.checkpoint_interval_s,
        "inputs": [
            {
                "what": row.what,
                "value": row.value,
                "source": row.source and str(row.source),
                "where": row.where,
            }
            for row in run.inputs
        ],
    }


def _op(row: OpRow) -> Json:
    return {
        "name": row.name,
        "family": row.family,
        "phase": row.phase,
        "module": row.module,
        "line": row.line,
        "stream": row.stream,
        "shapes": row.shapes,
        "count": row.count,
        "seconds": row.seconds,
        "low_s": row.low_s,
        "high_s": row.high_s,
        "flops": row.flops,
        "bytes_moved": row.bytes_moved,
        "precision": row.precision,
        "limit": row.limit,
        "source": str(row.source),
        "formula": row.formula,
    }


def _notice(notice: Notice) -> Json:
    return {"kind": str(notice.kind), "what": notice.what, "line": notice.line, "count": notice.count}
