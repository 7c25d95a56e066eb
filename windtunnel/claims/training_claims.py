"""Claims about model FLOPs utilisation in training, with the layouts searched."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.claims.arithmetic import kernel_lines
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.prices import S5000, plan, plan_command
from windtunnel.claims.region import Region, Turn, solve, table
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision, Recompute, Sharding
from windtunnel.results.plan_result import PlanResult, PlanRow

PRESS = "mthreads.com KUAE pages and press, 2025 to March 2026"
GROUP = "The cluster"
PEAK = 500e12
DENSE, DENSE_MFU = "llama3-70b", 0.60
MOE, MOE_MFU = "deepseek-v2-236b", 0.40
MOE_SPACE = Space(
    tensor=4,
    pipeline=2,
    chunks=6,
    context=1,
    expert=32,
    micro_batch=1,
    recompute=Recompute.NONE,
    sharding=Sharding.ZERO1,
    overlap_experts=True,
)
"""What `windtunnel plan deepseek-v2-236b --on mtt-s5000:1024 --global-batch 4096 --overlap-ep` finds best."""
MOE_OPTIONS = "--tp 4 --pp 2 --vpp 6 --ep 32 --micro-batch 1 --recompute none --zero1 --overlap-ep"
OPEN_MOE = replace(MOE_SPACE, recompute=None)
"""The same, recomputing what memory asks for."""
DENSE_SPACE = Space(tensor=4, pipeline=1, sharding=Sharding.FSDP)
"""The layout that the search over all finds best on 1,024 cards; quantities are solved for inside it."""


def layout_words(row: PlanRow) -> str:
    """Degrees above one, as TP4 DP256."""
    parts = [
        ("TP", row.tensor),
        ("PP", row.pipeline),
        ("CP", row.context),
        ("EP", row.expert),
        ("DP", row.data),
    ]
    return " ".join(f"{name}{value}" for name, value in parts if value > 1)


def _best(
    model: str, cards: int, batch: int, sequence: int, precision: Precision, space: Space, *changed: str
) -> PlanRow | None:
    """The best layout, or None where nothing fits or multiplies up."""
    try:
        return plan(model, S5000, cards, batch, sequence, precision, space, changed).best
    except WindtunnelError:
        return None


def _settings(
    model: str, runs: tuple[tuple[int, int, int], ...], space: Space, options: str
) -> tuple[Setting, ...]:
    settings = []
    for cards, batch, sequence in runs:
        if (best := _best(model, cards, batch, sequence, Precision.BF16, space)) is None:
            continue
        command = plan_command(model, S5000, cards, batch, sequence, options)
        what = f"{cards:,} cards, {batch:,} × {sequence:,} tokens, {layout_words(best)}"
        for convention, mfu in (("full attention", best.mfu), ("causal half", best.mfu_causal)):
            settings.append(Setting(label=f"{what}; {convention} counted", prediction=mfu, command=command))
    return tuple(settings)


def _breakdown(found: PlanResult) -> tuple[str, ...]:
    if (best := found.best) is None:
        return ("nothing fits",)
    shares = (
        (name, getattr(best.parts, name))
        for name in ("compute_s", "exposed_comm_s", "bubble_s", "host_gap_s", "optimizer_s")
    )
    rate = best.tokens_per_s_per_gpu.value
    return (
        f"{found.model_flops_per_token / 1e9:,.0f} GFLOP a token × {rate:,.0f} tokens/s/card "
        f"= {found.model_flops_per_token * rate / 1e12:,.0f} TFLOP/s of {found.mfu_peak}",
        "step: "
        + ", ".join(
            f"{name.removesuffix('_s').replace('_', ' ')} {value:.2f} s" for name, value in shares if value
        ),
        f"looked at {found.considered:,} layouts, {found.fitting:,} fit, {found.priced} simulated",
    )


def _of_500(row: PlanRow | None, found: PlanResult) -> float | None:
    """MFU of 500 TFLOP/s, whatever peak the prediction was made with."""
    return None if row is None else row.tokens_per_s_per_gpu.value * found.model_flops_per_token / PEAK


def _turns(
    model: str, cards: int, batch: int, sequence: int, space: Space, figure: float
) -> tuple[Turn, ...]:
    def mfu(*changed: str) -> float | None:
        found = plan(model, S5000, cards, batch, sequence, Precision.BF16, space, changed)
        return _of_500(found.best, found)

    now = mfu() or 0.0

    def moved(
        quantity: str, unit: str, now: float, scale: float, field: str, better: float, worse: float
    ) -> Turn:
        return solve(
            quantity,
            unit,
            now,
            better=better,
            worse=worse,
            figure=figure,
            predict=lambda value: mfu(f"{field}={value * scale}"),
        )

    return (
        moved(
            "rate of BF16 products, as a peak of which they get what they get now",
            "TFLOP/s",
            500.0,
            1e12,
            "peak_flops.bf16",
            2000.0,
            125.0,
        ),
        moved("MTLink of a card, one way", "GB/s", 392.0, 1e9, "link_bytes_per_s", 3920.0, 39.2),
        moved("network card", "GB/s", 50.0, 1e9, "nic_bytes_per_s", 500.0, 5.0),
        moved("memory bandwidth", "TB/s", 1.6, 1e12, "memory_bytes_per_s", 16.0, 0.16),
        solve(
            "peak that MFU is counted against",
            "TFLOP/s",
            500.0,
            better=50.0,
            worse=2000.0,
            predict=lambda peak: now * 500.0 / peak,
            figure=figure,
        ),
    )


def _dense_regions() -> tuple[Region, ...]:
    columns = (
        ("4K tokens", (4096, Precision.BF16, False)),
        ("8K tokens", (8192, Precision.BF16, False)),
        ("8K, TP beside products", (8192, Precision.BF16, True)),
        ("8K, FP8 products, of 500", (8192, Precision.FP8, False)),
    )
    layouts = tuple(
        (f"TP{tensor} PP{stages}", (tensor, stages)) for tensor in (1, 2, 4, 8) for stages in (1, 8)
    )

    def layout(row: tuple[int, int], column: tuple[int, Precision, bool]) -> Estimate | None:
        sequence, precision, overlap = column
        space = Space(tensor=row[0], pipeline=row[1], overlap_tensor=overlap)
        best = _best(DENSE, 1024, 1024, sequence, precision, space)
        return None if best is None else best.mfu.scaled(2.0 if precision is Precision.FP8 else 1.0)

    def batch(cards: int, a_card: float) -> Estimate | None:
        space = Space(tensor=8, pipeline=1, sharding=Sharding.FSDP)
        best = _best(DENSE, cards, int(cards * a_card), 8192, Precision.BF16, space)
        return None if best is None else best.mfu

    return (
        table(
            "MFU on 1,024 cards, 1,024 sequences a step, by layout",
            "sequence and precision",
            layouts,
            columns,
            layout,
        ),
        table(
            "MFU of TP8 with sharded parameters, 8K tokens in BF16",
            "sequences a step for each card",
            tuple((f"{n:,} cards", n) for n in (64, 256, 1024, 10_240)),
            tuple((f"{n:g}", n) for n in (0.125, 0.25, 1.0, 4.0)),
            batch,
        ),
    )


def _dense_mfu() -> Answer:
    runs = ((64, 256, 4096), (1024, 1024, 4096), (1024, 1024, 8192))
    of = (1024, 1024, 8192)
    air = plan(DENSE, "mtt-s5000-air", *of, Precision.BF16, DENSE_SPACE).best
    eight = _best(DENSE, *of, Precision.FP8, DENSE_SPACE)
    chosen = plan(DENSE, S5000, *of)
    varied = [
        (
            "the peak is 500 TFLOP/s",
            "465, as the maker's own training patch has it",
            _scaled(chosen.best, 500 / 465),
        ),
        (
            "the liquid-cooled card",
            "the air-cooled card and its own peak (460)",
            None if air is None else air.mfu,
        ),
        ("BF16", "FP8 products, MFU of the FP8 peak", None if eight is None else eight.mfu),
        ("BF16", "FP8 products, MFU of the BF16 peak", _scaled(eight, 2.0)),
        (
            "links as measured",
            "half the MTLink bandwidth",
            _mfu(DENSE, of, DENSE_SPACE, "link_bytes_per_s=196e9"),
        ),
        (
            "links as measured",
            "a 200 Gb/s network card",
            _mfu(DENSE, of, DENSE_SPACE, "nic_bytes_per_s=25e9"),
        ),
        (
            "AdamW, no recomputation unless memory asks for it",
            "everything recomputed",
            _mfu(DENSE, of, replace(DENSE_SPACE, recompute=Recompute.FULL)),
        ),
        (
            "full attention counted",
            "the causal half",
            None if chosen.best is None else chosen.best.mfu_causal,
        ),
    ]
    return Answer(
        settings=_settings(DENSE, runs, Space(), ""),
        variations=_varied(varied),
        regions=_dense_regions(),
        turns=_turns(DENSE, *of, DENSE_SPACE, DENSE_MFU),
        would_take="products at their best measured rate, and all else together under a sixth of the step",
        why=(*_breakdown(chosen), *kernel_lines(DENSE, *of, DENSE_SPACE, S5000)),
    )


def _scaled(row: PlanRow | None, factor: float) -> Estimate | None:
    return None if row is None else row.mfu.scaled(factor)


def _mfu(model: str, of: tuple[int, int, int], space: Space, *changed: str) -> Estimate | None:
    best = _best(model, *of, Precision.BF16, space, *changed)
    return None if best is None else best.mfu


def _varied(pairs: list[tuple[str, str, Estimate | None]]) -> tuple[Variation, ...]:
    return tuple(
        Variation(of=of, becomes=becomes, prediction=found)
        for of, becomes, found in pairs
        if found is not None
    )


def _moe_regions() -> tuple[Region, ...]:
    columns = (
        ("exchange hidden", (True, 1.0)),
        ("hidden, busiest rank × 1.3", (True, 1.3)),
        ("exchange not hidden", (False, 1.0)),
    )
    layouts = tuple(
        (f"TP{tensor} PP{stages} EP{expert}", (tensor, stages, expert))
        for tensor in (1, 4)
        for stages in (2, 8)
        for expert in (8, 32)
    )

    def layout(row: tuple[int, int, int], column: tuple[bool, float]) -> Estimate | None:
        space = Space(
            tensor=row[0],
            pipeline=row[1],
            expert=row[2],
            micro_batch=1,
            context=1,
            sharding=Sharding.ZERO1,
            recompute=Recompute.NONE if row[0] > 1 else None,
            overlap_experts=column[0],
            imbalance=column[1],
        )
        return _mfu(MOE, (1024, 4096, 4096), space)

    def size(cards: int, batch: int) -> Estimate | None:
        return _mfu(MOE, (cards, batch, 4096), OPEN_MOE)

    return (
        table(
            "MFU on 1,024 cards, 4,096 × 4,096 tokens, BF16, by layout",
            "experts' exchange",
            layouts,
            columns,
            layout,
        ),
        table(
            "MFU of TP4 PP2 EP32, exchange hidden",
            "sequences of 4,096 tokens a step",
            tuple((f"{n:,} cards", n) for n in (256, 512, 1024, 2048)),
            tuple((f"{n:,}", n) for n in (1024, 2048, 4096, 8192)),
            size,
        ),
    )


def _moe_mfu() -> Answer:
    of = (1024, 4096, 4096)
    chosen = plan(MOE, S5000, *of, Precision.BF16, MOE_SPACE)
    eight = _best(MOE, *of, Precision.FP8, OPEN_MOE)
    varied = [
        (
            "experts' exchange beside another micro-batch",
            "not hidden",
            _mfu(MOE, of, replace(MOE_SPACE, overlap_experts=False)),
        ),
        (
            "balanced routing",
            "busiest expert rank 1.3 × the mean",
            _mfu(MOE, of, replace(MOE_SPACE, imbalance=1.3)),
        ),
        (
            "balanced routing",
            "busiest expert rank twice the mean",
            _mfu(MOE, of, replace(OPEN_MOE, imbalance=2.0)),
        ),
        ("BF16", "FP8 products, MFU of the FP8 peak", None if eight is None else eight.mfu),
        (
            "full attention counted",
            "the causal half",
            None if chosen.best is None else chosen.best.mfu_causal,
        ),
        (
            "the peak is 500 TFLOP/s",
            "465, as the maker's own training patch has it",
            _scaled(chosen.best, 500 / 465),
        ),
        ("links as measured", "a 200 Gb/s network card", _mfu(MOE, of, MOE_SPACE, "nic_bytes_per_s=25e9")),
    ]
    return Answer(
        settings=_settings(MOE, ((256, 1024, 4096), of), MOE_SPACE, MOE_OPTIONS),
        variations=_varied(varied),
        regions=_moe_regions(),
        turns=_turns(MOE, *of, MOE_SPACE, MOE_MFU),
        would_take="the all-to-all of the experts hidden behind another micro-batch, and balanced routing",
        why=(*_breakdown(chosen), *kernel_lines(MOE, *of, MOE_SPACE, S5000)),
    )


CLAIMS = (
    Claim(
        name="dense-mfu",
        group=GROUP,
        title="Dense training at 60 % MFU",
        says=Says.AT_LEAST,
        figure=DENSE_MFU,
        unit="MFU",
        wording="dense training at 60 % MFU (Llama-3-70B above 60 %)",
        said=PRESS,
        workload="Llama-3-70B",
        assumed=(
            "BF16",
            "the peak is 500 TFLOP/s",
            "full attention counted",
            "the liquid-cooled card",
            "links as measured",
            "AdamW, no recomputation unless memory asks for it",
        ),
        command=plan_command(DENSE, S5000, 1024, 1024, 8192),
        evaluate=_dense_mfu,
    ),
    Claim(
        name="moe-mfu",
        group=GROUP,
        title="MoE training at about 40 % MFU",
        says=Says.AT_LEAST,
        figure=MOE_MFU,
        unit="MFU",
        wording="MoE around 40 % (DeepSeek-236B)",
        said=PRESS,
        workload="DeepSeek-V2 236B",
        assumed=(
            "BF16",
            "the peak is 500 TFLOP/s",
            "full attention counted",
            "balanced routing",
            "experts' exchange beside another micro-batch",
            "links as measured",
        ),
        command=plan_command(MOE, S5000, 1024, 4096, 4096, MOE_OPTIONS),
        evaluate=_moe_mfu,
    ),
)
