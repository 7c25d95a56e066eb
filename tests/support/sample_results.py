# ruff: noqa: E501  (tables)
"""Made-up but consistent results for tests of reports: shapes of real models, round prices, no cost model.

``training()`` is a Llama-like 32-layer step on eight cards; the others are its relatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from windtunnel.estimate import Estimate, Source
from windtunnel.program.program import Notice, NoticeKind, Outcome, StepKind
from windtunnel.results.run_result import (
    Ceiling,
    Communication,
    LanePiece,
    LiveStorage,
    LongRun,
    LongRunInput,
    MemoryResult,
    NearestMeasured,
    OpRow,
    RankResult,
    RunResult,
    ScalingPoint,
    Sensitivity,
    Span,
    StepParts,
)

GIB = 1024**3
LAYERS = 32
PEAK, BANDWIDTH = 989.4e12, 3.35e12
TOKENS = 8192

# name, family, module, line, shapes, milliseconds forward, FLOPs, bytes, precision, limit, source
_LAYER: tuple[tuple[str, str, str, int, str, float, float, float, str, Source], ...] = (
    ("aten.mm", "gemm", "self_attn.q_proj", 60, "8192×4096 @ 4096×4096", 0.42, 2.75e11, 1.7e8, "compute", Source.CALIBRATED),
    ("aten.mm", "gemm", "self_attn.k_proj", 61, "8192×4096 @ 4096×1024", 0.12, 6.9e10, 9.2e7, "compute", Source.CALIBRATED),
    ("aten.mm", "gemm", "self_attn.v_proj", 62, "8192×4096 @ 4096×1024", 0.12, 6.9e10, 9.2e7, "compute", Source.CALIBRATED),
    ("windtunnel.rotary", "pointwise", "self_attn", 71, "8192×32×128", 0.08, 0.0, 1.7e8, "memory", Source.ANALYTIC),
    ("aten._scaled_dot_product_flash_attention", "attention", "self_attn", 74, "1×32×8192×128", 2.1, 5.5e11, 1.7e8, "compute", Source.CALIBRATED),
    ("aten.mm", "gemm", "self_attn.o_proj", 80, "8192×4096 @ 4096×4096", 0.42, 2.75e11, 1.7e8, "compute", Source.CALIBRATED),
    ("windtunnel.rms_norm", "norm", "input_layernorm", 31, "8192×4096", 0.05, 0.0, 1.3e8, "memory", Source.ANALYTIC),
    ("windtunnel.rms_norm", "norm", "post_attention_layernorm", 31, "8192×4096", 0.05, 0.0, 1.3e8, "memory", Source.ANALYTIC),
    ("aten.mm", "gemm", "mlp.gate_proj", 95, "8192×4096 @ 4096×14336", 1.45, 9.62e11, 4.2e8, "compute", Source.CALIBRATED),
    ("aten.mm", "gemm", "mlp.up_proj", 96, "8192×4096 @ 4096×14336", 1.45, 9.62e11, 4.2e8, "compute", Source.CALIBRATED),
    ("windtunnel.swiglu", "pointwise", "mlp", 97, "8192×14336", 0.26, 0.0, 7.0e8, "memory", Source.ANALYTIC),
    ("aten.mm", "gemm", "mlp.down_proj", 98, "8192×14336 @ 14336×4096", 1.45, 9.62e11, 4.2e8, "compute", Source.CALIBRATED),
    ("aten.add.Tensor", "pointwise", "", 110, "8192×4096", 0.07, 0.0, 2.0e8, "memory", Source.ANALYTIC),
)  # fmt: skip


def _row(name: str, family: str, phase: str, module: str, line: str, ms: float, **more: object) -> OpRow:
    values: dict[str, object] = {
        "stream": "default",
        "shapes": "",
        "count": 1,
        "flops": 0.0,
        "bytes_moved": 1e8,
        "precision": "bf16",
        "limit": "memory",
        "source": Source.ANALYTIC,
        "formula": "1.00e+08 B ÷ (3.35 TB/s × 0.82) + 2.0 µs",
        **more,
    }
    seconds = ms * 1e-3
    return OpRow(
        name=name,
        family=family,
        phase=phase,
        module=module,
        line=line,
        seconds=seconds,
        low_s=seconds * 0.92,
        high_s=seconds * 1.09,
        **values,  # type: ignore[arg-type]
    )


def _layer_ops(layer: int) -> Iterator[OpRow]:
    for name, family, place, line, shapes, ms, flops, size, limit, source in _LAYER:
        module = f"model.layers.{layer}" + (f".{place}" if place else "")
        for phase, factor in (("forward", 1), ("backward", 2)):
            backward = phase == "backward"
            seconds = ms * factor * 1e-3
            yield _row(
                name if not (backward and family == "attention") else name + "_backward",
                "attention_backward" if backward and family == "attention" else family,
                phase,
                module,
                f"model.py:{line}",
                ms * factor,
                shapes=shapes,
                count=factor,
                flops=flops * factor,
                bytes_moved=size * factor,
                limit=limit,
                source=source,
                formula=f"{flops:.3g} FLOP ÷ (989.4 TFLOP/s × 0.66 × 0.98) + 2.0 µs",
                peak_fraction=flops * factor / seconds / PEAK,
                bandwidth_fraction=size * factor / seconds / BANDWIDTH,
            )


def _other_ops() -> Iterator[OpRow]:
    yield _row("aten.embedding", "embedding", "forward", "model.embed_tokens", "model.py:201", 0.3)
    flops = 2 * TOKENS * 4096 * 128256.0
    for phase, factor in (("forward", 1), ("backward", 2)):
        yield _row(
            "aten.mm", "gemm", phase, "lm_head", "model.py:240", 13.2 * factor, flops=flops * factor,
            bytes_moved=3.2e9 * factor, limit="compute", source=Source.CALIBRATED,
            peak_fraction=flops / 13.2e-3 / PEAK, bandwidth_fraction=0.07,
        )  # fmt: skip
        yield _row("aten._log_softmax", "softmax", phase, "", "train.py:140", 4.1, bytes_moved=8.4e9)
    yield _row("aten._fused_adamw_", "optimizer", "optimizer", "", "train.py:144", 9.8, count=9,
               bytes_moved=2.8e10, precision="fp32")  # fmt: skip
    yield _row("aten._to_copy", "host_copy", "other", "", "train.py:131", 0.05, limit="network")
    for name, calls, ms in (("all_gather", 66, 84.0), ("reduce_scatter", 33, 71.0), ("all_reduce", 1, 0.1)):
        yield _row(
            f"c10d.{name}", "collective", "backward", "", "train.py:142", ms, count=calls, stream="nccl 0",
            limit="network", source=Source.CALIBRATED, flops=0.0, bytes_moved=1.6e10,
        )  # fmt: skip


def _timeline(ops: tuple[OpRow, ...]) -> tuple[tuple[Span, ...], float]:
    """Compute one after another, a host call before each, communication beside the backward pass."""
    spans, host_s, card_s = [], 0.0, 0.0
    for number, op in enumerate(ops):
        if op.family == "collective":
            continue
        spans.append(Span(0, host_s, 9e-6, number))
        host_s += 1.2e-5
        start_s = max(card_s, host_s)
        spans.append(Span(1, start_s, op.seconds, number, critical=True))
        card_s = start_s + op.seconds
    comm_s = 0.1
    for number, op in enumerate(ops):
        if op.family == "collective":
            for _ in range(op.count):
                spans.append(Span(2, comm_s, op.seconds / op.count, number))
                comm_s += op.seconds / op.count * 1.5
    return tuple(spans), card_s


CATEGORIES = ("parameter", "gradient", "optimizer_state", "activation", "temporary", "input")


def _memory(scale: float = 1.0, usable: int = int(79.1 * GIB)) -> MemoryResult:
    steps = 240
    rows = []
    for index in range(steps + 1):
        at = index / steps
        forward = min(1.0, at / 0.35)
        backward = min(1.0, max(0.0, (at - 0.35) / 0.6))
        sizes = (
            5.5, 3.7 * backward, 7.5, 29.4 * forward * (1 - backward) * scale, 1.2 + 0.3 * (index % 3), 0.01,
        )  # fmt: skip
        reserved = max(sum(sizes) + 2.1, rows[-1][2] / GIB if rows else 0.0)
        rows.append((at, tuple(int(size * GIB) for size in sizes), int(reserved * GIB)))
    peak = max(rows, key=lambda row: sum(row[1]))
    reserved_bytes = max(row[2] for row in rows)
    fits = reserved_bytes <= usable
    return MemoryResult(
        peak_reserved_bytes=Estimate.within(reserved_bytes, 0.03, Source.ANALYTIC),
        peak_active_bytes=Estimate.exact(sum(peak[1])),
        usable_bytes=usable,
        total_bytes=80 * GIB,
        fits=fits,
        peak_by_category=tuple(zip(CATEGORIES, peak[1])),
        peak_at="train.py:142",
        largest=(
            LiveStorage(bytes=int(7.84 * GIB), count=4, category="activation", line="train.py:140",
                        module="lm_head", op="aten._log_softmax"),
            LiveStorage(bytes=96 * 112 * 1024**2, count=96, category="activation", line="model.py:97",
                        module="model.layers.*.mlp", op="windtunnel.swiglu"),
            LiveStorage(bytes=64 * 64 * 1024**2, count=64, category="activation", line="model.py:110",
                        module="model.layers.*", op="aten.add.Tensor"),
            LiveStorage(bytes=int(0.98 * GIB), count=1, category="parameter", line="model.py:201",
                        module="model.embed_tokens", op="aten.empty"),
        ),
        categories=CATEGORIES,
        timeline=tuple(rows),
        out_of_memory_at="" if fits else "train.py:142 (aten.mm)",
    )  # fmt: skip


@cache
def training() -> RunResult:
    """One training step of an 8B model on eight H100, sharded by FSDP."""
    ops = (*(op for layer in range(LAYERS) for op in _layer_ops(layer)), *_other_ops())
    spans, card_s = _timeline(ops)
    compute_s = sum(op.seconds for op in ops if op.family not in ("collective", "optimizer", "host_copy"))
    optimizer_s, io_s = 9.8e-3, 0.05e-3
    exposed_s, gap_s = 0.02, max(0.0, card_s - compute_s - optimizer_s - io_s)
    parts = StepParts(
        compute_s=compute_s,
        exposed_comm_s=exposed_s,
        host_gap_s=gap_s,
        optimizer_s=optimizer_s,
        io_s=io_s,
    )
    step = Estimate(
        parts.total_s, parts.total_s * 0.94, parts.total_s * 1.08,
        ((Source.CALIBRATED, 0.905), (Source.ANALYTIC, 0.092), (Source.ASSUMED, 0.003)),
    )  # fmt: skip
    flops = 57.9e9 * TOKENS
    mfu = step.inverse(flops / PEAK)
    return RunResult(
        chip="h100-sxm",
        chip_title="NVIDIA H100 SXM 80 GB",
        cards=8,
        step_kind=StepKind.TRAIN,
        step_time_s=step,
        parts=parts,
        tokens_per_step=8 * TOKENS,
        samples_per_step=8,
        tokens_per_s_per_gpu=step.inverse(TOKENS),
        model_flops_per_step=flops,
        model_flops_per_step_causal=flops * 0.89,
        hardware_flops_per_step=flops,
        model_flops_per_token=57.9e9,
        model_tflops_per_gpu=step.inverse(flops / 1e12),
        mfu=mfu,
        mfu_causal=mfu.scaled(0.89),
        hfu=mfu,
        mbu=step.inverse(6.1e11 / BANDWIDTH),
        mfu_peak="bf16 989 TFLOP/s",
        memory=_memory(),
        ops=ops,
        spans=spans,
        tracks=("host", "stream default", "stream nccl 0"),
        communication=(
            Communication(collective="all_gather", group="fsdp", ranks=8, count=66, bytes=3.2e10, seconds=0.084,
                          exposed_s=0.012, algbw_bytes_per_s=3.8e11, busbw_bytes_per_s=3.33e11),
            Communication(collective="reduce_scatter", group="fsdp", ranks=8, count=33, bytes=1.6e10,
                          seconds=0.071, exposed_s=0.008, algbw_bytes_per_s=2.3e11, busbw_bytes_per_s=2.0e11),
            Communication(collective="all_reduce", group="world", ranks=8, count=1, bytes=4.0, seconds=1e-4,
                          exposed_s=0.0, algbw_bytes_per_s=4e4, busbw_bytes_per_s=7e4),
        ),
        sensitivities=(
            Sensitivity("HBM bandwidth", "+20 %", step.value * 0.972),
            Sensitivity("HBM bandwidth", "-20 %", step.value * 1.041),
            Sensitivity("matmul peak", "+20 %", step.value * 0.893),
            Sensitivity("launch cost", "-50 %", step.value * 0.995),
        ),
        steps=(("train", step.value * 1.3), ("train", step.value), ("train", step.value)),
        notices=(
            Notice(NoticeKind.PRETENDED, "torch.cuda.is_available() → True", "train.py:12", 3),
            Notice(NoticeKind.PRETENDED, '.to("cuda") → the virtual card', "train.py:98", 2),
            *(
                Notice(NoticeKind.PRETENDED, f"torch.cuda.nvtx.range_push answered at place {i}", f"train.py:{i}")
                for i in range(150, 157)
            ),
            Notice(NoticeKind.ASSUMED, "loss.item() → 1.0: the value does not exist without data", "train.py:146", 3),
            Notice(NoticeKind.UNPRICED, "mylib::sparse_topk, 2.1 % of bytes moved", "model.py:88"),
        ),
        warnings=("6 matmul shapes (11 % of the step) lie outside the calibrated range of h100-sxm",),
        recorded_ops=41312,
        recorded_collectives=388,
        recorded_s=6.8,
        command="windtunnel run --on h100-sxm:8 train.py --config llama3_8b",
        program_hash="b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78",
        assumptions=("FP8 accumulator width: 14 bits",),
        ceilings=(
            Ceiling("bf16", PEAK, False, Source.DATASHEET),
            Ceiling("fp32", 66.9e12, False, Source.DATASHEET),
            Ceiling("HBM", BANDWIDTH, True, Source.DATASHEET),
        ),
        nearest_measured=(
            NearestMeasured(what="Llama-3-8B, FSDP 8, seq 8192", where="a public log, table 1", measured=1.31,
                            predicted=1.36, unit="s"),
        ),
        versions=(("windtunnel", "0.1.0"), ("torch", "2.13.0"), ("chip data", "2026.11")),
    )  # fmt: skip


def out_of_memory() -> RunResult:
    """The same with too large a batch: it stops at the operation that does not fit."""
    return replace(
        training(), memory=_memory(scale=2.6), outcome=Outcome.OUT_OF_MEMORY,
        outcome_detail="tried to allocate 3.9 GiB",
    )  # fmt: skip


def other_chip() -> RunResult:
    """The same program on a slower card without public calibration."""
    base = training()
    step = Estimate(base.step_time_s.value * 1.37, base.step_time_s.value * 1.2, base.step_time_s.value * 1.6,
                    ((Source.ANALYTIC, 0.7), (Source.ASSUMED, 0.3)))  # fmt: skip
    return replace(
        base,
        chip="mtt-s5000",
        chip_title="Moore Threads MTT S5000",
        step_time_s=step,
        parts=replace(base.parts, compute_s=base.parts.compute_s * 1.37 + 0.01, host_gap_s=0.013),
        tokens_per_s_per_gpu=step.inverse(TOKENS),
        model_tflops_per_gpu=step.inverse(base.model_flops_per_step / 1e12),
        mfu=step.inverse(base.model_flops_per_step / 1000e12),
        mfu_peak="bf16 1,000 TFLOP/s",
    )


@cache
def decode() -> RunResult:
    """A small decode step on one card: no communication, no optimizer, launch bound."""
    ops = tuple(replace(op, seconds=op.seconds * 1e-3, low_s=op.low_s * 1e-3, high_s=op.high_s * 1e-3)
                for op in training().ops if op.phase == "forward" and op.family != "collective")  # fmt: skip
    spans, _ = _timeline(ops)
    step = Estimate(0.0081, 0.0061, 0.0117, ((Source.DATASHEET, 0.6), (Source.ASSUMED, 0.4)))
    device_s = sum(op.seconds for op in ops)
    return replace(
        training(), cards=1, step_kind=StepKind.DECODE, step_time_s=step, ops=ops, spans=spans,
        parts=StepParts(compute_s=device_s, host_gap_s=step.value - device_s), tokens_per_step=1, samples_per_step=1,
        tokens_per_s_per_gpu=step.inverse(1.0), mfu=None, mfu_causal=None, hfu=None, model_tflops_per_gpu=None,
        mbu=step.inverse(0.0048), tracks=("host", "stream default"), communication=(), sensitivities=(),
        notices=(), warnings=(), assumptions=(), nearest_measured=(),
        steps=(("prefill", 0.061), *(("decode", 0.0079 + 1e-5 * i) for i in range(31))),
    )  # fmt: skip


@cache
def cluster() -> RunResult:
    """A pipeline of four stages on 64 cards, its scaling over four sizes, and a month of it."""
    base = training()
    step_s = base.step_time_s.value
    ranks = []
    for stage in range(4):
        waits_s = 0.05 * stage * step_s
        works_s = step_s * 0.4
        ranks.append(
            RankResult(
                rank=16 * stage, count=16, step_time_s=step_s, critical=stage == 3,
                parts=replace(base.parts, bubble_s=2 * waits_s, compute_s=base.parts.compute_s - 2 * waits_s),
                peak_reserved_bytes=(60 - 6 * stage) * GIB,
                lane=(LanePiece(waits_s, works_s, "forward"), LanePiece(waits_s + works_s, 0.02, "communication"),
                      LanePiece(waits_s + works_s + 0.02, works_s, "backward")),
                tracks=("host", "stream default"), names=("aten.mm", "c10d.send"),
                spans=() if stage == 3 else (Span(1, waits_s, works_s, 0, critical=True), Span(1, waits_s + works_s, 0.02, 1)),
            )
        )  # fmt: skip
    points = []
    for cards, efficiency in ((64, 1.0), (128, 0.97), (256, 0.91), (1024, 0.78)):
        slower = base.step_time_s.scaled(1 / efficiency)
        parts = replace(base.parts, exposed_comm_s=base.parts.exposed_comm_s + slower.value - step_s)
        points.append(
            ScalingPoint(
                cards=cards, step_time_s=slower, tokens_per_s_per_gpu=slower.inverse(TOKENS), mfu=base.mfu,
                efficiency=efficiency, parts=parts, peak_reserved_bytes=50 * GIB,
                limit="" if cards == 64 else "all_gather over 1,024", work_per_step=TOKENS * cards,
            )
        )  # fmt: skip
    month = LongRun(
        days=30.0, cards=64, histories=200, seed=0, tokens=Estimate.within(8e11, 0.1, Source.CALIBRATED),
        effective=Estimate(0.962, 0.951, 0.97, ((Source.ASSUMED, 1.0),)),
        failures=Estimate(14.2, 9.0, 19.0, ((Source.ASSUMED, 1.0),)),
        useful=0.962, stragglers=0.01, checkpoints=0.012, lost=0.009, restarts=0.007, checkpoint_interval_s=1800.0,
        inputs=(
            LongRunInput(what="time between failures of a card", value="50,700 h", source=Source.ASSUMED,
                         where="419 interruptions in 54 days on 16,384 H100, arXiv 2407.21783"),
            LongRunInput(what="restart after a failure", value="600 s", source=None, where="stated"),
        ),
    )  # fmt: skip
    return replace(base, cards=64, ranks=tuple(ranks), scaling=tuple(points), long_run=month)


def hostile() -> RunResult:
    """Names that a page must not run and a terminal must not obey."""
    evil = "<script>alert('x')</script>"
    ops = tuple(replace(op, module=f"{evil}.{op.module}", line=f'"><img src=x onerror=alert(1)>.py:{i}\x1b[31m')
                for i, op in enumerate(decode().ops[:20]))  # fmt: skip
    return replace(
        decode(), ops=ops, spans=(Span(0, 0.0, 1e-5, 3),), tracks=(f"host {evil}",), command=f"windtunnel run {evil}",
        chip_title=f"card {evil}", warnings=("</script><script>alert(2)</script>",),
        notices=(Notice(NoticeKind.PRETENDED, evil, "日本語のファイル.py:3\n"),),
    )  # fmt: skip
