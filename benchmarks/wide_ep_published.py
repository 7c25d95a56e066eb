"""Published wide expert-parallel and mixture serving runs beside predictions: `python -m benchmarks.wide_ep_published`.

Prints the table of docs/wide-expert-parallel.md. ``wide_ep_published.csv`` holds what the sources state, one figure a
line, tokens a second and card; nothing is fitted to it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from windtunnel.estimate import Estimate
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.uncertainty import width_of
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

FILE = Path(__file__).with_suffix(".csv")


class Source(NamedTuple):
    """Who published, with which engine; where."""

    title: str
    url: str


SOURCES = {
    "ant-h20": Source("Ant Group, SGLang", "https://lmsys.org/blog/2025-09-26-sglang-ant-group/"),
    "sbo-h20": Source("Ant Group, pull request", "https://github.com/deepseek-ai/DeepEP/pull/390"),
    "vllm-h200": Source("vLLM and llm-d", "https://blog.vllm.ai/2025/12/17/large-scale-serving.html"),
    "mtp-h200": Source("Eigen AI, SGLang", "https://lmsys.org/blog/2025-07-17-mtp/"),
    "rtp-h800": Source(
        "Alibaba, RTP-LLM",
        "https://github.com/alibaba/rtp-llm/blob/main/docs/RTP-LLM-DeepSeek-Replay-Tech-Report.md",
    ),
    "k2-h200": Source("Mooncake, SGLang", "https://lmsys.org/blog/2025-07-17-k2-large-scale-ep/"),
    "sglang-gb200": Source("SGLang", "https://lmsys.org/blog/2025-09-25-gb200-part-2/"),
    "vllm-gb200": Source("vLLM", "https://blog.vllm.ai/2026/02/03/dsr1-gb200-part1.html"),
    "vllm-gb300": Source("vLLM and DaoCloud", "https://blog.vllm.ai/2026/02/13/gb300-deepseek.html"),
    "inferencex-h200": Source(
        "InferenceX, SGLang", "https://github.com/SemiAnalysisAI/InferenceX/issues/870"
    ),
    "trtllm-h200": Source(
        "NVIDIA, TensorRT-LLM",
        "https://nvidia.github.io/TensorRT-LLM/blogs/Best_perf_practice_on_DeepSeek-R1_in_TensorRT-LLM.html",
    ),
}
SEQUENCES_MAX = 2048
ROUNDS = 3
"""Closed loops are simulated for this many requests a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One published figure and what ran.

    Attributes:
        source: key of ``SOURCES``. figure: where it stands there, ``text`` or ``chart`` (read off to about 1 %).
        network_gbit_per_s: a card's share of its node's network cards. month: ISO, of the release that ran.
        phase: ``prefill`` (a pass of ``batch`` prompts a rank), ``decode`` (a step of ``batch`` sequences a rank at
            their mean length; 0: as many as the cache holds) or ``closed`` (``batch`` clients of the deployment).
        step_tokens: most tokens of a step, which only ``closed`` asks for.
        accepted: tokens that a check of ``drafts`` drafted ones yields. overlap: ``two-batch`` or ``no``.
        routing, imbalance, spare: ``expert_load``, ``expert_imbalance`` and ``num_redundant_experts``.
        measured: tokens/s a card. assumed: what the source does not say. not_modelled: what ran and is not priced.
    """

    name: str
    source: str
    figure: str
    model: str
    chip: str
    cards: int
    network_gbit_per_s: int
    engine: str
    month: str
    phase: str
    tensor: int
    prompt: int
    output: int
    batch: int
    step_tokens: int
    drafts: int
    accepted: float
    weights: str
    cache: str
    overlap: str
    routing: str
    imbalance: float
    spare: int
    measured: float
    assumed: str
    not_modelled: str


def read(file: Path = FILE) -> tuple[Run, ...]:
    """All figures, in the order of the file."""
    kinds = {field.name: {"int": int, "float": float}.get(str(field.type), str) for field in fields(Run)}
    with file.open(newline="", encoding="utf-8") as lines:
        return tuple(
            Run(**{name: kinds[name](text) for name, text in row.items()}) for row in csv.DictReader(lines)
        )


def acceptance(yielded: float, drafts: int) -> float:
    """The acceptance of each draft after the last with which a check yields ``yielded`` tokens."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        enough = Speculation(tokens=drafts, acceptance=middle).yielded >= yielded
        low, high = (low, middle) if enough else (middle, high)
    return high


def deployed(run: Run) -> Deployment:
    """The deployment as the source states it."""
    card = chip(run.chip, [f"nic_bytes_per_s={run.network_gbit_per_s / 8}e9"])
    ranks = run.cards // run.tensor
    sequences = -(-run.batch // ranks) if run.phase == "closed" else SEQUENCES_MAX
    drafts = (
        Speculation(tokens=run.drafts, acceptance=acceptance(run.accepted, run.drafts))
        if run.drafts
        else Speculation()
    )
    options = DeploymentOptions(
        tensor_parallel_size=run.tensor, data_parallel_size=ranks, enable_expert_parallel=ranks > 1,
        precision=Precision(run.weights), kv_cache_dtype=run.cache, gpu_memory_utilization=0.95,
        max_num_seqs=sequences, max_num_batched_tokens=run.step_tokens, enable_prefix_caching=False,
        enable_dbo=run.overlap == "two-batch",
        expert_load=run.routing, expert_imbalance=run.imbalance, num_redundant_experts=run.spare,
        deepep=run.month, stack=Stack(run.engine), speculation=drafts,
    )  # fmt: skip
    return deploy(shipped_model(run.model), cluster_of(card, run.cards), options, run.prompt + run.output)


def predicted(run: Run) -> Estimate:
    """Tokens/s a card with its 80 % interval: of prompts where ``phase`` is prefill, else of outputs."""
    found = deployed(run)
    data, cards = found.layout.data, found.layout.cards
    if run.phase == "closed":
        lengths = Lengths(prompt=run.prompt, output=run.output)
        requests = tuple(drawn(ROUNDS * run.batch, lengths))
        load = Load(requests=requests, words="closed", concurrency=run.batch)
        return predict(found, load).decode_tokens_per_s_per_gpu
    if run.phase == "prefill":
        seconds = found.step.mixed_s(0, 0, [(run.prompt, 0)] * run.batch)
        width = width_of(found, Batch(sequences=run.batch, new=run.prompt))
        return width.rate(run.prompt * run.batch * data / seconds / cards)
    context = run.prompt + run.output // 2
    batch = run.batch or min(SEQUENCES_MAX, found.cache_tokens // context)
    seconds = found.step.decode_s(batch, batch * context)
    return width_of(found, Batch(sequences=batch, context=context)).rate(batch * data / seconds / cards)


def words(run: Run) -> str:
    """What ran, in short."""
    ranks = f"TP {run.tensor}" if run.tensor > 1 else f"EP {run.cards}"
    bits = "4 bits" if run.weights == "nvfp4" else "8 bits"
    model = "Kimi-K2, " if run.model == "kimi-k2" else ""
    where = f"{model}{run.cards} × {run.chip.upper()}, {ranks}, {bits}"
    if run.phase == "prefill":
        return f"{where}, prompts of {run.prompt:,}"
    if run.phase == "closed":
        return f"{where}, {run.batch:,} clients, {run.prompt:,} in and {run.output:,} out"
    batch = f"{run.batch:,} a card" if run.batch else "a full cache"
    drafts = f", {run.drafts} drafted" if run.drafts else ""
    return f"{where}, decode, {batch}, {run.prompt:,} in and {run.output:,} out{drafts}"


def main() -> None:
    """The table, as Markdown."""
    print("| run | measured | predicted | 80 % interval | error |")
    print("|---|---|---|---|---|")
    for run in read():
        rate = predicted(run)
        cells = (
            f"{SOURCES[run.source].title}: {words(run)}", f"{run.measured:,.0f}", f"{rate.value:,.0f}",
            f"{rate.low:,.0f} – {rate.high:,.0f}", f"{rate.value / run.measured - 1:+.0%}",
        )  # fmt: skip
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
