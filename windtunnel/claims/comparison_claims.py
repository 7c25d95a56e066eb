"""Claims that compare the card with others."""

from __future__ import annotations

from windtunnel.claims.card_claims import MEMORIES, PRESS
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.prices import H100, card, counted
from windtunnel.claims.readings import implied_peak, readings
from windtunnel.claims.region import solve
from windtunnel.estimate import Estimate, Source
from windtunnel.specs.schema import Chip

GROUP = "Beside other cards"
FORMATS = ("fp8", "bf16", "tf32", "fp32", "fp64")
DENSE = "dense on both sides"
SHEETS = "peaks as data sheets have them"
APPROACHING = 0.8
B200 = "b200"
SPARSE = 2.0


def _peaks(other: str) -> tuple[Setting, ...]:
    settings = []
    for name in FORMATS:
        ours, theirs = card().peak(name), card(other).peak(name)
        assumed = ours.trust.value == "assumed"
        value = ours.value / theirs.value
        settings.append(
            Setting(
                label=f"dense {name.upper()} peak{' (assumed)' if assumed else ''}",
                prediction=Estimate.exact(value, Source.ASSUMED if assumed else Source.DATASHEET),
                claimant=not assumed,
                command="windtunnel chips",
            )
        )
    return tuple(settings)


def _best_products(theirs: str) -> Setting:
    ours, other = readings()["fp8-s5000"], readings()[theirs]
    return Setting(
        label=f"best FP8 product measured on each: {ours.value:,.0f} and {other.value:,.0f} TFLOP/s",
        prediction=Estimate.exact(ours.value / other.value, Source.MEASURED),
    )


def _above_h100() -> Answer:
    measured = _best_products("product-h100-fp8")
    pcie = card().peak("fp8").value / card("h100-pcie").peak("fp8").value
    return Answer(
        settings=(*_peaks(H100), measured),
        variations=(
            Variation(
                of=DENSE,
                becomes="FP8 dense here, BF16 with nothing skipped there",
                prediction=counted(card().peak("fp8").value / card(H100).peak("bf16").value),
            ),
            Variation(
                of=DENSE,
                becomes="twice the FP8 peak here, as if sparsity were counted",
                prediction=counted(SPARSE * card().peak("fp8").value / card(H100).peak("fp8").value),
            ),
            Variation(
                of="the H100 is the SXM card",
                becomes="the PCIe card",
                prediction=Estimate.exact(pcie, Source.DATASHEET),
            ),
            Variation(
                of="the H100 is the SXM card",
                becomes="an H20 instead, in FP8",
                prediction=Estimate.exact(
                    card().peak("fp8").value / card("h20").peak("fp8").value, Source.DATASHEET
                ),
            ),
            Variation(
                of=SHEETS,
                becomes="what FP8 products were measured at, largest first",
                prediction=measured.prediction,
            ),
        ),
        would_take="FP8 on one side and BF16 on the other, sparsity counted on one side, or an H20 in the H100's place",
        why=("ratios of data-sheet peaks, dense on both sides; memory size, 1.01, is no precision",),
    )


def _blackwell() -> Answer:
    measured = _best_products("product-b200-fp8")
    ratio_now = card().peak("fp8").value / card(B200).peak("fp8").value
    return Answer(
        settings=(*_peaks(B200), measured),
        variations=(
            Variation(
                of=f"approaching: at least {APPROACHING:.0%}",
                becomes="at least half (prediction scaled by 0.8/0.5)",
                prediction=counted(ratio_now * APPROACHING / 0.5),
            ),
            Variation(
                of="Blackwell is the B200",
                becomes="RTX-class and GB10 parts are not in the catalogue; FP8 beside BF16 of a B200",
                prediction=counted(card().peak("fp8").value / card(B200).peak("bf16").value),
            ),
            Variation(of=SHEETS, becomes="best FP8 products measured", prediction=measured.prediction),
        ),
        turns=(
            solve(
                "FP8 peak",
                "TFLOP/s",
                card().peak("fp8").value / 1e12,
                better=10_000.0,
                worse=100.0,
                predict=lambda peak: peak * 1e12 / card(B200).peak("fp8").value,
                figure=APPROACHING,
            ),
        ),
        would_take="four fifths of a B200 are 3.6 times what the data sheet says",
        why=(
            "ratios of data-sheet peaks, dense on both sides; a B200 also computes in FP4, the S5000 does not",
        ),
    )


def _balance() -> Answer:
    ours, theirs = card(), card(H100)

    def per_flop(chip: Chip, rate: float, dtype: str) -> float:
        return rate / chip.peak(dtype).value

    def beside(name: str, dtype: str) -> float:
        return per_flop(ours, getattr(ours, name).value, dtype) / per_flop(
            theirs, getattr(theirs, name).value, dtype
        )

    products = readings()["product-h100-fp8"].value / readings()["fp8-s5000"].value
    implied = implied_peak(
        readings()["copy-s5000"], MEMORIES, products / (theirs.memory_bytes_per_s.value / 1e12)
    )
    settings = (
        Setting(
            label="memory bandwidth over the FP8 peak, data sheets",
            prediction=Estimate.exact(beside("memory_bytes_per_s", "fp8"), Source.DATASHEET),
            claimant=True,
        ),
        Setting(
            label="copies over FP8 products, as measured (an H100's copies: the part of its peak that other chips get)",
            prediction=implied,
        ),
        Setting(
            label="links between cards over the FP8 peak, data sheets",
            prediction=Estimate.exact(beside("link_bytes_per_s", "fp8"), Source.DATASHEET),
            claimant=True,
        ),
        Setting(
            label="links over FP8 products, as measured (all-reduce on 8 cards)",
            prediction=Estimate.exact(
                readings()["all-reduce-s5000"].value
                / readings()["fp8-s5000"].value
                / (readings()["all-reduce-h100"].value / readings()["product-h100-fp8"].value),
                Source.MEASURED,
            ),
        ),
    )
    pair = readings()["pair-s5000"].value / 2 / readings()["fp8-s5000"].value
    return Answer(
        settings=settings,
        variations=(
            Variation(
                of="no bottleneck: no fewer bytes for each FLOP than an H100",
                becomes="than an H20",
                prediction=counted(
                    beside("memory_bytes_per_s", "fp8")
                    * per_flop(theirs, theirs.memory_bytes_per_s.value, "fp8")
                    / per_flop(card("h20"), card("h20").memory_bytes_per_s.value, "fp8")
                ),
            ),
            Variation(
                of="cards talk in groups of eight",
                becomes="two cards alone, which share 2 of 14 links",
                prediction=counted(
                    pair / (readings()["all-reduce-h100"].value / readings()["product-h100-fp8"].value)
                ),
            ),
        ),
        would_take="the S5000 has half of an H100's memory bandwidth and half of its products: the balance "
        "is that of an "
        "H100; links have more for each FLOP in groups of eight and far less between two cards",
        why=(
            "bytes for each FLOP: memory {:.2f} ‰ against {:.2f} ‰".format(
                *(per_flop(chip, chip.memory_bytes_per_s.value, "fp8") * 1e3 for chip in (ours, theirs))
            ),
        ),
    )


CLAIMS = (
    Claim(
        name="above-h100",
        group=GROUP,
        title="Surpasses H100 in specific precision metrics",
        says=Says.AT_LEAST,
        figure=1.0,
        unit="× H100",
        wording="surpasses H100 in specific precision metrics",
        said=PRESS,
        workload="which metrics is not stated",
        assumed=(DENSE, "the H100 is the SXM card", SHEETS),
        command="windtunnel chips",
        evaluate=_above_h100,
    ),
    Claim(
        name="blackwell",
        group=GROUP,
        title="Approaching Blackwell",
        says=Says.AT_LEAST,
        figure=APPROACHING,
        unit="× B200",
        wording="approaching Blackwell",
        said=PRESS,
        workload="which metrics is not stated",
        assumed=(f"approaching: at least {APPROACHING:.0%}", "Blackwell is the B200", SHEETS),
        command="windtunnel chips",
        evaluate=_blackwell,
    ),
    Claim(
        name="balance",
        group=GROUP,
        title="No data bottleneck with large models",
        says=Says.AT_LEAST,
        figure=1.0,
        unit="× H100",
        wording="designed to prevent data bottlenecks with large models",
        said=PRESS,
        workload="no measure is stated",
        assumed=("no bottleneck: no fewer bytes for each FLOP than an H100", "cards talk in groups of eight"),
        command="windtunnel chips",
        evaluate=_balance,
    ),
)
