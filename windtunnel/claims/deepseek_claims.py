"""Claims about DeepSeek-V3's prefill and decode on cards of their own, with the settings searched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from windtunnel.claims.arithmetic import serving_lines
from windtunnel.claims.claim import Answer, Claim, Says, Setting, Steady, Variation
from windtunnel.claims.prices import S5000, card, counted
from windtunnel.claims.region import Region, Turn, solve, table
from windtunnel.estimate import Estimate
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.results.sweep_result import Point
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.sweep import Sweep
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

GROUP = "Serving"
SILICONFLOW = "Moore Threads with SiliconFlow, 2025-12-20"
DEEPSEEK = "deepseek-v3-671b"
OPTIONS = DeploymentOptions(precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95)
SWEEP = (
    f"windtunnel serve {DEEPSEEK} --on mtt-s5000:64 --precision fp8-block --enable-dbo "
    "--gpu-memory-utilization 0.95 --sweep"
)
DRAFTED = Speculation(tokens=1, acceptance=0.85)
"""One drafted token, kept 85 times in a hundred: DeepSeek-V3's report, section 5.4.3."""
DRAFTED_OPTIONS = "--num-speculative-tokens 1 --acceptance 0.85"
PREFILL, DECODE = 4000.0, 1000.0
BATCHES = (32, 64, 96, 128, 192)
CARDS = (16, 32, 64, 144)
USER_TPOT_S = 0.1
BALANCED, OVERLAP, NIC = "balanced experts", "two-batch overlap", "a network card of 400 Gb/s"


@cache
def _sweep(cards: int, chip: str, options: DeploymentOptions, *changed: str) -> Sweep:
    return Sweep(DEEPSEEK, card(chip, *changed), cards=(cards,), options=options)


def _prefilled(
    prompt: int, cards: int = 64, options: DeploymentOptions = OPTIONS, *changed: str
) -> Point | None:
    points = _sweep(cards, S5000, options, *changed).prefill((prompt,))
    return points[0] if points else None


def _rate(point: Point | None) -> Estimate | None:
    return None if point is None else point.tokens_per_s_per_gpu


def _kept(point: Point | None) -> Estimate:
    """The rate of those that keep users within their wait; none where no batch that was tried does."""
    return counted(0.0) if point is None else point.tokens_per_s_per_gpu


def _value(point: Point | None) -> float | None:
    return None if point is None else point.tokens_per_s_per_gpu.value


def _setting(point: Point, what: str, command: str) -> Setting:
    return Setting(
        label=f"{point.cards} cards (EP {point.cards}), {what}",
        prediction=point.tokens_per_s_per_gpu,
        bound=point.roofline,
        command=command,
    )


def varied(*pairs: tuple[str, str, Estimate | None]) -> tuple[Variation, ...]:
    """Variations from (assumption, what it becomes, prediction), without those that cannot be."""
    return tuple(Variation(of=of, becomes=becomes, prediction=one) for of, becomes, one in pairs if one)


def _prefill_turns() -> tuple[Turn, ...]:
    def changed(prompt: int, field: str, scale: float) -> Callable[[float], float | None]:
        return lambda value: _value(_prefilled(prompt, 64, OPTIONS, f"{field}={value * scale}"))

    now = _value(_prefilled(16384)) or 1.0
    return (
        solve(
            "length of a prompt, 64 cards",
            "tokens",
            1024.0,
            better=128.0,
            worse=65536.0,
            figure=PREFILL,
            predict=lambda prompt: _value(_prefilled(round(prompt))),
        ),
        solve(
            "part of a prompt of 16K found in the cache and counted",
            "%",
            1.0,
            better=99.0,
            worse=0.01,
            figure=PREFILL,
            predict=lambda part: now / (1 - part / 100),
        ),
        solve(
            "busiest expert rank over the mean, prompts of 4K",
            "",
            1.0,
            better=1.0,
            worse=4.0,
            figure=PREFILL,
            predict=lambda uneven: _value(_prefilled(4096, 64, replace(OPTIONS, expert_imbalance=uneven))),
        ),
        solve(
            "FP8 peak of which products get what they get now, prompts of 16K",
            "TFLOP/s",
            1000.0,
            better=8000.0,
            worse=125.0,
            figure=PREFILL,
            predict=changed(16384, "peak_flops.fp8", 1e12),
        ),
        solve(
            "the same, prompts of 4K",
            "TFLOP/s",
            1000.0,
            better=8000.0,
            worse=125.0,
            figure=PREFILL,
            predict=changed(4096, "peak_flops.fp8", 1e12),
        ),
        solve(
            "network card, prompts of 4K",
            "GB/s",
            50.0,
            better=500.0,
            worse=1.0,
            figure=PREFILL,
            predict=changed(4096, "nic_bytes_per_s", 1e9),
        ),
    )


def _prefill_regions() -> tuple[Region, ...]:
    prompts = tuple((f"{n // 1024}K", n) for n in (1024, 2048, 4096, 8192, 16384, 32768))
    ways = (
        ("overlap, balanced", OPTIONS),
        ("overlap, busiest rank × 1.3", replace(OPTIONS, expert_imbalance=1.3)),
        ("no overlap, balanced", replace(OPTIONS, enable_dbo=False)),
        ("no overlap, busiest rank × 1.3", replace(OPTIONS, enable_dbo=False, expert_imbalance=1.3)),
    )
    return (
        table(
            "tokens/s/card by cards, balanced experts, two-batch overlap",
            "tokens of a prompt",
            tuple((f"{n} cards", n) for n in CARDS),
            prompts,
            lambda cards, prompt: _rate(_prefilled(prompt, cards)),
        ),
        table(
            "tokens/s/card on 64 cards by what is hidden and how even experts are",
            "tokens of a prompt",
            ways,
            prompts,
            lambda options, prompt: _rate(_prefilled(prompt, 64, options)),
        ),
    )


def _prefill() -> Answer:
    command = f"{SWEEP} --sweep-cards 16,32,64"
    points = [(prompt, _prefilled(prompt, cards)) for cards in (16, 32, 64) for prompt in (1024, 4096, 16384)]
    found = deploy(shipped_model(DEEPSEEK), cluster_of(card(), 64), OPTIONS)
    four = [
        _rate(_prefilled(4096, 64, options, *more))
        for options, more in (
            (replace(OPTIONS, enable_dbo=False), ()),
            (replace(OPTIONS, expert_imbalance=1.3), ()),
            (replace(OPTIONS, expert_imbalance=2.0), ()),
            (OPTIONS, ("nic_bytes_per_s=25e9",)),
            (OPTIONS, ("link_bytes_per_s=196e9",)),
        )
    ]
    return Answer(
        settings=tuple(
            _setting(point, f"prompts of {prompt:,}", command) for prompt, point in points if point
        ),
        variations=varied(
            ("short prompts", "prompts of 4,096", _rate(_prefilled(4096))),
            ("short prompts", "prompts of 16,384", _rate(_prefilled(16384))),
            ("short prompts", "prompts of 32,768", _rate(_prefilled(32768))),
            (OVERLAP, "none, prompts of 4,096", four[0]),
            (BALANCED, "busiest rank 1.3 × the mean, prompts of 4,096", four[1]),
            (BALANCED, "busiest rank twice the mean, prompts of 4,096", four[2]),
            (NIC, "200 Gb/s, prompts of 4,096", four[3]),
            (NIC, "half the MTLink bandwidth, prompts of 4,096", four[4]),
        ),
        steady=(
            Steady(
                of="no cached prefix",
                why="tokens found in the cache and counted would only raise the figure; the table "
                "of what would have to be true says how many it would take",
            ),
        ),
        regions=_prefill_regions(),
        turns=_prefill_turns(),
        would_take="short prompts, cached prefixes counted as computed, or kernels faster than those measured",
        why=(
            *(
                f"{point.cards} cards, prompts of {prompt:,}: {point.tokens_per_s_per_gpu.value:,.0f} of at most "
                f"{point.roofline:,.0f} tokens/s/card"
                for prompt, point in points
                if point
            ),
            *serving_lines(
                found, Batch(sequences=4, new=4096), "one rank of 64, a pass of 4 prompts of 4,096"
            ),
        ),
    )


def _decoded(
    cards: int,
    context: int,
    speculation: Speculation,
    options: DeploymentOptions = OPTIONS,
    tpot_s: float = USER_TPOT_S,
    *changed: str,
) -> Point | None:
    """The highest rate of those that fit and keep every user within ``tpot_s``."""
    points = _sweep(cards, S5000, options, *changed).decode(BATCHES, (context,), speculation)
    good = [point for point in points if point.fits and point.step_s.value <= tpot_s]
    return max(good, key=lambda point: point.tokens_per_s_per_gpu.value, default=None)


def _decode_regions() -> tuple[Region, ...]:
    contexts = tuple((f"{n // 1024}K", n) for n in (1024, 2048, 4096, 8192, 16384))
    groups = tuple(
        (f"{cards} cards, {'one drafted token' if drafted.tokens else 'no drafting'}", (cards, drafted))
        for drafted in (Speculation(), DRAFTED)
        for cards in CARDS
    )

    def by_batch(batch: int, context: int) -> Estimate | None:
        (point,) = _sweep(64, S5000, OPTIONS).decode((batch,), (context,), DRAFTED)
        return point.tokens_per_s_per_gpu if point.fits else None

    return (
        table(
            f"tokens/s/card, best batch within {USER_TPOT_S * 1e3:.0f} ms a token",
            "tokens of context",
            groups,
            contexts,
            lambda row, context: _rate(_decoded(row[0], context, row[1])),
        ),
        table(
            "tokens/s/card on 64 cards with one drafted token, whatever a user waits",
            "tokens of context",
            tuple((f"batch {n}", n) for n in (16, *BATCHES)),
            contexts,
            by_batch,
        ),
    )


def _decode_turns() -> tuple[Turn, ...]:
    def drafted(acceptance: float) -> float | None:
        return _value(_decoded(64, 4096, Speculation(tokens=1, acceptance=acceptance)))

    return (
        solve(
            "tokens of context, 64 cards, no drafting",
            "tokens",
            2048.0,
            better=256.0,
            worse=32768.0,
            figure=DECODE,
            predict=lambda context: _value(_decoded(64, round(context), Speculation())),
        ),
        solve(
            "tokens of context, 64 cards, one drafted token",
            "tokens",
            2048.0,
            better=256.0,
            worse=32768.0,
            figure=DECODE,
            predict=lambda context: _value(_decoded(64, round(context), DRAFTED)),
        ),
        solve(
            "part of drafted tokens that is kept, 64 cards, 4K",
            "",
            0.85,
            better=1.0,
            worse=0.01,
            figure=DECODE,
            predict=drafted,
        ),
        solve(
            "seconds that a user may wait for a token, 64 cards, 4K, one drafted",
            "s",
            USER_TPOT_S,
            better=1.0,
            worse=0.005,
            figure=DECODE,
            predict=lambda wait: _value(_decoded(64, 4096, DRAFTED, OPTIONS, wait)),
        ),
        solve(
            "busiest expert rank over the mean, 64 cards, 4K, one drafted",
            "",
            1.0,
            better=1.0,
            worse=8.0,
            figure=DECODE,
            predict=lambda uneven: _value(
                _decoded(64, 4096, DRAFTED, replace(OPTIONS, expert_imbalance=uneven))
            ),
        ),
        solve(
            "memory bandwidth, 64 cards, 4K, no drafting",
            "TB/s",
            1.6,
            better=16.0,
            worse=0.16,
            figure=DECODE,
            predict=lambda value: _value(
                _decoded(64, 4096, Speculation(), OPTIONS, USER_TPOT_S, f"memory_bytes_per_s={value * 1e12}")
            ),
        ),
    )


def _decode() -> Answer:
    command = f"{SWEEP} --sweep-cards 32,64,144 --sweep-batches 32,64,96,128,192 --sweep-contexts 2048,4096"
    settings = []
    for drafted in (Speculation(), DRAFTED):
        said = f"{command} {DRAFTED_OPTIONS}" if drafted is DRAFTED else command
        for cards in (32, 64, 144):
            for context in (2048, 4096):
                if (point := _decoded(cards, context, drafted)) is not None:
                    more = ", one drafted" if drafted.tokens else ""
                    what = f"batch {point.batch}, {context:,} tokens of context{more}"
                    settings.append(_setting(point, what, said))
    found = deploy(shipped_model(DEEPSEEK), cluster_of(card(), 64), OPTIONS)
    uneven = replace(OPTIONS, expert_imbalance=1.3)
    return Answer(
        settings=tuple(settings),
        variations=varied(
            (
                BALANCED,
                "busiest rank 1.3 × the mean, 64 cards, 4K",
                _rate(_decoded(64, 4096, DRAFTED, uneven)),
            ),
            (
                "drafting with 85 % kept, or none",
                "none, 64 cards, 4K",
                _rate(_decoded(64, 4096, Speculation())),
            ),
            (
                "drafting with 85 % kept, or none",
                "none, 64 cards, 8K",
                _rate(_decoded(64, 8192, Speculation())),
            ),
            (
                "no user waits more than 100 ms a token",
                "50 ms, 64 cards, 4K (0: no batch keeps to it)",
                _kept(_decoded(64, 4096, DRAFTED, OPTIONS, 0.05)),
            ),
            (
                "no user waits more than 100 ms a token",
                "25 ms, 64 cards, 4K (0: no batch keeps to it)",
                _kept(_decoded(64, 4096, DRAFTED, OPTIONS, 0.025)),
            ),
            (
                OVERLAP,
                "none, 64 cards, 4K",
                _rate(_decoded(64, 4096, DRAFTED, replace(OPTIONS, enable_dbo=False))),
            ),
            ("cards as listed", "16, the fewest that hold the model, 4K", _rate(_decoded(16, 4096, DRAFTED))),
            (
                NIC,
                "200 Gb/s, 64 cards, 4K",
                _rate(_decoded(64, 4096, DRAFTED, OPTIONS, USER_TPOT_S, "nic_bytes_per_s=25e9")),
            ),
        ),
        regions=_decode_regions(),
        turns=_decode_turns(),
        would_take="experts over many cards, drafted tokens, and a large batch: "
        f"each user then waits up to {USER_TPOT_S * 1e3:.0f} ms a token",
        why=(
            *(
                f"{s.label}: {s.prediction.value:,.0f} of at most {s.bound or 0:,.0f} tokens/s/card"
                for s in settings
            ),
            *serving_lines(
                found, Batch(sequences=64, context=4096), "one rank of 64, a step of 64 sequences of 4,096"
            ),
        ),
    )


CLAIMS = (
    Claim(
        name="deepseek-prefill",
        group=GROUP,
        title="DeepSeek-V3: over 4,000 prefill tokens/s a card",
        says=Says.AT_LEAST,
        figure=PREFILL,
        unit="tokens/s/card",
        wording="DeepSeek-V3 671B: prefill over 4,000 and decode over 1,000 tokens/s per card",
        said=SILICONFLOW,
        workload="FP8, prefill and decode on cards of their own; cards, prompts and batches are not stated",
        assumed=("short prompts", "no cached prefix", BALANCED, OVERLAP, NIC),
        command=SWEEP,
        evaluate=_prefill,
    ),
    Claim(
        name="deepseek-decode",
        group=GROUP,
        title="DeepSeek-V3: over 1,000 decode tokens/s a card",
        says=Says.AT_LEAST,
        figure=DECODE,
        unit="tokens/s/card",
        wording="DeepSeek-V3 671B: prefill over 4,000 and decode over 1,000 tokens/s per card",
        said=SILICONFLOW,
        workload="FP8, prefill and decode on cards of their own; cards, context, batch and waiting are not stated",
        assumed=(
            "cards as listed",
            "no user waits more than 100 ms a token",
            "drafting with 85 % kept, or none",
            BALANCED,
            OVERLAP,
            NIC,
        ),
        command=f"{SWEEP} {DRAFTED_OPTIONS}",
        evaluate=_decode,
    ),
)
