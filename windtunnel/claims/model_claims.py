"""Claims about models: serving DeepSeek and Qwen, fine-tuning, RoboBrain."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.claims.claim import Answer, Claim, Says, Setting, Variation
from windtunnel.claims.evidence import alignment, stack_runs
from windtunnel.claims.prices import H20, H100, S5000, card, plan, plan_command, ratio
from windtunnel.errors import WindtunnelError
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import DeploymentOptions, deploy
from windtunnel.serving.step_time import Speculation
from windtunnel.serving.sweep import PASS_TOKENS, Point, Sweep
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of

GROUP = "The models"
SILICONFLOW = "Moore Threads with SiliconFlow, 2025-12-20"
DEEPSEEK = "deepseek-v3-671b"
QWEN = "qwen3.5-397b-a17b"
SWEEP = (
    f"windtunnel serve {DEEPSEEK} --on mtt-s5000:64 --precision fp8-block --enable-dbo "
    "--gpu-memory-utilization 0.95 --sweep"
)
DRAFTED = Speculation(tokens=1, acceptance=0.85)
"""One drafted token, kept 85 times in a hundred: DeepSeek-V3's report, section 5.4.3."""
DRAFTED_OPTIONS = "--num-speculative-tokens 1 --acceptance 0.85"
USER_TPOT_S = 0.1


def _sweep(chip: str | Chip, cards: tuple[int, ...], model: str = DEEPSEEK, **changed: object) -> Sweep:
    options = DeploymentOptions(precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95)
    return Sweep(model, chip, cards=cards, options=replace(options, **changed))  # type: ignore[arg-type]


def _setting(point: Point, what: str, command: str) -> Setting:
    return Setting(
        label=f"{point.cards} cards, {point.layout}, {what}",
        prediction=point.tokens_per_s_per_gpu,
        bound=point.roofline,
        command=command,
    )


def _prefill() -> Answer:
    command = f"{SWEEP} --sweep-cards 16,32,64"
    settings = tuple(
        _setting(point, f"prompts of {point.context:,}", command)
        for point in _sweep(S5000, (16, 32, 64)).prefill((1024, 4096, 16384))
    )
    one_batch = _sweep(S5000, (32,), enable_dbo=False).prefill((4096,))
    uneven = _sweep(S5000, (32,), expert_imbalance=1.3).prefill((4096,))
    nic = _sweep(card(S5000, "nic_bytes_per_s=25e9"), (32,)).prefill((4096,))
    varied = (
        ("no two-batch overlap", one_batch),
        ("busiest expert rank 1.3 × the mean", uneven),
        ("a 200 Gb/s network card", nic),
    )
    return Answer(
        settings=settings,
        variations=tuple(
            Variation(assumption=name, prediction=points[0].tokens_per_s_per_gpu)
            for name, points in varied
            if points
        ),
        would_take="short prompts, cached prefixes counted as computed, or kernels faster than those measured",
        why=tuple(
            f"{s.label}: {s.prediction.value:,.0f} of at most {s.bound or 0:,.0f} tokens/s/card"
            for s in settings
        ),
    )


def _decode() -> Answer:
    command = f"{SWEEP} --sweep-cards 32,64,144 --sweep-batches 32,64,96,128,192 --sweep-contexts 2048,4096"
    batches = (32, 64, 96, 128, 192)
    settings = []
    for drafted in (Speculation(), DRAFTED):
        said = f"{command} {DRAFTED_OPTIONS}" if drafted is DRAFTED else command
        for cards in (32, 64, 144):
            for context in (2048, 4096):
                points = _sweep(S5000, (cards,)).decode(batches, (context,), drafted)
                if (point := _fastest(points)) is not None:
                    settings.append(
                        _setting(point, f"batch {point.batch}, {context:,} tokens of context", said)
                    )
    best = max(settings, key=lambda s: s.prediction.value) if settings else None
    uneven = _fastest(_sweep(S5000, (64,), expert_imbalance=1.3).decode(batches, (2048,), DRAFTED))
    return Answer(
        settings=tuple(settings),
        variations=(
            Variation(
                assumption="busiest expert rank 1.3 × the mean", prediction=uneven.tokens_per_s_per_gpu
            ),
        )
        if uneven
        else (),
        would_take="experts over many cards, drafted tokens, and a large batch: "
        f"each user then waits up to {USER_TPOT_S * 1e3:.0f} ms a token",
        why=(
            f"highest: {best.label}: {best.prediction.value:,.0f} of at most {best.bound or 0:,.0f} tokens/s/card",
        )
        if best
        else (),
    )


def _fastest(points: list[Point]) -> Point | None:
    """The highest rate of those that fit and keep every user within ``USER_TPOT_S``."""
    good = [point for point in points if point.fits and point.step_s.value <= USER_TPOT_S]
    return max(good, key=lambda point: point.tokens_per_s_per_gpu.value, default=None)


def _against_h20() -> Answer:
    settings = []
    cases = (
        (DEEPSEEK, Precision.FP8_BLOCK, 16),
        ("llama3-70b", Precision.FP8_BLOCK, 8),
        ("llama3-70b", Precision.BF16, 8),
        (QWEN, Precision.FP8_BLOCK, 8),
    )
    for model, precision, cards in cases:
        points = [
            Sweep(
                model,
                chip,
                cards=(cards,),
                options=DeploymentOptions(precision=precision, gpu_memory_utilization=0.95),
            ).prefill((16384,), PASS_TOKENS)
            for chip in (S5000, H20)
        ]
        if all(points):
            ours, theirs = points[0][0], points[1][0]
            settings.append(
                Setting(
                    label=f"{model}, {precision}, {cards} cards of each",
                    prediction=ratio(ours.tokens_per_s_per_gpu, theirs.tokens_per_s_per_gpu),
                    bound=ours.roofline / theirs.roofline,
                    command=f"windtunnel serve {model} --on mtt-s5000:{cards},h20:{cards} "
                    f"--precision {precision} --sweep --sweep-prompts 16384",
                )
            )
    return Answer(
        settings=tuple(settings),
        variations=(_narrow_mesh_against_h20(),),
        would_take="model, engine and precision of both sides are not stated",
        why=(
            f"FP8 peaks {card().peak('fp8').value / card(H20).peak('fp8').value:.2f} to 1, "
            f"BF16 peaks {card().peak('bf16').value / card(H20).peak('bf16').value:.2f} to 1",
            "a prefill of 16K is bound by products; exchange over the mesh costs S5000 the rest",
        ),
    )


def _narrow_mesh_against_h20() -> Variation:
    options = DeploymentOptions(precision=Precision.FP8_BLOCK, gpu_memory_utilization=0.95)
    chips = card(S5000, "link_bytes_per_s=196e9"), H20
    ours, theirs = (
        Sweep(DEEPSEEK, chip, cards=(16,), options=options).prefill((16384,), PASS_TOKENS)[0]
        for chip in chips
    )
    quotient = ratio(ours.tokens_per_s_per_gpu, theirs.tokens_per_s_per_gpu)
    return Variation(assumption=f"half the MTLink bandwidth, {DEEPSEEK}", prediction=quotient)


def _fine_tuning() -> Answer:
    settings = []
    for model, cards, batch, sequence in (
        ("qwen3-vl-8b", 8, 64, 4096),
        ("llama3-8b", 8, 64, 4096),
        ("qwen3-vl-8b", 8, 64, 16384),
    ):
        try:
            rows = [plan(model, name, cards, batch, sequence).best for name in (S5000, H100)]
        except WindtunnelError:
            continue
        if rows[0] is not None and rows[1] is not None:
            settings.append(
                Setting(
                    label=f"{model}, full fine-tuning in BF16, {cards} cards, {batch} × {sequence:,} tokens",
                    prediction=ratio(rows[0].tokens_per_s_per_gpu, rows[1].tokens_per_s_per_gpu),
                    bound=card().peak("bf16").value / card(H100).peak("bf16").value,
                    command=plan_command(model, S5000, cards, batch, sequence),
                )
            )
    fast = plan("qwen3-vl-8b", S5000, 8, 64, 4096, overrides=("peak_flops.bf16=1000T",)).best
    slow = plan("qwen3-vl-8b", H100, 8, 64, 4096).best
    price = "a price per card below 0.4 of an H100's would make 1.3 × per unit of money"
    return Answer(
        settings=tuple(settings),
        variations=(
            Variation(
                assumption="BF16 products at the FP8 peak",
                prediction=ratio(fast.tokens_per_s_per_gpu, slow.tokens_per_s_per_gpu),
            ),
        )
        if fast and slow
        else (),
        would_take=f"a baseline that waits for its input or runs untuned kernels, or a figure per price ({price})",
        why=(
            "BF16 peak 0.51, memory bandwidth 0.48, links 0.87 of an H100's: nothing a step needs is faster",
        ),
    )


def _whole_model() -> Answer:
    return Answer(runs=(*stack_runs("qwen3.5"), *_fits()))


def _fits() -> tuple[str, ...]:
    found = []
    for cards, longest in ((8, 262_144), (8, 1_048_576), (16, 1_048_576)):
        try:
            made = deploy(
                shipped_model(QWEN),
                cluster_of(S5000, cards),
                DeploymentOptions(precision=Precision.FP8_BLOCK, tensor_parallel_size=cards),
                longest,
            )
        except WindtunnelError as error:
            found.append(f"{cards} cards, one sequence of {longest:,} tokens: {error.what}")
        else:
            found.append(
                f"{cards} cards hold the FP8 weights and {made.cache_tokens:,} tokens of cache: "
                f"one sequence of {longest:,} fits"
            )
    return tuple(found)


def _robobrain() -> Answer:
    return alignment()


CLAIMS = (
    Claim(
        name="qwen3.5",
        group=GROUP,
        title="Qwen3.5-397B-A17B in full",
        says=Says.NO_FIGURE,
        wording="fully compatible: native vision-language, about 400 B parameters, mixture of experts + Gated Delta "
        "Networks, one-million-token context",
        said="Moore Threads, February 2026",
        command=f"windtunnel serve {QWEN} --on mtt-s5000:8 --precision fp8-block",
        assumed=("FP8 weights with BF16 cache",),
        evaluate=_whole_model,
    ),
    Claim(
        name="deepseek-prefill",
        group=GROUP,
        title="DeepSeek-V3: over 4,000 prefill tokens/s a card",
        says=Says.AT_LEAST,
        figure=4000.0,
        unit="tokens/s/card",
        wording="DeepSeek-V3 671B: prefill over 4,000 and decode over 1,000 tokens/s per card",
        said=SILICONFLOW,
        workload="FP8, prefill and decode on cards of their own",
        assumed=(
            "cards, prompt length and batch as listed",
            "no cached prefix",
            "balanced experts",
            "two-batch overlap",
        ),
        command=SWEEP,
        evaluate=_prefill,
    ),
    Claim(
        name="deepseek-decode",
        group=GROUP,
        title="DeepSeek-V3: over 1,000 decode tokens/s a card",
        says=Says.AT_LEAST,
        figure=1000.0,
        unit="tokens/s/card",
        wording="DeepSeek-V3 671B: prefill over 4,000 and decode over 1,000 tokens/s per card",
        said=SILICONFLOW,
        workload="FP8, prefill and decode on cards of their own",
        assumed=(
            f"no user waits more than {USER_TPOT_S * 1e3:.0f} ms a token",
            "drafting with 85 % kept, or none",
            "balanced experts",
        ),
        command=f"{SWEEP} {DRAFTED_OPTIONS}",
        evaluate=_decode,
    ),
    Claim(
        name="prefill-h20",
        group=GROUP,
        title="16K prefill at 2.5 times an H20",
        says=Says.ABOUT,
        figure=2.5,
        unit="× H20",
        wording="16K input: single-card prefill 2.5 times H20",
        said="mthreads.com product page, 2026",
        workload="16K prompt; model and engine not stated",
        command="windtunnel serve llama3-70b --on mtt-s5000:8,h20:8 --sweep --sweep-prompts 16384",
        evaluate=_against_h20,
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
        assumed=("BF16 on both sides",),
        command=plan_command("qwen3-vl-8b", S5000, 8, 64, 4096),
        evaluate=_fine_tuning,
    ),
    Claim(
        name="robobrain",
        group=GROUP,
        title="RoboBrain 2.5 within 0.6 % of an H100's loss",
        says=Says.AT_MOST,
        figure=0.62,
        unit="% deviation",
        wording="loss within 0.6 % relative of H100 clusters, downstream scores above H100's",
        said="BAAI, January 2026 (arXiv 2601.14352: 0.62 %)",
        workload="8 B vision-language model, about a thousand cards, 16,384 tokens",
        assumed=(
            "a small vision-language model on digits stands for it",
            "which deviation is meant is not stated",
        ),
        command="windtunnel align digits-vqa --steps 60 --reference h100-sxm:bf16 --candidate mtt-s5000:fp8",
        evaluate=_robobrain,
    ),
)
