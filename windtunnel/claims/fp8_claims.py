"""Claims about FP8 beside BF16 on the same card."""

from __future__ import annotations

from windtunnel.claims.arithmetic import kernel_lines
from windtunnel.claims.card_claims import PRESS
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import (
    GEMM_COMMAND,
    S5000,
    card,
    counted,
    plan,
    plan_command,
    product_rate,
    ratio,
)
from windtunnel.claims.readings import readings
from windtunnel.claims.training_claims import OPEN_MOE
from windtunnel.estimate import Estimate, Source
from windtunnel.planner.space import Space
from windtunnel.recipes.layout import Precision, Sharding
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

GROUP = "FP8"
LARGE, USUAL = 16384, 4096
TRAINED = ("llama3-70b", 1024, 1024, 4096)
TRAINED_SPACE = Space(tensor=4, pipeline=1, sharding=Sharding.FSDP)
CACHED_TOKENS = 128_000


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
    mutlass, triton = readings()["fp8-mutlass-s5000"], readings()["fp8-triton-s5000"]
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
                    f"CUTLASS-like kernels in FP8 ({mutlass.value:.0f} measured)",
                    counted(mutlass.value / sixteen.value),
                ),
                (
                    "PyTorch's kernels",
                    f"Triton's in FP8 ({triton.value:.0f} measured)",
                    counted(triton.value / sixteen.value),
                ),
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
    mutlass = readings()["fp8-mutlass-s5000"].value
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
        plan(*_trained(S5000), Precision.FP8, TRAINED_SPACE, (f"peak_flops.fp8={mutlass:g}T",))
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
        name="fp8-memory",
        group=GROUP,
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
        group=GROUP,
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
        group=GROUP,
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
