"""Prints the tables of docs/serving.md: `python -m benchmarks.serving_tables`.

What cards sustain needs nothing; with ``--sessions FILE`` (recorded coding-agent sessions) also what tiers of cache
find, and with ``--published FILE`` (``infer_published_misc.csv``) what was published of large deployments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from windtunnel import units
from windtunnel.recipes.layout import Precision
from windtunnel.results.sweep_result import Point
from windtunnel.serving.arrivals import stretched
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.expert_load import PUBLISHED
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.offload import OffloadOptions
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.sweep import Sweep
from windtunnel.serving.trace_readers import read_trace
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.serving_rows import published

CHIPS = (
    ("mtt-s5000", "S5000", (16, 32, 72, 144)),
    ("h20", "H20", (32, 144)),
    ("h800", "H800", (32, 144)),
    ("h100-sxm", "H100", (32, 144)),
)
DRAFT = Speculation(tokens=1, acceptance=0.8)


SESSIONS_SPEED = 20.0
PUBLISHED_72 = 22_282 / 8
"""SGLang's decode on 72 H100: tokens/s a card (lmsys.org, 2025-05-05)."""


def main() -> None:
    """All tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=Path)
    parser.add_argument("--published", type=Path)
    asked = parser.parse_args()
    for table in (_deepseek, _qwen, _apart):
        table()
        print()
    if asked.sessions:
        _tiers(asked.sessions)
        print()
    if asked.published:
        _published(asked.published)


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
        "roofline at 128",
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
        "roofline at 64",
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


def _tiers(sessions: Path) -> None:
    """Llama-3 70B, TP 4, on 8 S5000: sessions come 20 times as fast as they were recorded."""
    gib = 2**30
    rows = (
        ("card alone", Stack.VLLM, OffloadOptions()),
        ("host 512 GiB", Stack.VLLM, OffloadOptions(kv_offloading_size_bytes=512 * gib)),
        ("host 2,048 GiB", Stack.VLLM, OffloadOptions(kv_offloading_size_bytes=2048 * gib)),
        (
            "host 512 GiB, storage 15 TB at 25 GB/s",
            Stack.VLLM,
            OffloadOptions(kv_offloading_size_bytes=512 * gib, storage_bytes=15e12, storage_bytes_per_s=25e9),
        ),
        ("SGLang, card alone", Stack.SGLANG, OffloadOptions()),
        (
            "SGLang, host 2 × the card, storage 15 TB at 25 GB/s",
            Stack.SGLANG,
            OffloadOptions(hicache_ratio=2.0, storage_bytes=15e12, storage_bytes_per_s=25e9),
        ),
    )
    requests = tuple(stretched(read_trace(sessions).requests, SESSIONS_SPEED))
    longest = max(one.last_tokens for one in requests)
    _head("cache", "found on the card", "in host memory", "in storage", "TTFT p50")
    for words, stack, offload in rows:
        options = DeploymentOptions(tensor_parallel_size=4, stack=stack, offload=offload)
        found = deploy(shipped_model("llama3-70b"), cluster_of("mtt-s5000", 8), options, longest)
        result = predict(found, Load(requests=requests, words="sessions"))
        tiers = [units.percent(tier.hit_fraction) for tier in result.tiers]
        card = result.cache_hit_fraction
        cells = [units.percent(card), *[*tiers, "", ""][:2], units.seconds(result.ttft_s.p50)]
        print(f"| {words} | " + " | ".join(cells) + " |")


def _published(file: Path) -> None:
    """Measured against predicted, of DeepSeek-V3's published deployments that state what ran."""
    _head("deployment", "measured", "predicted", "80 % interval", "error")
    for words, row in published(file, "DeepSeek"):
        _compared(words, row.measured, row.predicted, row.low, row.high)
    options = DeploymentOptions(
        precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95, stack=Stack.SGLANG,
        num_redundant_experts=32, deepep="2025-05", expert_load=f"{PUBLISHED}:2000",
    )  # fmt: skip
    sweep = Sweep("deepseek-v3-671b", "h100-sxm", cards=(72,), options=options)
    rate = sweep.decode((256,), (2050,))[0].tokens_per_s_per_gpu
    words = "SGLang, 72 × H100, decode, 256 a card, 2,000 tokens in and 100 out (22,282 a node)"
    _compared(words, PUBLISHED_72, rate.value, rate.low, rate.high)


def _compared(words: str, measured: float, predicted: float, low: float, high: float) -> None:
    error = f"{predicted / measured - 1:+.0%}"
    print(f"| {words} | {measured:,.0f} | {predicted:,.0f} | {low:,.0f} – {high:,.0f} | {error} |")


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
