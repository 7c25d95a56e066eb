"""Claims about the card's own figures: each beside a reading that does not come from its maker."""

from __future__ import annotations

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import GEMM_COMMAND, card, collective, counted, kernel, product_rate, rate
from windtunnel.claims.readings import implied_peak, readings
from windtunnel.claims.region import Turn, solve
from windtunnel.estimate import Estimate, Source
from windtunnel.network.collective import Collective

LARGE = 16384
PRESS = "mthreads.com product page of the MTT S5000 and press, February to March 2026"
GROUP = "The card"
PEERS = 7
"""Cards that one is wired to, with two links each and no switch."""
PRODUCTS = (
    "product-a100",
    "product-h100",
    "product-b200",
    "product-h100-fp8",
    "product-b200-fp8",
    "product-gb200-fp8",
)
FP8_PRODUCTS = ("product-h100-fp8", "product-b200-fp8", "product-gb200-fp8")
MEMORIES = ("memory-a100", "memory-a100-tool", "memory-a100-pcie")
PAIRS = ("pair-a100", "pair-a100-tool")
ALL_REDUCES = ("all-reduce-a100", "all-reduce-h100", "all-reduce-b200")
SAME_PART = "the S5000 gets the part of its peak that other chips get of theirs"
ONE_SERVER = "one published server stands for all"


def _words(*names: str) -> tuple[str, ...]:
    return tuple(readings()[name].words for name in names)


def _part(measured: float, implied: float, figure: float, what: str = "") -> Turn:
    """The part of the peak that the measurement must be for the peak to be the claimed one."""
    return solve(
        f"{what}part of the peak that was measured",
        "%",
        100 * measured / implied,
        better=1.0,
        worse=200.0,
        predict=lambda part: 100 * measured / part,
        figure=figure,
    )


def _fp8_rate() -> Answer:
    chip, measured = card(), readings()["fp8-s5000"]
    peak = chip.peak("fp8").value / 1e12
    implied = implied_peak(measured, PRODUCTS)
    settings = [
        Setting(label="data sheet", prediction=Estimate.exact(peak, Source.DATASHEET), claimant=True),
        Setting(label=measured.what, prediction=measured.estimate),
        Setting(label=f"peak that this implies, if {SAME_PART}", prediction=implied),
    ]
    settings += [
        Setting(
            label=f"our prediction: FP8 product of {size:,}³",
            prediction=product_rate(chip, "fp8", size),
            bound=peak,
            command=GEMM_COMMAND.format(size=size, dtype="fp8"),
        )
        for size in (4096, 8192, LARGE)
    ]
    predicted = settings[-1].prediction
    return Answer(
        settings=tuple(settings),
        variations=(
            Variation(
                of=SAME_PART,
                becomes="FP8 products of other chips only",
                prediction=implied_peak(measured, FP8_PRODUCTS),
            ),
            Variation(of=SAME_PART, becomes="all of the peak", prediction=measured.estimate),
            Variation(
                of=ONE_SERVER,
                becomes="the air-cooled card (920 on its data sheet), predicted product",
                prediction=product_rate(card("mtt-s5000-air"), "fp8", LARGE),
            ),
        ),
        turns=(_part(measured.value, implied.value, 1000.0),),
        would_take="a peak is not reached: the best product measured gets "
        f"{measured.value / 1000:.0%} of it, the next kernel library 71 %, Triton 34 %",
        why=(
            f"{measured.words}; we predict {predicted.value:,.0f} ({predicted.low:,.0f} – {predicted.high:,.0f}) for "
            "this shape: where both are there, the measurement counts",
            *_words(*PRODUCTS),
            f"{measured.value:.0f} ÷ {measured.value / implied.high:.3f} … ÷ {measured.value / implied.low:.3f} = "
            f"{implied.high:,.0f} … {implied.low:,.0f}",
        ),
    )


def _memory_size() -> Answer:
    shown, free = readings()["memory-s5000"], readings()["free-s5000"]
    return Answer(
        settings=(
            Setting(label=shown.what, prediction=shown.estimate, stated=True),
            Setting(label=free.what, prediction=free.estimate),
        ),
        variations=(
            Variation(
                of="a GB is 10⁹ bytes",
                becomes="a GB is 2³⁰ bytes",
                prediction=shown.estimate.scaled(1e9 / 2**30),
            ),
            Variation(
                of="what a process is shown",
                becomes="what a serving process found free",
                prediction=free.estimate,
            ),
        ),
        why=(
            "85,813,358,592 bytes = 79.92 GiB; the driver keeps 0.08 GiB of 80",
            *_words("memory-s5000", "free-s5000"),
        ),
    )


def _bandwidth() -> Answer:
    chip = card()
    sheet = chip.memory_bytes_per_s.value / 1e12
    why = kernel("copy", chip, "bf16", elements=float(1 << 29))
    copies, triad = readings()["copy-s5000"], readings()["triad-s5000"]
    from_copies, from_triad = implied_peak(copies, MEMORIES), implied_peak(triad, MEMORIES)
    return Answer(
        settings=(
            Setting(
                label="data sheet; the driver's 20 Gb/s on 640 bits",
                prediction=Estimate.exact(sheet, Source.DATASHEET),
                claimant=True,
            ),
            Setting(label=copies.what, prediction=copies.estimate),
            Setting(label=triad.what, prediction=triad.estimate),
            Setting(label=f"peak that copies imply, if {SAME_PART}", prediction=from_copies),
            Setting(label=f"peak that the triad implies, if {SAME_PART}", prediction=from_triad),
            Setting(
                label="our prediction: copy of 1 GiB",
                prediction=rate(why, why.bytes_moved / 1e12),
                bound=sheet,
                command="windtunnel explain copy --elements 536870912 --dtype bf16 --on mtt-s5000",
            ),
        ),
        variations=(
            Variation(
                of="the fastest kernel measured shows the memory's peak best",
                becomes="copies, which most kernels resemble",
                prediction=from_copies,
            ),
            Variation(of=SAME_PART, becomes="95 % of it", prediction=triad.estimate.scaled(1 / 0.95)),
            Variation(of=SAME_PART, becomes="all of it", prediction=triad.estimate),
        ),
        turns=(
            _part(triad.value, from_triad.value, 1.6),
            _part(copies.value, from_copies.value, 1.6, "copies: "),
        ),
        would_take="1.6 is what the pins carry; kernels see what copies show, five sixths of it",
        why=(
            *_words("copy-s5000", "triad-s5000", *MEMORIES),
            "20 Gb/s × 640 bits ÷ 8 = 1.6 TB/s: the pins as the maker's driver reports them; GDDR6 is sold "
            "at that rate",
        ),
    )


def _links() -> Answer:
    chip = card()
    both_ways = 2 * chip.link_bytes_per_s.value / 1e9
    why = collective(Collective.ALL_REDUCE, float(1 << 30), chip, 8)
    bus = Estimate(why.seconds, why.low_s, why.high_s, ((why.source, 1.0),)).inverse(
        why.bus_bytes_per_s * why.seconds / 1e9
    )
    pair, reduced = readings()["pair-s5000"], readings()["all-reduce-s5000"]
    from_pair = implied_peak(pair, PAIRS, PEERS)
    from_reduce = implied_peak(reduced, ALL_REDUCES, 2.0)
    return Answer(
        settings=(
            Setting(
                label="data sheet: all 14 links of a card, both ways, added up",
                prediction=Estimate.exact(both_ways, Source.DATASHEET),
                claimant=True,
            ),
            Setting(label=f"{pair.what}, × {PEERS} peers", prediction=pair.estimate.scaled(PEERS)),
            Setting(label=f"{reduced.what}, × 2", prediction=reduced.estimate.scaled(2.0)),
            Setting(label=f"peak that pairs imply, if {SAME_PART}", prediction=from_pair),
            Setting(label=f"peak that all-reduce implies, if {SAME_PART}", prediction=from_reduce),
            Setting(
                label="our prediction: all-reduce of 1 GiB on 8 cards, bus bandwidth both ways",
                prediction=bus.scaled(2.0),
                bound=both_ways,
                command="windtunnel explain all_reduce --bytes 1GiB --on mtt-s5000:8",
            ),
            Setting(
                label="what two cards that talk alone share: 2 of 14 links, both ways, by the data sheet",
                prediction=counted(both_ways / PEERS),
                bound=both_ways / PEERS,
            ),
        ),
        variations=(
            Variation(
                of=SAME_PART,
                becomes="pairs get two thirds of it",
                prediction=pair.estimate.scaled(PEERS * 1.5),
            ),
            Variation(
                of="links are counted both ways and added up",
                becomes="one way",
                prediction=from_pair.scaled(0.5),
            ),
            Variation(
                of="links are counted both ways and added up",
                becomes="all-reduce shows them, not pairs",
                prediction=from_reduce,
            ),
        ),
        turns=(
            _part(pair.value * PEERS, from_pair.value, 784.0, "pairs: "),
            _part(reduced.value * 2, from_reduce.value, 784.0, "all-reduce: "),
        ),
        would_take=f"pairs that get {pair.value * PEERS / both_ways:.0%} of the figure get all of it: there "
        f"is no switch, "
        "and two cards that talk alone have a seventh of it",
        why=(
            "14 links × 28 GB/s × 2 directions = 784 GB/s",
            *_words("pair-s5000", "all-reduce-s5000", *PAIRS, *ALL_REDUCES),
            "2 GiB × (n − 1)/n over (n − 1) pairs of 33.5 GB/s each way: 31, 100 and 234 GB/s measured on "
            "2, 4, 8 cards",
        ),
    )


def _exaflops() -> Answer:
    chip, measured = card(), readings()["fp8-s5000"]
    cards = 10_240
    implied = implied_peak(measured, PRODUCTS, cards / 1e6)
    return Answer(
        settings=(
            *(
                Setting(
                    label=f"{cards:,} cards × dense {name.upper()} peak",
                    prediction=Estimate.exact(cards * chip.peak(name).value / 1e18, Source.DATASHEET),
                    claimant=True,
                )
                for name in ("fp8", "bf16")
            ),
            Setting(
                label=f"{cards:,} cards × the best FP8 product measured",
                prediction=measured.estimate.scaled(cards / 1e6),
            ),
            Setting(label=f"{cards:,} cards × the FP8 peak that this implies", prediction=implied),
        ),
        variations=(
            Variation(
                of="FP8",
                becomes="BF16: peak that the best product measured implies",
                prediction=implied_peak(readings()["bf16-s5000"], PRODUCTS, cards / 1e6),
            ),
            Variation(of="10,240 cards", becomes="10,000 cards", prediction=implied.scaled(10_000 / cards)),
            Variation(
                of="peaks are added up",
                becomes="all cards multiply at the best rate measured",
                prediction=measured.estimate.scaled(cards / 1e6),
            ),
        ),
        would_take="the figure is FP8 at the data-sheet peak; in BF16 it is half of it, and training gets a "
        "part of either",
        why=(f"{cards:,} × 1,000 TFLOP/s = 10.24 EFLOP/s", *_words("fp8-s5000", "bf16-s5000")),
    )


def _precisions() -> Answer:
    chip = card()
    rows = []
    for name in ("fp8", "bf16", "fp16", "tf32", "fp32", "fp64"):
        peak = chip.peak(name)
        rows.append(f"{name.upper()}: {peak.value / 1e12:g} TFLOP/s ({peak.trust}, {peak.source})")
    return Answer(
        runs=tuple(rows),
        steady=(
            Steady(
                of="rates of TF32, INT8 and FP64 are undisclosed and assumed",
                why="the claim is that the formats exist: programs in each of them run here, at any rate",
            ),
        ),
        why=(
            "TF32 at 4,096 × 4,096 × 1,024: 159 TFLOP/s measured; strict FP32: 24 to 26; INT8: 446; FP8: "
            "899; nothing is "
            "measured of FP64",
        ),
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
        assumed=(SAME_PART, ONE_SERVER),
        command=GEMM_COMMAND.format(size=LARGE, dtype="fp8"),
        evaluate=_fp8_rate,
    ),
    Claim(
        name="precisions",
        group=GROUP,
        title="Native FP8 to FP64",
        says=Says.NO_FIGURE,
        wording="FP8 to FP64, hardware FP8 tensor cores; native FP64",
        said=PRESS,
        command="windtunnel chips show mtt-s5000",
        assumed=("rates of TF32, INT8 and FP64 are undisclosed and assumed",),
        evaluate=_precisions,
    ),
    Claim(
        name="memory-size",
        group=GROUP,
        title="80 GB",
        says=Says.AT_LEAST,
        figure=80.0,
        unit="GB",
        wording="80 GB",
        said=PRESS,
        assumed=("a GB is 10⁹ bytes", "what a process is shown"),
        command="windtunnel chips show mtt-s5000",
        evaluate=_memory_size,
    ),
    Claim(
        name="memory",
        group=GROUP,
        title="1.6 TB/s of memory bandwidth",
        says=Says.AT_LEAST,
        figure=1.6,
        unit="TB/s",
        wording="1.6 TB/s",
        said=PRESS,
        workload="none stated: a peak",
        assumed=(SAME_PART, "the fastest kernel measured shows the memory's peak best"),
        command="windtunnel explain copy --elements 536870912 --dtype bf16 --on mtt-s5000",
        evaluate=_bandwidth,
    ),
    Claim(
        name="links",
        group=GROUP,
        title="784 GB/s between cards",
        says=Says.AT_LEAST,
        figure=784.0,
        unit="GB/s",
        wording="784 GB/s between cards",
        said=PRESS,
        workload="none stated: a peak",
        assumed=(SAME_PART, "links are counted both ways and added up"),
        command="windtunnel explain all_reduce --bytes 1GiB --on mtt-s5000:8",
        evaluate=_links,
    ),
    Claim(
        name="exaflops",
        group=GROUP,
        title="10 EFLOPS from ten thousand cards",
        says=Says.AT_LEAST,
        figure=10.0,
        unit="EFLOP/s",
        wording="10 EFLOPS from ten thousand cards",
        said="mthreads.com KUAE pages and press, 2025 to March 2026",
        workload="a peak; precision not stated",
        assumed=("FP8", "10,240 cards", "peaks are added up"),
        command="windtunnel chips show mtt-s5000",
        evaluate=_exaflops,
    ),
)
