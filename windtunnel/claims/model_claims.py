"""Claims about models: which run in full, what fine-tuning gains, whether training agrees with an H100's."""

from __future__ import annotations

from functools import cache

from windtunnel.claims.arithmetic import kernel_lines
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.evidence import ALIGN, alignment, alignment_scores, stack_runs
from windtunnel.claims.prices import H100, S5000, card, plan, plan_command, ratio
from windtunnel.claims.region import solve, table
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

GROUP = "The models"
QWEN = "qwen3.5-397b-a17b"
MILLION = 1_048_576
VISION = "qwen3-vl-8b"
SMALL = "a small vision-language model on digits stands for it"
NO_FIGURE = "no figure was published, and what runs does so whatever is assumed of speeds"


def _whole_model() -> Answer:
    eight = "FP8 weights with BF16 cache"
    return Answer(
        runs=(
            *stack_runs("qwen3.5"),
            *(_fit(cards, longest)[1] for cards, longest in ((8, 262_144), (8, MILLION), (16, MILLION))),
        ),
        variations=tuple(
            Variation(of=of, becomes=becomes, outcome=said, runs=fits)
            for of, becomes, (fits, said) in (
                (eight, "BF16 weights, 8 cards", _fit(8, 262_144, Precision.BF16)),
                (eight, "BF16 weights, 16 cards, a million tokens", _fit(16, MILLION, Precision.BF16)),
                (
                    eight,
                    "FP8 weights and cache, 8 cards, a million tokens",
                    _fit(8, MILLION, cache_as="float8_e4m3fn"),
                ),
                ("8 cards", "4 cards", _fit(4, 262_144)),
            )
        ),
    )


def _fit(
    cards: int, longest: int, precision: Precision = Precision.FP8_BLOCK, cache_as: str = "bfloat16"
) -> tuple[bool, str]:
    options = DeploymentOptions(
        precision=precision,
        tensor_parallel_size=min(cards, 8),
        data_parallel_size=max(1, cards // 8),
        enable_expert_parallel=cards > 8,
        kv_cache_dtype=cache_as,
    )
    weights = "FP8" if precision.is_fp8 else "BF16"
    try:
        made = deploy(shipped_model(QWEN), cluster_of(S5000, cards), options, longest)
    except WindtunnelError as error:
        return False, f"{cards} cards, one sequence of {longest:,} tokens: {error.what}"
    said = f"{cards} cards hold the {weights} weights and {made.cache_tokens:,} tokens of cache a rank"
    return True, f"{said}: one sequence of {longest:,} fits"


def _architectures() -> Answer:
    return Answer(
        runs=(*stack_runs("architectures"), *stack_runs("qwen3.5")),
        steady=(Steady(of="one card, memory exceeded and said", why=NO_FIGURE),),
        why=(
            "models of transformers, unmodified and in full size, on one virtual card that goes on beyond its memory",
        ),
    )


@cache
def _beside_h100(
    model: str,
    cards: int,
    batch: int,
    sequence: int,
    ours: Precision,
    theirs: Precision,
    changed: tuple[str, ...] = (),
) -> Estimate | None:
    try:
        rows = (
            plan(model, S5000, cards, batch, sequence, ours, overrides=changed).best,
            plan(model, H100, cards, batch, sequence, theirs).best,
        )
    except WindtunnelError:
        return None
    if rows[0] is None or rows[1] is None:
        return None
    return ratio(rows[0].tokens_per_s_per_gpu, rows[1].tokens_per_s_per_gpu)


BF16, FP8 = Precision.BF16, Precision.FP8


def _fine_tuning() -> Answer:
    usual = (VISION, 8, 64, 4096)
    settings = []
    for model, cards, batch, sequence in (usual, ("llama3-8b", 8, 64, 4096), (VISION, 8, 64, 16384)):
        if (found := _beside_h100(model, cards, batch, sequence, BF16, BF16)) is not None:
            settings.append(
                Setting(
                    label=f"{model}, full fine-tuning in BF16, {cards} cards, {batch} × {sequence:,} tokens",
                    prediction=found,
                    command=plan_command(model, f"{S5000}", cards, batch, sequence),
                )
            )
    now = settings[0].prediction.value if settings else 0.5
    varied = (
        ("BF16 on both sides", "FP8 here, BF16 there", _beside_h100(*usual, FP8, BF16)),
        ("BF16 on both sides", "FP8 on both", _beside_h100(*usual, FP8, FP8)),
        (
            "both wait for nothing but the card",
            "an H100 that waits half of its time for input",
            settings[0].prediction.scaled(2.0) if settings else None,
        ),
        (
            "speed, not speed for a price",
            "a card at 0.6 of an H100's price",
            settings[0].prediction.scaled(1 / 0.6) if settings else None,
        ),
        (
            "speeds of products as predicted",
            "BF16 products at the FP8 peak",
            _beside_h100(*usual, BF16, BF16, ("peak_flops.bf16=1000T",)),
        ),
    )
    region = table(
        "times an H100, 8 cards of each, 64 sequences a step",
        "precision here and there, tokens of a sequence",
        tuple((model, model) for model in (VISION, "llama3-8b")),
        (
            ("BF16, BF16, 4K", (BF16, BF16, 4096)),
            ("BF16, BF16, 16K", (BF16, BF16, 16384)),
            ("FP8, BF16, 4K", (FP8, BF16, 4096)),
            ("FP8, FP8, 4K", (FP8, FP8, 4096)),
        ),
        lambda model, how: _beside_h100(model, 8, 64, how[2], how[0], how[1]),
    )
    return Answer(
        settings=tuple(settings),
        variations=tuple(
            Variation(of=of, becomes=becomes, prediction=found)
            for of, becomes, found in varied
            if found is not None
        ),
        regions=(region,),
        turns=(
            solve(
                "part of its step that the H100 waits for input",
                "%",
                1.0,
                better=99.0,
                worse=0.1,
                figure=1.3,
                predict=lambda part: now / (1 - part / 100),
            ),
            solve(
                "price of a card over that of an H100, for 1.3 × per unit of money",
                "",
                1.0,
                better=0.01,
                worse=10.0,
                figure=1.3,
                predict=lambda price: now / price,
            ),
        ),
        would_take="a baseline that waits for its input or runs untuned kernels, or a figure per price",
        why=(
            f"of an H100's: BF16 peak {card().peak('bf16').value / card(H100).peak('bf16').value:.2f}, "
            f"memory bandwidth "
            f"{card().memory_bytes_per_s.value / card(H100).memory_bytes_per_s.value:.2f}, links "
            f"{card().link_bytes_per_s.value / card(H100).link_bytes_per_s.value:.2f}: nothing a step needs is faster",
            *_steps(usual),
            *(line for name in (S5000, H100) for line in kernel_lines(*usual, None, name)),
        ),
    )


def _steps(of: tuple[str, int, int, int]) -> tuple[str, ...]:
    rows = [(name, plan(of[0], name, *of[1:]).best) for name in (S5000, H100)]
    return tuple(
        f"{name}: {row.tokens_per_s_per_gpu.value:,.0f} tokens/s/card, step {row.step_time_s.value:.2f} s: compute "
        f"{row.parts.compute_s:.2f}, exchange not hidden {row.parts.exposed_comm_s:.2f}, optimizer "
        f"{row.parts.optimizer_s:.2f}"
        for name, row in rows
        if row is not None
    )


def _deepseek_deviation() -> Answer:
    return Answer(
        steady=(
            Steady(
                of="which deviation of what is meant is not stated",
                why="nothing was trained in either arithmetic at this size or with these experts",
            ),
        ),
        would_take="a mixture of experts trained in both arithmetics; the comparison of RoboBrain's row is "
        "of a dense model",
        why=(
            "what was run is small and dense: wide-digits in FP8 on both (2026-11-27; the command above, "
            "exit status 1): "
            "the mean loss of its last 100 steps is off by +1.4 %, where rounding alone gives −0.5 to +0.6 %",
            "the accumulators are not what does it: gradients differ from those of ideal sums by 0.01 %. "
            "The two makers' "
            "FP8 recipes are: gradients differ by 8 % at the first step; scores are 97.0 and 96.6 %",
        ),
    )


CLAIMS = (
    Claim(
        name="qwen3.5",
        group=GROUP,
        title="Qwen3.5-397B-A17B in full",
        says=Says.NO_FIGURE,
        wording="fully compatible: native vision-language, about 400 B parameters, mixture of experts + Gated Delta "
        "Networks, one-million-token context",
        said="Moore Threads, February 2026",
        command=f"windtunnel serve {QWEN} --on mtt-s5000:8 --precision fp8-block --concurrency 4 --requests 16",
        assumed=("FP8 weights with BF16 cache", "8 cards"),
        evaluate=_whole_model,
    ),
    Claim(
        name="architectures",
        group=GROUP,
        title="DeepSeek, Qwen and other frontier architectures",
        says=Says.NO_FIGURE,
        wording="DeepSeek, Qwen and other frontier architectures",
        said="mthreads.com and press, 2026",
        command="windtunnel claims architectures --rerun",
        assumed=("one card, memory exceeded and said",),
        evaluate=_architectures,
    ),
    Claim(
        name="multimodal",
        group=GROUP,
        title="Multimodal fine-tuning 1.3 times an H100",
        says=Says.AT_LEAST,
        figure=1.3,
        unit="× H100",
        wording="30 % faster than H100 in multimodal fine-tuning",
        said="ldeepai and press, 2026",
        workload="nothing stated",
        assumed=(
            "BF16 on both sides",
            "both wait for nothing but the card",
            "speed, not speed for a price",
            "speeds of products as predicted",
        ),
        command=plan_command(VISION, S5000, 8, 64, 4096),
        evaluate=_fine_tuning,
    ),
    Claim(
        name="robobrain",
        group=GROUP,
        title="RoboBrain 2.5 within 0.6 % of an H100's loss",
        says=Says.AT_MOST,
        figure=0.62,
        unit="% deviation",
        wording="loss within 0.6 % relative of H100 clusters",
        said="BAAI, January 2026 (arXiv 2601.14352: 0.62 %)",
        workload="8 B vision-language model, about a thousand cards, 16,384 tokens; which deviation is not stated",
        assumed=("which deviation is meant", "what is undisclosed of the accumulator", SMALL),
        command=ALIGN,
        evaluate=alignment,
    ),
    Claim(
        name="robobrain-scores",
        group=GROUP,
        title="RoboBrain 2.5 scores above an H100's",
        says=Says.AT_LEAST,
        figure=0.0,
        unit="points",
        wording="downstream scores above H100's under the same data",
        said="BAAI, January 2026 (arXiv 2601.14352: 2D averages of 75.82 on both)",
        workload="the trained model's benchmarks",
        assumed=("one training on each side stands for many", SMALL),
        command=ALIGN,
        evaluate=alignment_scores,
    ),
    Claim(
        name="deepseek-deviation",
        group=GROUP,
        title="DeepSeek-236B trained within 0.6 %",
        says=Says.AT_MOST,
        figure=0.6,
        unit="% deviation",
        wording="DeepSeek-236B training within 0.6 % accuracy deviation",
        said="mthreads.com product page, 2026",
        workload="a ten-thousand-card cluster; what deviates is not stated",
        assumed=("which deviation of what is meant is not stated",),
        command="windtunnel align --reference h100-sxm:fp8 --candidate mtt-s5000:fp8 wide-digits",
        evaluate=_deepseek_deviation,
    ),
)
