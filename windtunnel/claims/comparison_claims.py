"""Claims that compare the card with others, and FP8 with BF16."""

from __future__ import annotations

from windtunnel.claims.arithmetic import kernel_lines
from windtunnel.claims.card_claims import MEMORIES
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import (
    GEMM_COMMAND,
    H100,
    S5000,
    card,
    counted,
    plan,
    plan_command,
    product_rate,
    ratio,
)
from windtunnel.claims.readings import implied_peak, readings
from windtunnel.claims.region import solve
from windtunnel.claims.training_claims import OPEN_MOE
from windtunnel.estimate import Estimate, Source
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision, Sharding
from windtunnel.serving.deployment import DeploymentOptions, deploy
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of

PRESS = "mthreads.com product page of the MTT S5000 and press, February to March 2026"
GROUP = "Beside other cards"
FP8_GROUP = "FP8"
FORMATS = ("fp8", "bf16", "tf32", "fp32", "fp64")
DENSE = "dense on both sides"
SHEETS = "peaks as data sheets have them"
APPROACHING = 0.8
B200 = "b200"
SPARSE = 2.0
LARGE, USUAL = 16384, 4096
TRAINED = ("llama3-70b", 1024, 1024, 4096)
TRAINED_SPACE = Space(tensor=4, pipeline=1, sharding=Sharding.FSDP)
CACHED_TOKENS = 128_000


def _peaks(other: str, factor: float = 1.0) -> tuple[Setting, ...]:
    settings = []
    for name in FORMATS:
        ours, theirs = card().peak(name), card(other).peak(name)
        assumed = ours.trust.value == "assumed"
        value = factor * ours.value / theirs.value
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
                prediction=counted(pair / (370.0 / readings()["product-h100-fp8"].value)),
            ),
        ),
        would_take="the S5000 has half of an H100's memory bandwidth and half of its products: the balance "
        "is that of an "
        "H100; links have more for each FLOP in groups of eight and far less between two cards",
        why=(
            f"bytes for each FLOP: memory {1.6e12 / 1e15 * 1e3:.2f} ‰ against {3.35e12 / 1979e12 * 1e3:.2f} ‰",
        ),
    )


def _serving_bytes(precision: Precision, cache: str) -> float:
    options = DeploymentOptions(precision=precision, kv_cache_dtype=cache, tensor_parallel_size=8)
    memory = deploy(shipped_model("llama3-70b"), cluster_of(S5000, 8), options).memory
    return float(memory.weights + memory.activations + memory.token_bytes * CACHED_TOKENS)


def _bytes_ratio() -> Answer:
    scales = 1.0 + 4.0 / (128 * 128)
    plain = _serving_bytes(Precision.BF16, "bfloat16")
    eight = plan(*_trained(S5000), precision=Precision.FP8, space=TRAINED_SPACE).best
    sixteen = plan(*_trained(S5000), space=TRAINED_SPACE).best
    both = _serving_bytes(Precision.FP8_BLOCK, "float8_e4m3fn") / plain
    weights_only = _serving_bytes(Precision.FP8_BLOCK, "bfloat16") / plain
    settings = [
        Setting(label="an FP8 number over a BF16 one, by definition", prediction=counted(0.5)),
        Setting(label="weights with FP32 scales of 128 × 128 blocks", prediction=counted(scales / 2)),
        Setting(
            label=f"serving Llama-3-70B on 8 cards with {CACHED_TOKENS:,} tokens kept: weights and cache in FP8",
            prediction=counted(both),
            command="windtunnel serve llama3-70b --on mtt-s5000:8 --precision fp8-block --kv-precision fp8 "
            "--concurrency 8 --requests 32",
        ),
        Setting(label="the same, weights alone in FP8", prediction=counted(weights_only)),
    ]
    variations = [
        Variation(
            of="what lies in memory is weights",
            becomes="weights and cache in FP8, activations in BF16",
            prediction=counted(both),
        ),
        Variation(
            of="what lies in memory is weights",
            becomes="weights in FP8, cache in BF16",
            prediction=counted(weights_only),
        ),
    ]
    if eight and sixteen:
        trained = ratio(eight.peak_bytes, sixteen.peak_bytes, shared=1.0)
        settings.append(
            Setting(
                label="a training step of Llama-3-70B on 1,024 cards, FP8 products",
                prediction=trained,
                command=plan_command("llama3-70b", S5000, 1024, 1024, 4096, "--precision fp8 --tp 4 --fsdp"),
            )
        )
        variations.append(
            Variation(of="memory is that of serving", becomes="a training step", prediction=trained)
        )
    return Answer(
        settings=tuple(settings),
        variations=tuple(variations),
        would_take="half holds for the width of a number, nearly for a server that keeps weights and cache in FP8; in "
        "training master weights, moments and most activations stay as wide as they were",
        why=("1 byte over 2; a block's scale adds 4 bytes to 16,384",),
    )


def _trained(chip: str) -> tuple[str, str, int, int, int]:
    model, cards, batch, sequence = TRAINED
    return model, chip, cards, batch, sequence


def _throughput_ratio() -> Answer:
    chip = card()
    eight, sixteen = readings()["fp8-s5000"], readings()["bf16-s5000"]
    settings = [
        Setting(
            label=f"best product measured in each: {eight.value:,.0f} (16,384³) and {sixteen.value:,.0f} TFLOP/s "
            "(FP16, 4,096³)",
            prediction=Estimate.exact(eight.value / sixteen.value, Source.MEASURED),
        )
    ]
    settings += [
        Setting(
            label=f"our prediction: products of {size:,}³",
            prediction=ratio(product_rate(chip, "fp8", size), product_rate(chip, "bf16", size)),
            command=GEMM_COMMAND.format(size=size, dtype="fp8"),
        )
        for size in (2048, USUAL, LARGE)
    ]
    step = _step_gain(Precision.FP8)
    return Answer(
        settings=tuple(settings),
        variations=tuple(
            Variation(of=of, becomes=becomes, prediction=found)
            for of, becomes, found in (
                ("throughput of products alone", "a whole training step of Llama-3-70B", step),
                ("products of one size in both", "what others measured", settings[0].prediction),
                (
                    "PyTorch's kernels",
                    "CUTLASS-like kernels in FP8 (713 measured)",
                    counted(713.5 / sixteen.value),
                ),
                ("PyTorch's kernels", "Triton's in FP8 (336 measured)", counted(335.687 / sixteen.value)),
            )
            if found is not None
        ),
        would_take="whole steps gain less: attention, norms and exchanges do not shrink with the products",
        why=("the peaks' ratio is 2; measured FP8 products come nearer to their peak than BF16 ones",),
    )


def _step_gain(precision: Precision) -> Estimate | None:
    """Tokens/s in ``precision`` over BF16 for the same job and layout; the recipe's own error is in both."""
    rows = [
        plan(*_trained(S5000), precision=p, space=TRAINED_SPACE).best for p in (precision, Precision.BF16)
    ]
    if rows[0] is None or rows[1] is None:
        return None
    return ratio(rows[0].tokens_per_s_per_gpu, rows[1].tokens_per_s_per_gpu, shared=0.5)


def _fp8_training() -> Answer:
    settings = []
    for model, space, cards, batch in (
        ("llama3-70b", TRAINED_SPACE, 1024, 1024),
        ("llama3-8b", Space(tensor=1, pipeline=1, sharding=Sharding.FSDP), 64, 256),
        (
            "deepseek-v2-236b",
            OPEN_MOE,
            1024,
            4096,
        ),
    ):
        rows = {
            precision: plan(model, S5000, cards, batch, 4096, precision, space).best
            for precision in (Precision.BF16, Precision.FP8, Precision.FP8_BLOCK)
        }
        base = rows.pop(Precision.BF16)
        for precision, row in rows.items():
            if row is not None and base is not None:
                gain = ratio(row.tokens_per_s_per_gpu, base.tokens_per_s_per_gpu, shared=0.5)
                scheme = "one scale a tensor" if precision is Precision.FP8 else "scales of blocks"
                more = f"--precision {precision} --tp {space.tensor} --pp {space.pipeline}"
                more += (
                    " --vpp 6 --ep 32 --micro-batch 1 --zero1 --overlap-ep"
                    if space is OPEN_MOE
                    else " --fsdp"
                )
                settings.append(
                    Setting(
                        label=f"{model}, {cards:,} cards, {scheme}",
                        prediction=Estimate(gain.value - 1, gain.low - 1, gain.high - 1, gain.shares).scaled(
                            100
                        ),
                        command=plan_command(model, S5000, cards, batch, 4096, more),
                    )
                )
    slow = ratio(
        plan(*_trained(S5000), Precision.FP8, TRAINED_SPACE, ("peak_flops.fp8=713T",))
        .rows[0]
        .tokens_per_s_per_gpu,
        plan(*_trained(S5000), space=TRAINED_SPACE).rows[0].tokens_per_s_per_gpu,
        shared=0.5,
    )
    return Answer(
        settings=tuple(settings),
        variations=(
            Variation(
                of="FP8 products run at the rates of PyTorch's kernels",
                becomes="FP8 products slower by 0.71",
                prediction=Estimate(slow.value - 1, slow.low - 1, slow.high - 1, slow.shares).scaled(100),
            ),
        ),
        would_take="products that are most of the step, and casts that cost little",
        why=(
            "tokens a second in FP8 over BF16, same layout, less one",
            *(
                line
                for precision in (Precision.BF16, Precision.FP8)
                for line in kernel_lines(*TRAINED, TRAINED_SPACE, S5000, precision)
            ),
        ),
        steady=(
            Steady(
                of="the gain is that of a whole step",
                why="of products alone it would be the row above, and higher",
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
    Claim(
        name="fp8-memory",
        group=FP8_GROUP,
        title="FP8 halves memory",
        says=Says.AT_MOST,
        figure=0.5,
        unit="× BF16 bytes",
        wording="halves data width against BF16/FP16, lowering VRAM pressure by 50 %",
        said=PRESS,
        assumed=("what lies in memory is weights", "memory is that of serving"),
        command="windtunnel fit llama3-70b --on mtt-s5000:8 --mode infer --tp 8 --precision fp8",
        evaluate=_bytes_ratio,
    ),
    Claim(
        name="fp8-throughput",
        group=FP8_GROUP,
        title="FP8 doubles throughput",
        says=Says.AT_LEAST,
        figure=2.0,
        unit="× BF16",
        wording="theoretically doubles compute throughput",
        said=PRESS,
        assumed=("throughput of products alone", "products of one size in both", "PyTorch's kernels"),
        command=GEMM_COMMAND.format(size=USUAL, dtype="fp8"),
        evaluate=_throughput_ratio,
    ),
    Claim(
        name="fp8-training",
        group=FP8_GROUP,
        title="FP8 training 20 to 30 % faster",
        says=Says.AT_LEAST,
        figure=20.0,
        unit="% faster than BF16",
        wording="FP8 training gains 20 to 30 % end to end",
        said="WAIC 2025 speech, as reported (Sina)",
        workload="not stated",
        assumed=("FP8 products run at the rates of PyTorch's kernels", "the gain is that of a whole step"),
        command=plan_command("llama3-70b", S5000, 1024, 1024, 4096, "--precision fp8 --tp 4 --fsdp"),
        evaluate=_fp8_training,
    ),
)
