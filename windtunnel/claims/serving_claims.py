"""Claims about serving beside an H20, and for one user alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from windtunnel.claims.arithmetic import serving_lines
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady
from windtunnel.claims.deepseek_claims import DEEPSEEK, DRAFTED, DRAFTED_OPTIONS, GROUP, varied
from windtunnel.claims.prices import H20, S5000, card, ratio
from windtunnel.claims.region import Turn, solve, table
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.results.sweep_result import Point
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.sweep import PASS_TOKENS, Sweep
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

QWEN, DENSE = "qwen3.5-397b-a17b", "llama3-70b"


@cache
def _beside_h20(
    model: str, ours: Precision, theirs: Precision, cards: int, prompt: int = 16384, *changed: str
) -> tuple[Estimate, float] | None:
    points = []
    for chip, precision in ((card(S5000, *changed), ours), (card(H20), theirs)):
        options = DeploymentOptions(precision=precision, gpu_memory_utilization=0.95)
        found = Sweep(model, chip, cards=(cards,), options=options).prefill(
            (prompt,), max(PASS_TOKENS, prompt)
        )
        if not found:
            return None
        points.append(found[0])
    quotient = ratio(points[0].tokens_per_s_per_gpu, points[1].tokens_per_s_per_gpu)
    return quotient, points[0].roofline / points[1].roofline


H20_CASES = (
    (DEEPSEEK, 16),
    (QWEN, 8),
    (DENSE, 8),
    ("llama3-8b", 1),
    ("qwen3-vl-8b", 1),
)
FP8, BF16 = Precision.FP8_BLOCK, Precision.BF16


def _h20_turns() -> tuple[Turn, ...]:
    def value(model: str, cards: int, field: str, scale: float) -> Callable[[float], float | None]:
        def predict(changed: float) -> float | None:
            found = _beside_h20(model, FP8, FP8, cards, 16384, f"{field}={changed * scale}")
            return None if found is None else found[0].value

        return predict

    return tuple(
        solve(
            f"{name}, {model} in FP8 on {cards}",
            unit,
            now,
            better=now * 16,
            worse=now / 16,
            figure=2.5,
            predict=value(model, cards, field, scale),
        )
        for model, cards in ((DEEPSEEK, 16), (DENSE, 8), ("llama3-8b", 1))
        for name, unit, now, field, scale in (
            ("FP8 peak of which products get what they get now", "TFLOP/s", 1000.0, "peak_flops.fp8", 1e12),
            *((("MTLink of a card, one way", "GB/s", 392.0, "link_bytes_per_s", 1e9),) if cards > 1 else ()),
        )
    )


def _against_h20() -> Answer:
    settings = [
        Setting(
            label=f"{model}, {precision}, {cards} of each",
            prediction=found[0],
            bound=found[1],
            command=f"windtunnel serve {model} --on mtt-s5000:{cards},h20:{cards} "
            f"--precision {precision} --sweep --sweep-prompts 16384",
        )
        for model, cards in H20_CASES
        for precision in (FP8, BF16)
        if (found := _beside_h20(model, precision, precision, cards)) is not None
    ]

    def cell(case: tuple[str, int], pair: tuple[Precision, Precision, int]) -> Estimate | None:
        found = _beside_h20(case[0], pair[0], pair[1], case[1], pair[2])
        return None if found is None else found[0]

    region = table(
        "times an H20",
        "precision here and there, prompt",
        tuple((f"{model} on {cards}", (model, cards)) for model, cards in H20_CASES),
        (
            ("FP8, FP8, 4K", (FP8, FP8, 4096)),
            ("FP8, FP8, 16K", (FP8, FP8, 16384)),
            ("FP8, FP8, 64K", (FP8, FP8, 65536)),
            ("BF16, BF16, 16K", (BF16, BF16, 16384)),
            ("FP8, BF16, 16K", (FP8, BF16, 16384)),
        ),
        cell,
    )

    def first(
        model: str, ours: Precision, theirs: Precision, cards: int, prompt: int = 16384, *changed: str
    ) -> Estimate | None:
        found = _beside_h20(model, ours, theirs, cards, prompt, *changed)
        return None if found is None else found[0]

    return Answer(
        settings=tuple(settings),
        variations=varied(
            ("one precision on both", "FP8 here, BF16 there, Llama-3-8B", first("llama3-8b", FP8, BF16, 1)),
            ("one precision on both", "FP8 here, BF16 there, Llama-3-70B", first(DENSE, FP8, BF16, 8)),
            (
                "links as measured",
                "half the MTLink bandwidth, DeepSeek-V3",
                first(DEEPSEEK, FP8, FP8, 16, 16384, "link_bytes_per_s=196e9"),
            ),
            (
                "single card: each card of a deployment",
                "one card alone, Llama-3-8B in FP8",
                first("llama3-8b", FP8, FP8, 1),
            ),
            (
                "single card: each card of a deployment",
                "one card alone, Llama-3-8B in BF16",
                first("llama3-8b", BF16, BF16, 1),
            ),
            ("a prompt of 16K in one pass", "64K", first(DEEPSEEK, FP8, FP8, 16, 65536)),
        ),
        regions=(region,),
        turns=_h20_turns(),
        would_take="model, engine and precision of both sides are not stated",
        why=(
            f"FP8 peaks {card().peak('fp8').value / card(H20).peak('fp8').value:.2f} to 1, "
            f"BF16 peaks {card().peak('bf16').value / card(H20).peak('bf16').value:.2f} to 1, memory bandwidth "
            f"{card().memory_bytes_per_s.value / card(H20).memory_bytes_per_s.value:.2f} to 1",
            "a prefill of 16K is bound by products; exchange over the mesh costs S5000 the rest",
            *(
                line
                for name in (S5000, H20)
                for line in serving_lines(
                    deploy(
                        shipped_model("llama3-8b"),
                        cluster_of(card(name), 1),
                        DeploymentOptions(precision=FP8),
                    ),
                    Batch(sequences=1, new=16384),
                    f"{name}, Llama-3-8B in FP8, one prompt of 16,384",
                )
            ),
        ),
    )


def _stream_options(cards: int, tensor: int, eager: bool) -> DeploymentOptions:
    return DeploymentOptions(
        precision=FP8,
        tensor_parallel_size=tensor,
        data_parallel_size=cards // tensor,
        enable_expert_parallel=True,
        gpu_memory_utilization=0.95,
        enforce_eager=eager,
    )


@cache
def _stream(
    cards: int, tensor: int, speculation: Speculation, eager: bool = False, *changed: str
) -> Point | None:
    options = _stream_options(cards, tensor, eager)
    try:
        points = Sweep(DEEPSEEK, card(S5000, *changed), cards=(cards,), options=options).decode(
            (1,), (4096,), speculation
        )
    except WindtunnelError:
        return None
    return points[0] if points else None


def _user(point: Point | None) -> Estimate | None:
    return None if point is None else point.step_s.inverse(1.0)


def _single_stream() -> Answer:
    settings = []
    for cards, tensor in ((16, 8), (16, 16), (32, 8)):
        for drafted in (Speculation(), DRAFTED):
            if (found := _user(_stream(cards, tensor, drafted))) is not None:
                more = f" {DRAFTED_OPTIONS}" if drafted.tokens else ""
                settings.append(
                    Setting(
                        label=f"{cards} cards, TP {tensor}, EP {cards}{', one drafted' if drafted.tokens else ''}",
                        prediction=found,
                        command=f"windtunnel serve {DEEPSEEK} --on mtt-s5000:{cards} --tp {tensor} --dp "
                        f"{cards // tensor} "
                        f"--ep --precision fp8-block --gpu-memory-utilization 0.95 --sweep --sweep-batches 1{more}",
                    )
                )

    def wire(latency: float) -> float | None:
        found = _user(_stream(16, 8, DRAFTED, False, f"link_bytes_per_s={latency * 1e9}"))
        return None if found is None else found.value

    return Answer(
        settings=tuple(settings),
        variations=varied(
            ("captured graphs", "every kernel issued by the host", _user(_stream(16, 8, DRAFTED, True))),
            (
                "drafting with 85 % kept, or none",
                "none, 16 cards, TP 8",
                _user(_stream(16, 8, Speculation())),
            ),
        ),
        steady=(
            Steady(
                of="4,096 tokens of context",
                why="one sequence's cache is 0.3 GB beside 40 GB of weights on a card: length "
                "moves a stream by less than the interval",
            ),
        ),
        turns=(
            solve(
                "MTLink of a card, one way",
                "GB/s",
                392.0,
                better=3920.0,
                worse=39.2,
                predict=wire,
                figure=100.0,
            ),
        ),
        would_take="fewer and shorter waits: a token passes 61 layers, each with kernels and exchanges too "
        "small for the card",
        why=(
            *(f"{s.label}: {1e3 / s.prediction.value:.1f} ms a token" for s in settings),
            *serving_lines(
                deploy(shipped_model(DEEPSEEK), cluster_of(card(), 16), _stream_options(16, 16, False)),
                Batch(sequences=1, context=4096),
                "one card of 16 (TP 16), one token of one sequence",
            ),
        ),
    )


CLAIMS = (
    Claim(
        name="single-stream",
        group=GROUP,
        title="DeepSeek-R1 in full at 100 tokens/s for one user",
        says=Says.AT_LEAST,
        figure=100.0,
        unit="tokens/s",
        wording="full DeepSeek-R1 at 100 tokens/s, one stream",
        said="myzaker, July 2025: a demonstration",
        workload="one stream; cards and drafting are not stated",
        assumed=("captured graphs", "drafting with 85 % kept, or none", "4,096 tokens of context"),
        command=f"windtunnel serve {DEEPSEEK} --on mtt-s5000:16 --tp 8 --dp 2 --ep --precision fp8-block "
        f"--gpu-memory-utilization 0.95 --sweep --sweep-batches 1 {DRAFTED_OPTIONS}",
        evaluate=_single_stream,
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
        workload="16K prompt; model, precision and engine are not stated",
        assumed=(
            "one precision on both",
            "single card: each card of a deployment",
            "a prompt of 16K in one pass",
            "links as measured",
        ),
        command="windtunnel serve llama3-70b --on mtt-s5000:8,h20:8 --sweep --sweep-prompts 16384",
        evaluate=_against_h20,
    ),
)
