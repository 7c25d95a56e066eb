"""Claims about the card itself."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.prices import H100, card, collective, counted, kernel, rate, ratio
from windtunnel.estimate import Estimate, Source
from windtunnel.network.collective import Collective
from windtunnel.specs.schema import Chip
from windtunnel.validation.explain.kernel import KernelWhy

LARGE = 16384
PRESS = "mthreads.com product page of the MTT S5000 and press, February to March 2026"
GROUP = "The card"


def _product(chip: Chip, dtype: str, size: int = LARGE) -> tuple[KernelWhy, Estimate]:
    why = kernel("gemm", chip, dtype, m=size, n=size, k=size)
    attained = rate(why, 2.0 * size**3 / 1e12)
    return why, replace(attained, high=min(attained.high, chip.peak(dtype).value / 1e12))


def _fp8_rate() -> Answer:
    chip = card()
    settings = []
    for size in (4096, 8192, LARGE):
        _, attained = _product(chip, "fp8", size)
        settings.append(
            Setting(
                label=f"FP8 product of {size:,}³",
                prediction=attained,
                bound=chip.peak("fp8").value / 1e12,
                command=f"windtunnel explain gemm --m {size} --n {size} --k {size} --dtype fp8 --on mtt-s5000",
            )
        )
    _, air = _product(card("mtt-s5000-air"), "fp8")
    return Answer(
        settings=tuple(settings),
        variations=(Variation(assumption="the air-cooled card (920 TFLOP/s peak)", prediction=air),),
        would_take="the figure is the peak of the liquid-cooled card, and no product reaches a peak",
        why=(f"899 TFLOP/s were measured at {LARGE:,}³; the rest of the peak is pipeline fill and power",),
    )


def _precisions() -> Answer:
    chip = card()
    rows = []
    for name in ("fp8", "bf16", "fp16", "tf32", "fp32", "fp64"):
        peak = chip.peak(name)
        rows.append(f"{name.upper()}: {peak.value / 1e12:g} TFLOP/s ({peak.trust}, {peak.source})")
    return Answer(runs=tuple(rows))


def _above_h100() -> Answer:
    settings = []
    for name in ("fp8", "bf16", "tf32", "fp32", "fp64"):
        ours, theirs = card().peak(name), card(H100).peak(name)
        assumed = ours.trust.value == "assumed"
        value = ours.value / theirs.value
        settings.append(
            Setting(
                label=f"dense {name.upper()} peak{' (assumed)' if assumed else ''}",
                prediction=Estimate.exact(value, Source.ASSUMED if assumed else Source.DATASHEET),
                bound=value,
                command="windtunnel chips",
            )
        )
    return Answer(
        settings=tuple(settings),
        would_take="a comparison with sparsity on one side only, or with the H100 PCIe at its power limit",
        why=("ratios of data-sheet peaks, dense on both sides; memory size, 1.01, is no precision",),
    )


def _bytes_ratio() -> Answer:
    scales = 1.0 + 4.0 / (128 * 128)
    return Answer(
        settings=(
            Setting(
                label="bytes of an FP8 weight over a BF16 one, no scales",
                prediction=counted(0.5),
                stated=True,
            ),
            Setting(label="with FP32 scales of 128 × 128 blocks", prediction=counted(scales / 2), bound=0.5),
        ),
        why=("1 byte over 2; a block's scale adds 4 bytes to 16,384",),
    )


def _throughput_ratio() -> Answer:
    chip = card()
    settings = []
    for size in (2048, 4096, LARGE):
        _, eight = _product(chip, "fp8", size)
        _, sixteen = _product(chip, "bf16", size)
        settings.append(
            Setting(
                label=f"products of {size:,}³, FP8 over BF16",
                prediction=ratio(eight, sixteen),
                command=f"windtunnel explain gemm --m {size} --n {size} --k {size} --dtype fp8 --on mtt-s5000",
            )
        )
    return Answer(
        settings=tuple(settings),
        would_take="whole steps gain less: attention, norms and exchanges do not shrink with the products",
        why=("the peaks' ratio is 2; measured FP8 products come nearer to their peak than BF16 ones",),
    )


def _bandwidth() -> Answer:
    chip = card()
    nbytes = 2.0 * (1 << 30)
    why = kernel("copy", chip, "bf16", elements=float(1 << 29))
    copied = rate(why, why.bytes_moved / 1e12)
    return Answer(
        settings=(
            Setting(
                label="pins: bus width × data rate",
                prediction=counted(chip.memory_bytes_per_s.value / 1e12),
                stated=True,
            ),
            Setting(
                label=f"copy of {nbytes / 2**30:.0f} GiB",
                prediction=copied,
                bound=chip.memory_bytes_per_s.value / 1e12,
                command="windtunnel explain copy --elements 536870912 --dtype bf16 --on mtt-s5000",
            ),
        ),
        would_take="1.6 is what the pins carry; kernels see what the copy shows",
        why=(f"{chip.memory_bytes.value / 2**30:.1f} GiB seen by a process; 20 Gb/s on 640 bits",),
    )


def _links() -> Answer:
    chip = card()
    both_ways = 2 * chip.link_bytes_per_s.value / 1e9
    why = collective(Collective.ALL_REDUCE, float(1 << 30), chip, 8)
    bus = Estimate(why.seconds, why.low_s, why.high_s, ((why.source, 1.0),)).inverse(
        why.bus_bytes_per_s * why.seconds / 1e9
    )
    return Answer(
        settings=(
            Setting(
                label="all 14 links of a card, both ways, added up",
                prediction=counted(both_ways),
                stated=True,
            ),
            Setting(
                label="all-reduce of 1 GiB on 8 cards, bus bandwidth both ways",
                prediction=bus.scaled(2.0),
                bound=both_ways,
                command="windtunnel explain all_reduce --bytes 1GiB --on mtt-s5000:8",
            ),
            Setting(
                label="one pair of cards, both ways (2 links of a mesh without a switch)",
                prediction=counted(both_ways / 7),
                bound=both_ways / 7,
            ),
        ),
        would_take="two cards that talk alone get a seventh of it: there is no switch",
        why=("14 links × 28 GB/s × 2 directions",),
    )


CLAIMS = (
    Claim(
        name="fp8-rate",
        group=GROUP,
        title="1,000 TFLOPS of FP8",
        says=Says.AT_LEAST,
        figure=1000.0,
        unit="TFLOP/s",
        wording="up to 1 PFLOPS (1000 TFLOPS) of FP8",
        said=PRESS,
        workload="none stated: a peak",
        assumed=("square products as large as published benchmarks take",),
        command="windtunnel explain gemm --m 16384 --n 16384 --k 16384 --dtype fp8 --on mtt-s5000",
        evaluate=_fp8_rate,
    ),
    Claim(
        name="precisions",
        group=GROUP,
        title="Native FP8 to FP64",
        says=Says.NO_FIGURE,
        wording="FP8 to FP64, hardware FP8 tensor cores",
        said=PRESS,
        command="windtunnel chips show mtt-s5000",
        assumed=("rates of TF32, INT8 and FP64 are undisclosed and assumed",),
        evaluate=_precisions,
    ),
    Claim(
        name="above-h100",
        group=GROUP,
        title="Surpasses H100 in specific precision metrics",
        says=Says.AT_LEAST,
        figure=1.0,
        unit="× H100",
        wording="surpasses H100 in specific precision metrics, approaching Blackwell",
        said=PRESS,
        command="windtunnel chips",
        evaluate=_above_h100,
    ),
    Claim(
        name="fp8-memory",
        group=GROUP,
        title="FP8 halves memory",
        says=Says.ABOUT,
        figure=0.5,
        unit="× BF16 bytes",
        wording="halves data width against BF16/FP16, lowering VRAM pressure by 50 %",
        said=PRESS,
        command="windtunnel fit llama3-70b --on mtt-s5000:8 --mode infer --tp 8 --precision fp8",
        evaluate=_bytes_ratio,
    ),
    Claim(
        name="fp8-throughput",
        group=GROUP,
        title="FP8 doubles throughput",
        says=Says.AT_LEAST,
        figure=2.0,
        unit="× BF16",
        wording="theoretically doubles compute throughput",
        said=PRESS,
        command="windtunnel explain gemm --m 4096 --n 4096 --k 4096 --dtype fp8 --on mtt-s5000",
        evaluate=_throughput_ratio,
    ),
    Claim(
        name="memory",
        group=GROUP,
        title="80 GB at 1.6 TB/s",
        says=Says.ABOUT,
        figure=1.6,
        unit="TB/s",
        wording="80 GB; 1.6 TB/s",
        said=PRESS,
        command="windtunnel explain copy --elements 536870912 --dtype bf16 --on mtt-s5000",
        evaluate=_bandwidth,
    ),
    Claim(
        name="links",
        group=GROUP,
        title="784 GB/s between cards",
        says=Says.ABOUT,
        figure=784.0,
        unit="GB/s",
        wording="784 GB/s between cards",
        said=PRESS,
        command="windtunnel explain all_reduce --bytes 1GiB --on mtt-s5000:8",
        evaluate=_links,
    ),
)
