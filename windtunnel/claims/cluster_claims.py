"""Claims about training on clusters of S5000s."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.prices import S5000, card, plan, plan_command, with_source
from windtunnel.estimate import Estimate, Source
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision, Recompute, Sharding
from windtunnel.results.plan_result import PlanResult, PlanRow
from windtunnel.timeline.goodput import Reliability, best_interval_s, simulate
from windtunnel.timeline.long_run import CARD_HOURS_PER_FAILURE, RESTART_S

PRESS = "mthreads.com KUAE pages and press, 2025 to March 2026"
GROUP = "The cluster"
CARDS = 10_240
HISTORIES = 40
STOP_S = 5.0
"""A checkpoint's standstill: a card's share of the state over PCIe, several times over (assumed)."""
MOE = Space(
    tensor=4, pipeline=2, chunks=6, context=1, expert=32, micro_batch=1, recompute=Recompute.NONE,
    sharding=Sharding.ZERO1, overlap_experts=True,
)  # fmt: skip
"""What `windtunnel plan deepseek-v2-236b --on mtt-s5000:1024 --global-batch 4096 --overlap-ep` finds best."""
MOE_OPTIONS = "--tp 4 --pp 2 --vpp 6 --ep 32 --micro-batch 1 --recompute none --zero1 --overlap-ep"


def _exaflops() -> Answer:
    chip = card()
    settings = tuple(
        Setting(
            label=f"{CARDS:,} cards × dense {name.upper()} peak",
            prediction=Estimate.exact(CARDS * chip.peak(name).value / 1e18, Source.DATASHEET),
        )
        for name in ("fp8", "bf16")
    )
    return Answer(
        settings=settings,
        would_take="the figure is FP8 at the data-sheet peak; in BF16 it is half of it",
        why=(f"{CARDS:,} × 1,000 TFLOP/s = 10.24 EFLOP/s",),
    )


def _mfu_settings(
    model: str, runs: tuple[tuple[int, int, int], ...], precision: Precision, space: Space
) -> tuple[Setting, ...]:
    settings = []
    for cards, batch, sequence in runs:
        found = plan(model, S5000, cards, batch, sequence, precision, space)
        if (best := found.best) is None:
            continue
        more = MOE_OPTIONS if space is MOE else ""
        command = plan_command(model, S5000, cards, batch, sequence, more)
        what = f"{cards:,} cards, {batch:,} × {sequence:,} tokens, {_layout(best)}"
        settings.append(
            Setting(label=f"{what}; full attention counted", prediction=best.mfu, command=command)
        )
        settings.append(
            Setting(label=f"{what}; causal half counted", prediction=best.mfu_causal, command=command)
        )
    return tuple(settings)


def _layout(row: PlanRow) -> str:
    parts = [
        ("TP", row.tensor),
        ("PP", row.pipeline),
        ("CP", row.context),
        ("EP", row.expert),
        ("DP", row.data),
    ]
    return " ".join(f"{name}{value}" for name, value in parts if value > 1)


def _breakdown(found: PlanResult) -> tuple[str, ...]:
    if (best := found.best) is None:
        return ("nothing fits",)
    parts = best.parts
    shares = (
        (name, getattr(parts, name))
        for name in ("compute_s", "exposed_comm_s", "bubble_s", "host_gap_s", "optimizer_s")
    )
    return (
        f"{found.model_flops_per_token / 1e9:,.0f} GFLOP a token × "
        f"{best.tokens_per_s_per_gpu.value:,.0f} tokens/s/card "
        f"= {found.model_flops_per_token * best.tokens_per_s_per_gpu.value / 1e12:,.0f} TFLOP/s of {found.mfu_peak}",
        "step: "
        + ", ".join(
            f"{name.removesuffix('_s').replace('_', ' ')} {value:.2f} s" for name, value in shares if value
        ),
        f"looked at {found.considered:,} layouts, {found.fitting:,} fit, {found.priced} simulated",
    )


def _dense_mfu() -> Answer:
    runs = ((64, 256, 4096), (1024, 1024, 4096), (1024, 1024, 8192))
    settings = _mfu_settings("llama3-70b", runs, Precision.BF16, Space())
    air = plan("llama3-70b", "mtt-s5000-air", 1024, 1024, 8192).best
    slow = plan("llama3-70b", S5000, 1024, 1024, 8192, overrides=("link_bytes_per_s=196e9",)).best
    return Answer(
        settings=settings,
        variations=_varied(
            ("the air-cooled card and its own peak (460)", air), ("half the MTLink bandwidth", slow)
        ),
        would_take="products at their best measured rate, and all else together under a sixth of the step",
        why=_breakdown(plan("llama3-70b", S5000, 1024, 1024, 8192)),
    )


def _moe_mfu() -> Answer:
    settings = _mfu_settings("deepseek-v2-236b", ((256, 1024, 4096), (1024, 4096, 4096)), Precision.BF16, MOE)
    plain = _moe(replace(MOE, overlap_experts=False)).best
    uneven = _moe(replace(MOE, imbalance=1.3)).best
    return Answer(
        settings=settings,
        variations=_varied(
            ("experts' exchange not hidden", plain), ("busiest expert rank 1.3 × the mean", uneven)
        ),
        would_take="the all-to-all of the experts hidden behind another micro-batch, and balanced routing",
        why=_breakdown(_moe(MOE)),
    )


def _moe(space: Space) -> PlanResult:
    return plan("deepseek-v2-236b", S5000, 1024, 4096, 4096, Precision.BF16, space)


def _varied(*pairs: tuple[str, PlanRow | None]) -> tuple[Variation, ...]:
    return tuple(Variation(assumption=name, prediction=row.mfu) for name, row in pairs if row is not None)


def _efficiency(
    model: str,
    sizes: tuple[int, int],
    batches: tuple[int, int],
    sequence: int,
    space: Space,
    overrides: tuple[str, ...] = (),
) -> Estimate | None:
    """Tokens/s/card on the larger cluster over the smaller. What is wrong in both cancels: only a quarter of the
    larger one's width is left (a convention), for the network that the smaller one does not have.
    """
    rows = [
        plan(model, S5000, n, batch, sequence, Precision.BF16, space, overrides).best
        for n, batch in zip(sizes, batches)
    ]
    if rows[0] is None or rows[1] is None:
        return None
    small, large = rows[0].tokens_per_s_per_gpu, rows[1].tokens_per_s_per_gpu
    value = large.value / small.value
    low = value * (1 - 0.25 * (1 - large.low / large.value))
    high = value * (1 + 0.25 * (large.high / large.value - 1))
    return with_source(Estimate(value, low, high, large.shares), large.source)


def _scaling(
    sizes: tuple[int, int], cases: tuple[tuple[str, str, tuple[int, int], int, Space], ...]
) -> Answer:
    settings = []
    for label, model, batches, sequence, space in cases:
        found = _efficiency(model, sizes, batches, sequence, space)
        if found is not None:
            weak = batches[1] > batches[0]
            scale = f"--scale {sizes[0]},{sizes[1]}{' --weak' if weak else ''}"
            command = f"windtunnel plan {model} --on {S5000} {scale} --global-batch {batches[0]} --sequence {sequence}"
            settings.append(
                Setting(label=label, prediction=found.scaled(100.0), bound=100.0, command=command)
            )
    _, model, batches, sequence, space = cases[0]
    slower = _efficiency(model, sizes, batches, sequence, space, ("nic_bytes_per_s=25e9",))
    return Answer(
        settings=tuple(settings),
        variations=(Variation(assumption="a 200 Gb/s network card", prediction=slower.scaled(100.0)),)
        if slower
        else (),
        would_take="a batch that grows with the cards, or exchange that stays hidden behind compute at a fixed one",
        why=(
            "each size takes its own best layout; efficiency = tokens/s/card over that of the smaller cluster",
        ),
    )


def _to_1024() -> Answer:
    return _scaling(
        (64, 1024),
        (
            ("Llama-3-70B, batch grows 256 → 4,096", "llama3-70b", (256, 4096), 4096, Space()),
            ("Llama-3-70B, fixed batch 1,024", "llama3-70b", (1024, 1024), 4096, Space()),
            ("Llama-3-8B, batch grows 256 → 4,096", "llama3-8b", (256, 4096), 4096, Space()),
        ),
    )


def _to_10240() -> Answer:
    return _scaling(
        (1024, CARDS),
        (
            ("Llama-3-70B, batch grows 1,024 → 10,240", "llama3-70b", (1024, 10_240), 4096, Space()),
            ("Llama-3-70B, fixed batch 10,240", "llama3-70b", (10_240, 10_240), 4096, Space()),
        ),
    )


def _effective_time() -> Answer:
    as_published = "failures as Llama 3's run had them, back in 15 min"
    settings = tuple(
        _goodput(cards, CARD_HOURS_PER_FAILURE, RESTART_S, as_published) for cards in (1024, CARDS)
    )
    frail = _goodput(CARDS, CARD_HOURS_PER_FAILURE / 3, RESTART_S, "")
    slow = _goodput(CARDS, CARD_HOURS_PER_FAILURE, 4 * RESTART_S, "")
    return Answer(
        settings=settings,
        variations=(
            Variation(assumption="cards fail three times as often", prediction=frail.prediction),
            Variation(assumption="an hour to be back after a failure", prediction=slow.prediction),
        ),
        would_take="failures no more frequent than on published H100 clusters, and a restart within minutes",
        why=(
            "419 interruptions in 54 days on 16,384 H100 (arXiv 2407.21783): "
            f"{CARD_HOURS_PER_FAILURE:,.0f} card hours each",
            f"a checkpoint stops training for {STOP_S:g} s (assumed); Young's interval between checkpoints",
        ),
    )


def _goodput(cards: int, card_hours: float, restart_s: float, what: str) -> Setting:
    every_s = max(best_interval_s(STOP_S, card_hours * 3600 / cards), 60.0)
    reliability = Reliability(
        card_hours_per_failure=card_hours, restart_s=restart_s, checkpoint_s=STOP_S,
        checkpoint_interval_s=every_s, straggler_sigma=0.0,
    )  # fmt: skip
    runs = sorted(
        simulate(30 * 86_400.0, cards, reliability, seed=n).effective_fraction * 100 for n in range(HISTORIES)
    )
    mean = sum(runs) / len(runs)
    low, high = runs[len(runs) // 10], runs[-1 - len(runs) // 10]
    prediction = Estimate(mean, min(low, mean), max(high, mean), ((Source.ASSUMED, 1.0),))
    command = f"windtunnel run --on mtt-s5000:{cards} --days 30 examples/train_gpt.py"
    return Setting(
        label=f"{cards:,} cards, 30 days, {what}", prediction=prediction, bound=100.0, command=command
    )


CLAIMS = (
    Claim(
        name="exaflops",
        group=GROUP,
        title="10 EFLOPS from ten thousand cards",
        says=Says.AT_LEAST,
        figure=10.0,
        unit="EFLOP/s",
        wording="10 EFLOPS from ten thousand cards",
        said=PRESS,
        workload="10,240 cards; precision not stated",
        command="windtunnel chips show mtt-s5000",
        evaluate=_exaflops,
    ),
    Claim(
        name="dense-mfu",
        group=GROUP,
        title="Dense training at 60 % MFU",
        says=Says.AT_LEAST,
        figure=0.60,
        unit="MFU",
        wording="dense training at 60 % MFU (Llama-3-70B above 60 %)",
        said=PRESS,
        workload="Llama-3-70B",
        assumed=(
            "BF16",
            "the peak is 500 TFLOP/s",
            "cards, batch and sequence as listed",
            "AdamW, no recomputation unless memory asks for it",
        ),
        command=plan_command("llama3-70b", S5000, 1024, 1024, 8192),
        evaluate=_dense_mfu,
    ),
    Claim(
        name="moe-mfu",
        group=GROUP,
        title="MoE training at about 40 % MFU",
        says=Says.AT_LEAST,
        figure=0.40,
        unit="MFU",
        wording="MoE around 40 % (DeepSeek-236B)",
        said=PRESS,
        workload="DeepSeek-V2 236B",
        assumed=("BF16", "balanced routing", "experts' exchange beside another micro-batch"),
        command=plan_command("deepseek-v2-236b", S5000, 1024, 4096, 4096, MOE_OPTIONS),
        evaluate=_moe_mfu,
    ),
    Claim(
        name="scaling-1024",
        group=GROUP,
        title="More than 90 % from 64 to 1,024 cards",
        says=Says.AT_LEAST,
        figure=90.0,
        unit="%",
        wording="from 64 to 1,024 cards above 90 %, training speed scaling nearly synchronously with computing power",
        said=PRESS,
        workload="neither model, batch nor weak or strong is stated",
        command=f"windtunnel plan llama3-70b --on {S5000} --scale 64,1024 --weak --global-batch 256",
        evaluate=_to_1024,
    ),
    Claim(
        name="scaling-10240",
        group=GROUP,
        title="95 % linear scaling",
        says=Says.AT_LEAST,
        figure=95.0,
        unit="%",
        wording="linear scaling efficiency 95 %",
        said=PRESS,
        workload="the ten-thousand-card cluster; base not stated",
        assumed=("against 1,024 cards",),
        command=f"windtunnel plan llama3-70b --on {S5000} --scale 1024,10240 --weak --global-batch 1024",
        evaluate=_to_10240,
    ),
    Claim(
        name="effective-time",
        group=GROUP,
        title="Effective training time above 90 %",
        says=Says.AT_LEAST,
        figure=90.0,
        unit="%",
        wording="effective training time above 90 %",
        said="21jingji and jianzhiguan, 2025",
        workload="neither failures nor restart times are stated",
        assumed=("failure rate and restart of published H100 runs",),
        command="windtunnel run --on mtt-s5000:1024 --days 30 examples/train_gpt.py",
        evaluate=_effective_time,
    ),
)
