"""Rows of MLPerf inference logs (closed division) as loads on the native engine.

Logs state model, system and scenario; the rules give the rest (mlcommons, read in November 2026):

* limits at the 99th percentile: ``loadgen/mlperf.conf`` of mlcommons/inference (b66003e); longest prompts and outputs
  and 600 s of traffic: ``inference_rules.adoc`` of mlcommons/inference_policies (ac93e89);
* mean outputs: the reference accuracy checks of mlcommons/inference (``tokens_per_sample``); 128 for Llama 3.1 8B,
  where outputs end at the longest;
* mean prompts of Llama 3.1 405B (9,400), 8B (778) and DeepSeek-R1 (800): mlcommons' announcements of v5.0 and v5.1, as
  quoted by others; Llama 2 70B: OpenOrca's (294), as the measured table notes. Mixtral's 365 is the mean of OpenOrca's
  and of the reference's own examples of GSM8K (662) and MBXP (139), a third of the samples each.

Lengths scatter about those means: outputs, and prompts of Llama 3.1 405B, as ``mlperf_lengths`` reads from logs, other
prompts, of which nothing is published, as a gamma distribution of shape 2 cut at the longest (assumed). What a log
leaves unsaid takes a named default: the narrowest matrix precision that card and TensorRT-LLM both have, and the
settings that submissions publish (``mlperf_settings``), else the group of cards that gives most output a card within
the limits, since submitters tune. Replicas do not talk to each other, so one stands for all cards.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from windtunnel.errors import AnswerIsNo
from windtunnel.recipes.layout import Precision
from windtunnel.serving import metrics
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.attention_dp import AttentionDpOptions
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.engine import Replica
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.run_load import at_client
from windtunnel.serving.simulate import open_loop
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.lasting import seconds_of
from windtunnel.validation.mlperf_lengths import (
    DEEPSEEK_R1,
    LLAMA2,
    LLAMA31_405B,
    LLAMA31_405B_PROMPTS,
    MIXTRAL,
    Gamma2,
    Scatter,
    lengths,
)  # fmt: skip
from windtunnel.validation.mlperf_settings import BY_PYTORCH, Settings, published
from windtunnel.validation.shared_prices import with_known_prices
from windtunnel.validation.trtllm_age import seconds_factor
from windtunnel.validation.trtllm_bench import as_checkpointed

TRAFFIC_S = 600.0
"""LoadGen sends for ten minutes at least."""
ROUNDS = 3
"""Longest traffic: so many batches (offline) or stays of a request (served), for the sake of time."""
HALVINGS = 6
"""Bisections of the rate that a served load sustains; the middle of the last bracket is taken."""
REQUESTS_MIN, REQUESTS_MAX, OFFLINE_MAX = 200, 6_000, 15_000
SERVED_MIN = 2_000
"""Requests of a served load, so that twenty make its 99th percentile."""
SEQUENCES_MAX, STEP_TOKENS = 2048, 8192
GROUPS = (1, 2, 4, 8)
"""Cards a replica that are tried where a log does not say."""
SCENARIOS = ("offline", "server", "interactive")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Mean and longest (prompt, output) tokens of a data set, and the 99th percentiles that scenarios allow: (TTFT,
    TPOT) in seconds.
    """

    pattern: str
    model: str
    prompt: int
    output: int
    longest: tuple[int, int]
    server: tuple[float, float]
    interactive: tuple[float, float]
    samples: int
    """Of the data set: a load offline has at least so many."""
    scatter: Scatter | None
    """Of outputs; None: all as long as the longest."""
    note: str = ""
    prompts: Scatter | Gamma2 = field(default_factory=Gamma2)

    def requests(self, count: int, rate: float = 0.0) -> list[Request]:
        """``count`` requests; ``rate`` a second, 0: all at once."""
        plain = drawn(count, Lengths(prompt=self.prompt, output=self.output), rate=rate)
        lengths = _lengths(self, max(count, REQUESTS_MAX))
        return [Request(one.number, one.arrival_s, *own) for one, own in zip(plain, lengths, strict=False)]


@lru_cache(maxsize=16)
def _lengths(of: Benchmark, count: int) -> list[tuple[int, int]]:
    """Prompt and output of each request: the same ones whatever the load."""
    source = random.Random("mlperf lengths")
    prompts = lengths(count, of.prompts, of.prompt, of.longest[0], source)
    longest = of.longest[1]
    outputs = lengths(count, of.scatter, of.output, longest, source) if of.scatter else [longest] * count
    return list(zip(prompts, outputs, strict=True))


BENCHMARKS = (
    Benchmark(r"llama-?2-70b", "llama2-70b", 294, 294, (1024, 1024), (2.0, 0.2), (0.45, 0.04), 24_576, LLAMA2),
    Benchmark(
        r"llama-?3[._]1-405b", "llama3.1-405b", 9400, 685, (20_000, 20_000), (6.0, 0.175), (4.5, 0.08), 8_313,
        LLAMA31_405B, prompts=LLAMA31_405B_PROMPTS,
    ),
    Benchmark(r"llama-?3[._]1-8b", "llama3-8b", 778, 128, (2048, 128), (2.0, 0.1), (0.5, 0.03), 13_368, None),
    Benchmark(
        r"mixtral-8x7b", "mixtral-8x7b", 365, 145, (2048, 1024), (2.0, 0.2), (2.0, 0.2), 15_000, MIXTRAL,
        "prompts of GSM8K and MBXP as long as the reference's examples",
    ),
    Benchmark(
        r"deepseek-r1", "deepseek-v3-671b", 800, 3886, (3136, 20_000), (2.0, 0.08), (1.5, 0.015), 4_388,
        DEEPSEEK_R1,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MlperfRun:
    """A row rebuilt: one replica. ``limits``: of the scenario; None offline. ``tensor`` 0: not known.

    ``pipeline``: stages, each a replica of its share of the layers. ``sequences``: most in a step, where a log says.
    ``cards``: all of the system, 0 where unknown. ``age``: seconds of a step over those of today's kernels.
    """

    benchmark: Benchmark
    chip: str
    precision: str
    tensor: int
    limits: tuple[float, float] | None
    pipeline: int = 1
    stack: Stack = Stack.TRTLLM
    settings: Settings | None = None
    sequences: int = 0
    cards: int = 0
    age: float = 1.0

    @property
    def deployment(self) -> Deployment:
        """The replica. Raises WindtunnelError where layout or memory refuse."""
        return _deployed(self)[0]

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the row does not state."""
        return _deployed(self)[1]


def mlperf_run(record: Mapping[str, str], chip_name: str) -> MlperfRun:
    """Rebuild a row. Raises ValueError for what cannot be."""
    found = next((known for known in BENCHMARKS if re.match(known.pattern, record["model"].lower())), None)
    if found is None:
        raise ValueError(f"benchmark `{record['model']}` is not known")
    pipeline = int(float(record.get("pipeline_parallel") or 1))
    limits = dict(zip(SCENARIOS, (None, found.server, found.interactive), strict=True))
    scenario = record["phase"].lower()
    if scenario not in limits:
        raise ValueError(f"scenario `{record['phase']}` is not known")
    if pipeline > 1 and limits[scenario] is not None:
        raise ValueError("pipeline parallel with limits on latency")
    tensor, sequences, cards = (
        int(float(record.get(name) or 0)) for name in ("tensor_parallel", "concurrency_or_batch", "num_gpus")
    )
    stack = Stack.VLLM if "vllm" in record.get("framework", "").lower() else Stack.TRTLLM
    settings = published(chip_name, found.model, scenario, stack, record.get("source_id", ""))
    if settings is not None and not tensor:
        tensor, pipeline = settings.tensor, settings.pipeline
    age = seconds_factor(record.get("source_id", ""), chip_name) if stack is Stack.TRTLLM else 1.0
    return MlperfRun(
        found, chip_name, record["precision"].lower(), tensor, limits[scenario], pipeline, stack, settings,
        sequences, cards, age,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _deployed(run: MlperfRun) -> tuple[Deployment, tuple[str, ...]]:
    found, chip_name = run.benchmark, run.chip
    precision, assumed = _precision(run.precision, chip_name)
    settings = run.settings
    model = shipped_model(found.model)
    if run.pipeline > 1:
        model = replace(model, layers=model.layers[: -(-len(model.layers) // run.pipeline)])
        assumed.append(f"{run.pipeline} stages, each busy with its own share of the sequences")
    longest = found.prompt + found.output + 1
    cards = run.tensor
    if not cards:
        cards = _tuned(run)
        assumed.append(f"{cards} cards a replica, which give most output a card")
    elif settings is not None:
        assumed.append("sequences and tokens of a step as submissions publish them")
    latent = found.model.startswith("deepseek")
    cache = settings.cache if settings else "bfloat16" if latent else "float8_e4m3fn"
    if latent and cards > 1:
        assumed.append("attention data-parallel over the group, experts spread over it")
    options = DeploymentOptions(
        tensor_parallel_size=1 if latent else cards,
        data_parallel_size=cards if latent else 1,
        precision=precision,
        kv_cache_dtype=cache,
        gpu_memory_utilization=settings.cache_share if settings else 0.95,
        max_num_seqs=run.sequences or (settings.sequences if settings else SEQUENCES_MAX),
        max_num_batched_tokens=max(settings.tokens, run.sequences) if settings else STEP_TOKENS,
        max_utilization=settings is not None,
        gemm_allreduce_plugin=settings is not None and settings.fused_sums,
        enable_chunked_prefill=settings is None or settings.chunked,
        attention_dp=settings.balance if settings else AttentionDpOptions(),
        cudagraph_capture_sizes=settings.graphs if settings else (),
        built_engine=run.stack is Stack.TRTLLM and found.model not in BY_PYTORCH,
        enable_prefix_caching=False,
        stack=run.stack,
    )
    options = as_checkpointed(model, chip(chip_name), options)
    assumed.append(f"mean lengths of the data set: {found.prompt} and {found.output} tokens")
    if isinstance(found.prompts, Gamma2):
        assumed.append("lengths of prompts scatter as a gamma distribution of shape 2 does")
    else:
        assumed.append("lengths of prompts scatter as first tokens do")
    if found.note:
        assumed.append(found.note)
    if run.age != 1.0:
        assumed.append(f"an engine of 2024: steps take {run.age:g} times as long as today's kernels would")
    placed = deploy(model, cluster_of(chip_name, cards), options, longest)
    return with_known_prices(placed), tuple(assumed)


def _precision(stated: str, chip_name: str) -> tuple[Precision, list[str]]:
    if stated in ("fp4", "nvfp4"):
        return Precision.NVFP4, []
    if stated == "fp8":
        return Precision.FP8, []
    narrow = "fp4" in chip(chip_name).peak_flops
    words = f"{'FP4' if narrow else 'FP8'}, the narrowest of card and engine"
    return (Precision.NVFP4 if narrow else Precision.FP8), [words]


def _tuned(run: MlperfRun) -> int:
    """Cards a replica that give most output a card, of those inside a node that hold the model.

    Steady states decide offline; under limits the best two are served, since queues decide there.
    """
    rates: dict[int, float] = {}
    for cards in GROUPS:
        try:
            found = replace(run, tensor=cards).deployment
        except AnswerIsNo:
            continue
        rates[cards] = _steady_rate(found, run.benchmark, run.limits)
    best = sorted(rates, key=lambda cards: -rates[cards])[:2]
    if run.limits is not None and len(best) > 1:
        rates = {cards: tokens_per_s_per_card(replace(run, tensor=cards)) for cards in best}
    return max(rates, key=lambda cards: rates[cards], default=GROUPS[-1])


def _steady_rate(found: Deployment, of: Benchmark, limits: tuple[float, float] | None) -> float:
    """Output tokens a second and card of the largest batch whose steps keep to the limit; each step also computes the
    prompts that take the place of what ends in it.
    """

    def seconds(batch: int) -> float:
        fresh = max(1, round(batch * of.prompt / of.output))
        return found.step.mixed_s(batch, batch * (of.prompt + of.output // 2), [(fresh, 0)])

    batch = _held(found, of)
    while limits is not None and batch > 1 and seconds(batch) > limits[1]:
        batch = int(batch * 0.8)
    return batch * found.layout.data / seconds(batch) / found.layout.cards


def _held(found: Deployment, of: Benchmark) -> int:
    """Sequences of their mean length that a rank holds."""
    return max(1, min(found.options.max_num_seqs, int(found.cache_tokens / (of.prompt + of.output / 2))))


def tokens_per_s_per_card(run: MlperfRun) -> float:
    """Output tokens a second and card: all requests at once, or the highest rate that keeps to the limits."""
    found = run.deployment
    precision = "fp4" if found.options.precision is Precision.NVFP4 else "fp8"
    stated = replace(run, precision=precision, tensor=found.layout.cards)
    return _all_at_once(replace(stated, limits=None))[0] if run.limits is None else _sustained(stated)


@lru_cache(maxsize=256)
def _all_at_once(run: MlperfRun) -> tuple[float, float]:
    """Output tokens a second and card, and a request, of a replica that states all it runs with."""
    found, of = run.deployment, run.benchmark
    cards = found.layout.cards * found.replicas
    stage = _stage(found, run)
    count = min(OFFLINE_MAX, max(REQUESTS_MIN, ROUNDS * _held(stage, of) * found.layout.data + 1))
    served = open_loop(of.requests(count), Router(stage.start()))
    took_s = max(one.finished_s for one in served)
    replicas = max(1, run.cards // (cards * run.pipeline))
    lasting_s = run.settings.lasting_s if run.settings else TRAFFIC_S
    whole = max(count, round(count * lasting_s / took_s), of.samples // replicas)
    mean = sum(one.request.output_tokens for one in served) / count
    return whole * mean / seconds_of(whole, served) / cards / run.pipeline, mean


@lru_cache(maxsize=256)
def _sustained(run: MlperfRun) -> float:
    """Output tokens a second and card at the highest rate that keeps to the limits."""
    found = run.deployment
    cards = found.layout.cards * found.replicas
    most, mean = _all_at_once(replace(run, limits=None))
    low, high = 0.0, most * cards / mean
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _keeps(run, middle) else (low, middle)
    return (low + high) / 2 * mean / cards


def _stage(found: Deployment, run: MlperfRun) -> Deployment:
    """One stage of a pipeline: it holds the cache of all sequences in flight and computes for its share at a time."""
    memory = found.memory
    return replace(found, memory=replace(memory, blocks=memory.blocks // run.pipeline), slower=run.age)


def _keeps(run: MlperfRun, rate: float) -> bool:
    """Whether a Poisson load of ``rate`` requests a second keeps to the limits on TTFT and TPOT."""
    found, of, limits = _stage(run.deployment, run), run.benchmark, run.limits
    assert limits is not None
    lasting_s = min(TRAFFIC_S, ROUNDS * of.output * limits[1])
    count = int(min(REQUESTS_MAX, max(SERVED_MIN, rate * lasting_s)))
    (replica,) = found.start()
    late = _Late(replica, count, limits)
    for request in of.requests(count, rate):
        replica.advance(request.arrival_s)
        if late.surely:
            return False
        replica.add(request)
    replica.advance(float("inf"))
    latencies = metrics.latencies([at_client(one) for one in replica.served], [replica])
    return latencies["ttft"].p99 <= limits[0] and latencies["tpot"].p99 <= limits[1]


class _Late:
    """Requests of ``count`` that are known to break a limit while the load still runs: an overloaded replica is not
    simulated to the end of its queue.
    """

    def __init__(self, replica: Replica, count: int, limits: tuple[float, float]) -> None:
        self._replica, self._limits = replica, limits
        self._enough = count - int(0.99 * (count - 1)) + 1  # so many, and the 99th percentile is among them
        self._seen = 0
        self._slow = [0, 0]

    @property
    def surely(self) -> bool:
        """Whether the limits cannot be kept any more."""
        for one in self._replica.served[self._seen :]:
            told = at_client(one)
            self._slow[0] += told.ttft_s > self._limits[0]
            self._slow[1] += (told.tpot_s or 0.0) > self._limits[1]
        self._seen = len(self._replica.served)
        return max(self._slow) >= self._enough
