"""How the answer of `windtunnel plan` looks: layouts best first, scaling over sizes, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

from windtunnel import units
from windtunnel.cli import output
from windtunnel.estimate import Estimate
from windtunnel.report.text_table import Shorten, TextColumn, bar, render
from windtunnel.results.columns import PART_KEYS, Unit, label, numbers
from windtunnel.results.plan_result import PlanResult, PlanRow

COLUMNS = (
    TextColumn("Layout", shorten=Shorten.WRAP, least=24),
    TextColumn("step", right=True),
    TextColumn("80 % interval", right=True, rank=1),
    TextColumn("tok/s/GPU", right=True),
    TextColumn("MFU", right=True),
    TextColumn("exposed comm", right=True, rank=4),
    TextColumn("bubble", right=True, rank=3),
    TextColumn("peak memory", right=True),
)

SCALING_COLUMNS = (
    TextColumn("Cards", right=True),
    TextColumn("best layout", shorten=Shorten.WRAP, least=13),
    TextColumn("step", right=True),
    TextColumn("tokens/s", right=True),
    TextColumn("tok/s/GPU", right=True, rank=1),
    TextColumn("MFU", right=True),
    TextColumn("efficiency", right=True),
    TextColumn("", rank=5),
    TextColumn("exposed comm", right=True, rank=3),
    TextColumn("bubble", right=True, rank=4),
    TextColumn("memory", right=True),
)


def lines(result: PlanResult, top: int, width: int) -> list[str]:
    """The answer for one cluster."""
    head = output.wrapped(_headline(result), width)
    best = result.best
    if best is None:
        return [*head, "", *output.wrapped(_nothing_fits(result), width)]
    body = render(COLUMNS, [_row(row) for row in result.rows[:top]], width)
    return [*head, "", *body, "", *_details(result, best, width)]


def hints(result: PlanResult, larger: str, width: int) -> list[str]:
    """What to do next: a framework's options for the best layout, or ``larger``, a command that fits."""
    if result.best is not None:
        return [*output.wrapped(framework_options(result.best, result), width), ""]
    return [f"hint: {larger}" if larger else "hint: try a lower precision, or leave degrees open", ""]


def framework_options(row: PlanRow, result: PlanResult) -> str:
    """The layout in the words of TorchTitan where parameters are sharded, else of Megatron-LM."""
    return _torchtitan(row, result) if row.sharding == "fsdp" else _megatron(row, result)


def scaling_lines(results: Sequence[PlanResult], weak: bool, width: int) -> list[str]:
    """The best layout of every size."""
    kind = "Weak scaling, the batch grows with the cards" if weak else "Strong scaling, one global batch"
    first = results[0]
    chip = first.chip_title.partition(" × ")[2] or first.chip_title
    batch = f"{first.global_batch:,} × {first.sequence:,} tokens" + (" on the smallest" if weak else "")
    title = f"{first.model} on {chip} · {kind} · {batch}, {first.precision}"
    base = next((result for result in results if result.best), None)
    rows = [_scaling_row(result, base) for result in results]
    notes = [f"MFU: full attention, of {first.mfu_peak}"]
    if base is not None:
        notes.append(f"efficiency: throughput per card against {base.cards:,} cards")
    notes += [f"{result.cards:,} cards: {_nothing_fits(result)}" for result in results if not result.rows]
    notes += [f"not looked at: {first.left_out}"] if first.left_out else []
    body = render(SCALING_COLUMNS, rows, width)
    said = [piece for note in notes for piece in output.wrapped(note, width)]
    return [*output.wrapped(title, width), "", *body, "", *said, ""]


def as_json(results: Sequence[PlanResult], top: int) -> dict[str, object]:
    """The JSON object: one answer at top level, several under ``runs``."""
    data = _result_json(results[0], top) if len(results) == 1 else {"runs": _runs_json(results, top)}
    fits = all(result.rows for result in results)
    return output.success("plan", {"fits": fits, **data}) | ({} if fits else {"status": "no"})


def layout_name(row: PlanRow) -> str:
    """Degrees above 1 and what is not the default: ``tp8 pp4 vpp2 dp32 mb1 zero1``."""
    degrees = (("tp", row.tensor), ("pp", row.pipeline), ("vpp", row.chunks), ("cp", row.context))
    words = [f"{name}{value}" for name, value in (*degrees, ("ep", row.expert)) if value > 1]
    words += [f"dp{row.data}", f"mb{row.micro_batch}", row.sharding]
    words += [f"recompute {row.recompute}"] if row.recompute != "none" else []
    words += [row.schedule] if row.schedule not in ("", "1f1b", "interleaved") else []
    return " ".join(words)


def _headline(result: PlanResult) -> str:
    work = (
        f"{result.global_batch:,} × {result.sequence:,} tokens a step, {result.precision}, {result.optimizer}"
    )
    return f"train {result.model} on {result.chip_title}: {work}"


def _row(row: PlanRow) -> tuple[str, ...]:
    step = row.step_time_s
    (value, low, high), unit = numbers(Unit.SECONDS, (step.value, step.low, step.high))
    return (
        layout_name(row),
        f"{value} {unit}",
        f"{low} – {high} {unit}",
        units.count(round(row.tokens_per_s_per_gpu.value)),
        units.percent(row.mfu.value),
        units.percent(row.parts.exposed_comm_s / step.value, 2) if row.parts.exposed_comm_s else "",
        units.percent(row.parts.bubble_s / step.value, 2) if row.parts.bubble_s else "",
        units.gib(row.peak_bytes.value),
    )


def _details(result: PlanResult, best: PlanRow, width: int) -> list[str]:
    parts = [(label(key), getattr(best.parts, key)) for key in PART_KEYS]
    spent = ", ".join(
        f"{name} {units.percent(seconds / best.step_time_s.value, 2)}"
        for name, seconds in parts
        if seconds > 0.0005 * best.step_time_s.value
    )
    shares = ", ".join(
        f"{units.percent(share, 2)} {source}" for source, share in best.step_time_s.shares if share >= 0.005
    )
    looked = f"looked at {result.considered:,} layouts: {result.fitting:,} surely fit, {result.priced:,} simulated; "
    looked += (
        f"one of the rest could be up to {units.percent(result.unpriced_gain, 2)} faster (--effort)"
        if result.unpriced_gain
        else "none of the rest can be faster"
    )
    memory = best.peak_bytes
    notes = [
        f"{units.decimal(best.tokens_per_s.value, 'tokens/s')} in all; MFU of {result.mfu_peak}, full "
        f"attention; {units.percent(best.mfu_causal.value)} if causal",
        f"best: {spent}",
        f"memory: {units.significant(memory.low / units.GIB)} – {units.gib(memory.high)} of "
        f"{units.gib(result.usable_bytes)} usable on the fullest card",
        f"step time rests on: {shares}",
        looked,
        *([f"not looked at: {result.left_out}"] if result.left_out else []),
    ]
    return [piece for note in notes for piece in output.wrapped(note, width)]


def _nothing_fits(result: PlanResult) -> str:
    need = result.least_bytes
    least = (
        f"the thriftiest of {result.considered:,} layouts needs up to {units.gib(need.high)} a card"
        if need
        else ""
    )
    return f"nothing fits: {least}, {units.gib(result.usable_bytes)} are usable"


def _megatron(row: PlanRow, result: PlanResult) -> str:
    words = [f"--tensor-model-parallel-size {row.tensor}", f"--pipeline-model-parallel-size {row.pipeline}"]
    words += ["--sequence-parallel"] if row.tensor > 1 else []
    words += [f"--num-virtual-stages-per-pipeline-rank {row.chunks}"] if row.chunks > 1 else []
    words += [f"--context-parallel-size {row.context}"] if row.context > 1 else []
    words += [f"--expert-model-parallel-size {row.expert}"] if row.expert > 1 else []
    words += [f"--micro-batch-size {row.micro_batch} --global-batch-size {result.global_batch}"]
    words += ["--use-distributed-optimizer"] if row.sharding == "zero1" else []
    if row.recompute == "full":
        words.append("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1")
    elif row.recompute == "selective":
        words.append("--recompute-granularity selective")
    return f"as options of Megatron-LM: {' '.join(words)}"


def _torchtitan(row: PlanRow, result: PlanResult) -> str:
    degrees = (
        ("tensor_parallel", row.tensor),
        ("pipeline_parallel", row.pipeline),
        ("context_parallel", row.context),
        ("expert_parallel", row.expert),
    )
    words = [f"--parallelism.data_parallel_shard_degree {row.data}"]
    words += [f"--parallelism.{name}_degree {value}" for name, value in degrees if value > 1]
    # without a pipeline micro-batches are gradient accumulation, which is not part of the local batch
    local = row.micro_batch * (row.micro_batches if row.pipeline > 1 else 1)
    words += [f"--training.local_batch_size {local}"]
    words += [f"--training.global_batch_size {result.global_batch}"]
    return f"as options of TorchTitan: {' '.join(words)}"


def _scaling_row(result: PlanResult, base: PlanResult | None) -> tuple[str, ...]:
    best = result.best
    if best is None or base is None or base.best is None:
        return (f"{result.cards:,}", "nothing fits", *[""] * 9)
    efficiency = best.tokens_per_s_per_gpu.value / base.best.tokens_per_s_per_gpu.value
    step_s = best.step_time_s.value
    return (
        f"{result.cards:,}",
        layout_name(best),
        units.seconds(step_s),
        units.decimal(best.tokens_per_s.value, ""),
        units.count(round(best.tokens_per_s_per_gpu.value)),
        units.percent(best.mfu.value),
        units.percent(efficiency),
        bar(efficiency),
        units.percent(best.parts.exposed_comm_s / step_s, 2) if best.parts.exposed_comm_s else "",
        units.percent(best.parts.bubble_s / step_s, 2) if best.parts.bubble_s else "",
        units.gib(best.peak_bytes.value),
    )


def _runs_json(results: Sequence[PlanResult], top: int) -> list[dict[str, object]]:
    base = next((result.best for result in results if result.best), None)
    runs = []
    for result in results:
        data = _result_json(result, top)
        if result.best is not None and base is not None:
            data["efficiency"] = result.best.tokens_per_s_per_gpu.value / base.tokens_per_s_per_gpu.value
        runs.append(data)
    return runs


def _result_json(result: PlanResult, top: int) -> dict[str, object]:
    kept = asdict(replace(result, rows=(), least_bytes=None))
    del kept["rows"], kept["least_bytes"], kept["chip_title"]
    if result.least_bytes is not None:
        kept["least_bytes"] = result.least_bytes.to_dict()
    best = _row_json(result.rows[0]) if result.rows else {}
    return {**kept, **best, "layouts": [_row_json(row) for row in result.rows[:top]]}


def _row_json(row: PlanRow) -> dict[str, object]:
    estimates = ("step_time_s", "tokens_per_s_per_gpu", "tokens_per_s", "mfu", "mfu_causal")
    names = ("tensor", "pipeline", "chunks", "context", "expert", "data", "micro_batch", "micro_batches")
    words = ("schedule", "recompute", "sharding")
    found: dict[str, object] = {name: getattr(row, name) for name in (*names, *words)}
    for name in estimates:
        value: Estimate = getattr(row, name)
        found[name] = value.to_dict()
    found.update({key: getattr(row.parts, key) for key in PART_KEYS})
    found["peak_reserved_bytes"] = row.peak_bytes.to_dict()
    return found
