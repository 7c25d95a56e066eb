"""Rows of MLPerf inference logs (closed division) as loads on the native engine.

Logs state model, system and scenario; the rules give the data sets. Mean output tokens are those of the
reference accuracy checks (mlcommons/inference: ``TOKENS_PER_SAMPLE``; 128 for Llama 3.1 8B is derived). Prompts
of Llama 2 70B are OpenOrca's; those of Llama 3.1 405B (9,400), 8B (778), Mixtral (as OpenOrca's) and
DeepSeek-R1 (800), and all limits on latency but DeepSeek-R1's, are assumed: taken from memory of the rules,
which were not read again. What a log leaves unsaid takes a named default: the narrowest matrix precision that
card and TensorRT-LLM both have, and the smallest tensor-parallel group that leaves room for the cache. Replicas
do not talk to each other, so one stands for all cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from windtunnel.recipes.layout import Precision
from windtunnel.serving import metrics
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import Deployment, DeploymentOptions, deploy
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.predict import Load, at_client, predict
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

ROUNDS = 3
"""Batches that an offline load is cut to, and times the running sequences that a served load offers."""
HALVINGS = 4
"""Bisections of the rate that a served load sustains; the middle of the last bracket is taken."""
REQUESTS_MIN, REQUESTS_MAX = 200, 1200
SEQUENCES_MAX, STEP_TOKENS = 2048, 8192
SCENARIOS = ("offline", "server", "interactive")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Mean tokens of a data set, and the 99th percentiles that scenarios allow: (TTFT, TPOT) in seconds."""

    pattern: str
    model: str
    prompt: int
    output: int
    server: tuple[float, float]
    interactive: tuple[float, float]
    note: str = ""


BENCHMARKS = (
    Benchmark(r"llama-?2-70b", "llama2-70b", 294, 294, (2.0, 0.2), (0.45, 0.04)),
    Benchmark(r"llama-?3[._]1-405b", "llama3.1-405b", 9400, 685, (6.0, 0.175), (4.5, 0.08)),
    Benchmark(r"llama-?3[._]1-8b", "llama3-8b", 778, 128, (2.0, 0.1), (0.5, 0.03)),
    Benchmark(
        r"mixtral-8x7b", "mixtral-8x7b", 294, 145, (2.0, 0.2), (2.0, 0.2), "prompts as long as OpenOrca's"
    ),
    Benchmark(
        r"deepseek-r1", "deepseek-v3-671b", 800, 3886, (2.0, 0.08), (1.5, 0.015), "prompts of 800 tokens"
    ),
)


@dataclass(frozen=True, slots=True)
class MlperfRun:
    """A row rebuilt: one replica. ``limits``: of the scenario; None offline. ``tensor`` 0: not stated."""

    benchmark: Benchmark
    chip: str
    precision: str
    tensor: int
    limits: tuple[float, float] | None

    @property
    def deployment(self) -> Deployment:
        """The replica. Raises WindtunnelError where layout or memory refuse."""
        return _deployed(self.benchmark, self.chip, self.precision, self.tensor)[0]

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the row does not state."""
        return _deployed(self.benchmark, self.chip, self.precision, self.tensor)[1]


def mlperf_run(record: Mapping[str, str], chip_name: str) -> MlperfRun:
    """Rebuild a row. Raises ValueError for what cannot be."""
    found = next((known for known in BENCHMARKS if re.match(known.pattern, record["model"].lower())), None)
    if found is None:
        raise ValueError(f"benchmark `{record['model']}` is not known")
    if float(record.get("pipeline_parallel") or 1) > 1:
        raise ValueError("pipeline parallel")
    limits = dict(zip(SCENARIOS, (None, found.server, found.interactive), strict=True))
    scenario = record["phase"].lower()
    if scenario not in limits:
        raise ValueError(f"scenario `{record['phase']}` is not known")
    tensor = int(float(record.get("tensor_parallel") or 0))
    return MlperfRun(found, chip_name, record["precision"].lower(), tensor, limits[scenario])


@lru_cache(maxsize=64)
def _deployed(
    found: Benchmark, chip_name: str, stated: str, tensor: int
) -> tuple[Deployment, tuple[str, ...]]:
    precision, assumed = _precision(stated, chip_name)
    model = shipped_model(found.model)
    longest = found.prompt + found.output + 1
    cards = tensor
    if not tensor:
        cards = _fewest(model.name, chip_name, precision)
        assumed.append(f"tensor parallel over {cards} cards, the fewest that leave room for the cache")
    latent = found.model.startswith("deepseek")
    cache = "bfloat16" if latent else "float8_e4m3fn"
    if latent and cards > 1:
        assumed.append("attention data-parallel over the group, experts spread over it")
    options = DeploymentOptions(
        tensor_parallel_size=1 if latent else cards,
        data_parallel_size=cards if latent else 1,
        precision=precision,
        kv_cache_dtype=cache,
        gpu_memory_utilization=0.95,
        max_num_seqs=SEQUENCES_MAX,
        max_num_batched_tokens=STEP_TOKENS,
        enable_prefix_caching=False,
        stack=Stack.TRTLLM,
    )
    assumed.append(f"mean lengths of the data set: {found.prompt} and {found.output} tokens")
    if found.note:
        assumed.append(found.note)
    return deploy(model, cluster_of(chip_name, cards), options, longest), tuple(assumed)


def _precision(stated: str, chip_name: str) -> tuple[Precision, list[str]]:
    if stated in ("fp4", "nvfp4"):
        return Precision.NVFP4, []
    if stated == "fp8":
        return Precision.FP8, []
    narrow = "fp4" in chip(chip_name).peak_flops
    words = f"{'FP4' if narrow else 'FP8'}, the narrowest of card and engine"
    return (Precision.NVFP4 if narrow else Precision.FP8), [words]


def _fewest(model: str, chip_name: str, precision: Precision) -> int:
    """Cards of the smallest group that holds the model with a cache worth having, by the engine's own rule."""
    options = DeploymentOptions(precision=precision, kv_cache_dtype="float8_e4m3fn", stack=Stack.TRTLLM)
    return deploy(shipped_model(model), cluster_of(chip_name, 8), options).layout.cards


@lru_cache(maxsize=256)
def tokens_per_s_per_card(run: MlperfRun) -> float:
    """Output tokens a second and card: all requests at once, or the highest rate that keeps to the limits."""
    found, of, limits = run.deployment, run.benchmark, run.limits
    lengths = Lengths(prompt=of.prompt, output=of.output)
    held = max(1, min(found.options.max_num_seqs, int(found.cache_tokens / (of.prompt + of.output / 2))))
    cards = found.layout.cards * found.replicas
    requests = tuple(drawn(held * ROUNDS * found.replicas, lengths))
    result = predict(found, Load(requests=requests, words="all at once"))
    most = result.output_tokens / result.duration_s / cards
    if limits is None:
        return most
    low, high = 0.0, most * cards / of.output
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(found, lengths, middle, limits) else (low, middle)
    return (low + high) / 2 * of.output / cards


def _keeps(found: Deployment, lengths: Lengths, rate: float, limits: tuple[float, float]) -> bool:
    """Whether a Poisson load of ``rate`` requests a second keeps to the limits on TTFT and TPOT."""
    staying_s = lengths.output * limits[1]
    count = int(min(REQUESTS_MAX, max(REQUESTS_MIN, ROUNDS * rate * staying_s)))
    replicas = found.start()
    served = [at_client(one) for one in open_loop(drawn(count, lengths, rate=rate), Router(replicas))]
    latencies = metrics.latencies(served, replicas)
    return latencies["ttft"].p99 <= limits[0] and latencies["tpot"].p99 <= limits[1]
