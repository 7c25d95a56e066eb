"""Prints the tables of docs/serving.md that say what cards sustain: `python -m benchmarks.serving_tables`."""

from __future__ import annotations

from collections.abc import Sequence

from windtunnel import units
from windtunnel.recipes.layout import Precision
from windtunnel.results.sweep_result import Point
from windtunnel.serving.deployment import DeploymentOptions
from windtunnel.serving.step_time import Speculation
from windtunnel.serving.sweep import Sweep

CHIPS = (
    ("mtt-s5000", "S5000", (16, 32, 72, 144)),
    ("h20", "H20", (32, 144)),
    ("h800", "H800", (32, 144)),
    ("h100-sxm", "H100", (32, 144)),
)
DRAFT = Speculation(tokens=1, acceptance=0.8)


def main() -> None:
    """All tables, as Markdown."""
    _deepseek()
    print()
    _qwen()
    print()
    _apart()


def _deepseek() -> None:
    _head(
        "card, EP",
        "prompts of 1K",
        "4K",
        "16K",
        "roofline",
        "decode 64 × 4K",
        "128 × 4K",
        "128 × 4K, MTP 1",
        "roofline",
        "step 128",
    )
    for chip, title, counts in CHIPS:
        sweep = Sweep("deepseek-v3-671b", chip, cards=counts)
        prompts = sweep.prefill((1024, 4096, 16384))
        decodes = sweep.decode((64, 128))
        drafted = sweep.decode((128,), speculation=DRAFT)
        for cards in counts:
            prompt = _of(prompts, cards)
            decode = _of(decodes, cards)
            cells = [_cell(point) for point in prompt]
            cells += [f"{prompt[1].roofline:,.0f}"]
            cells += [_cell(point) for point in (*decode, *_of(drafted, cards))]
            cells += [f"{decode[1].roofline:,.0f}", units.seconds(decode[1].step_s.value)]
            print(f"| {title} {cards} | " + " | ".join(cells) + " |")


def _qwen() -> None:
    _head(
        "card",
        "prompts of 1K",
        "4K",
        "16K",
        "roofline",
        "decode 16 × 4K",
        "64 × 4K",
        "256 × 4K",
        "roofline",
        "step 64",
    )
    options = DeploymentOptions(precision=Precision.FP8, tensor_parallel_size=8)
    for chip, title, _ in CHIPS:
        sweep = Sweep("qwen3.5-397b-a17b", chip, cards=(8,), options=options)
        prompt, decode = sweep.prefill((1024, 4096, 16384)), sweep.decode((16, 64, 256))
        cells = [_cell(point) for point in prompt] + [f"{prompt[1].roofline:,.0f}"]
        cells += [_cell(point) for point in decode]
        cells += [f"{decode[1].roofline:,.0f}", units.seconds(decode[1].step_s.value)]
        print(f"| {title} 8 | " + " | ".join(cells) + " |")


def _apart() -> None:
    _head(
        "card",
        "prefill unit",
        "decode unit",
        "batch a rank",
        "cards for prompts",
        "output tokens/s a card, all cards",
        "a token",
    )
    for chip, title, counts in CHIPS:
        for words, draft in (("", Speculation()), (", MTP 1", DRAFT)):
            options = DeploymentOptions(
                precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95, speculation=draft
            )
            pair = Sweep("deepseek-v3-671b", chip, cards=counts, options=options).disaggregated(4096, 1024)
            if pair is None:
                print(f"| {title}{words} | none within 100 ms a token | | | | | |")
                continue
            step = units.seconds(pair.decode.step_s.value)
            print(
                f"| {title}{words} | {pair.prefill.cards} | {pair.decode.cards} | {pair.decode.batch} | "
                f"{units.percent(pair.prefill_share)} | {pair.output_tokens_per_s_per_gpu:,.0f} | {step} |"
            )


def _head(*names: str) -> None:
    print("| " + " | ".join(names) + " |")
    print("|---" * len(names) + "|")


def _of(points: Sequence[Point], cards: int) -> list[Point]:
    return [point for point in points if point.cards == cards]


def _cell(point: Point) -> str:
    rate = point.tokens_per_s_per_gpu
    mark = "" if point.fits else " *"
    return f"{rate.value:,.0f} ({rate.low:,.0f} – {rate.high:,.0f}){mark}"


if __name__ == "__main__":
    main()
