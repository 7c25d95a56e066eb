"""Rows of S5000 tables as deployments that the native engine runs: what is stated, named defaults for the rest.

A row is complete when it states model, cards, layout, prompt and output lengths, and how many sequences run at once.
What vllm-musa's pages leave unsaid takes its published recipes, else vLLM's defaults, and is listed in ``assumed``.
Nothing here looks at measured columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.results.serving_result import Spread
from windtunnel.serving import roofline
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.uncertainty import width_of
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.model_names import catalogue_name
from windtunnel.validation.moore_threads_words import Said
from windtunnel.validation.serving_rows import half_roofline

ROUNDS = 3
"""Clients that send one request after another are followed for this many each."""
HANDED_OVER_S = 1e-4
"""Requests that a client sends together reach the engine one after another (assumed; anything shorter than a step gives
the same): vLLM's engine begins with what its queue holds when the first is there (``EngineCoreProc``'s loop)."""
WHOLE_PROMPTS = ("qwen3.5",)
"""Models whose recipes in MooreThreads/vllm-musa (``docs/cookbook/qwen``: Qwen3.5 and 3.6) say
``--no-enable-chunked-prefill`` and that asynchronous scheduling is off; those of Qwen3 and DeepSeek do not."""
EIGHT_BIT_WIDTH = 128
"""Qwen's and DeepSeek's FP8 checkpoints have one scale for a block of 128 × 128 weights."""


class Incomplete(ValueError):
    """A row that cannot be rebuilt; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Run:
    """A row rebuilt. ``concurrency`` 0: all sequences start together. ``assumed``: defaults that were taken."""

    deployment: Deployment
    lengths: Lengths
    sequences: int
    concurrency: int
    assumed: tuple[str, ...]

    @property
    def batch(self) -> Batch:
        """The decode step in the middle of the outputs."""
        return Batch(sequences=self.sequences, context=self.lengths.prompt + self.lengths.output // 2)


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its 80 % interval, and the same from half of the roofline."""

    value: float
    low: float
    high: float
    baseline: float


def run_of(said: Said, chip: str, cards: int, closed: bool) -> Run:
    """Rebuild a row of serving; ``closed``: clients send one request after another.

    Raises Incomplete, and WindtunnelError where the recipe, the layout or the memory refuse.
    """
    missing = [
        words
        for words, value in (
            ("prompt and output lengths", said.prompt and said.output),
            ("sequences at once", said.sequences),
        )
        if not value
    ]
    name = catalogue_name(said.model)
    if name is None:
        raise Incomplete(f"model `{said.model}` is not in the catalogue")
    if missing:
        raise Incomplete(f"{' and '.join(missing)} not stated")
    if said.pipeline > 1:
        raise Incomplete("pipelines are not served by the native engine")
    precision, assumed = _precision(said, name)
    tensor = said.tensor or max(1, cards // max(1, said.data))
    if not said.tensor and cards > 1:
        assumed.append(f"tensor parallel over {tensor} cards")
    whole = name.startswith(WHOLE_PROMPTS)
    options = DeploymentOptions(
        tensor_parallel_size=tensor,
        data_parallel_size=max(1, said.data),
        enable_expert_parallel=said.expert > 1,
        precision=precision,
        enable_prefix_caching=False,
        enable_chunked_prefill=not whole,
        async_scheduling=not whole,
        enforce_eager=said.graphs is False,
        speculation=_speculation(said),
    )
    if said.graphs is None:
        assumed.append("captured graphs")
    if whole:
        assumed.append(
            "prompts are not cut and no step is decided ahead, as in vllm-musa's recipes for the model"
        )
    assumed.append("BF16 cache, 256 sequences and 8,192 tokens a step at most, 90 % of memory")
    longest = said.prompt + said.output
    found = deploy(shipped_model(name), cluster_of(chip, cards or tensor), options, longest)
    lengths = Lengths(prompt=said.prompt, output=said.output)
    return Run(found, lengths, said.sequences, said.sequences if closed else 0, tuple(assumed))


def _precision(said: Said, model: str) -> tuple[Precision, list[str]]:
    text = said.precision
    if text in ("", "BF16"):
        return Precision.BF16, [] if text else ["BF16 weights"]
    if text == "FP16":
        return Precision.FP16, []
    if text == "FP8":
        blocks = model.startswith(("qwen", "deepseek"))
        words = f"one scale for {EIGHT_BIT_WIDTH} × {EIGHT_BIT_WIDTH} weights"
        return (Precision.FP8_BLOCK, [words]) if blocks else (Precision.FP8, ["one scale for a tensor"])
    raise Incomplete(f"{text} weights: no priced kernel path")


def _speculation(said: Said) -> Speculation:
    """Chance that a drafted token is accepted, by what a step brings on average (1 + p + p² + …)."""
    if not said.drafted:
        return Speculation()
    if not 1 <= said.yielded <= said.drafted + 1:
        raise Incomplete("tokens that a step with drafts brings are not stated")
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        more = Speculation(tokens=said.drafted, acceptance=middle).yielded > said.yielded
        low, high = (low, middle) if more else (middle, high)
    return Speculation(tokens=said.drafted, acceptance=high)


def figures_of(run: Run) -> dict[str, Figure]:
    """Every metric that such rows measure, by its name in the tables."""
    found, lengths, clients = run.deployment, run.lengths, run.concurrency
    requests = tuple(
        replace(request, arrival_s=place * HANDED_OVER_S)
        for place, request in enumerate(drawn(ROUNDS * clients if clients else run.sequences, lengths))
    )
    words = "closed" if clients else "all at once"
    result = predict(found, Load(requests=requests, words=words, concurrency=clients))
    context = lengths.prompt + lengths.output // 2
    batch = max(1, min(run.sequences, round(result.mean_batch) or run.sequences))
    decode = width_of(found, Batch(sequences=batch, context=context))
    first = width_of(found, Batch(sequences=1, new=lengths.prompt))
    cards = found.layout.cards * found.replicas
    base = half_roofline(found, lengths.prompt, lengths.output, batch) * cards
    base_first = _first_baseline_s(found, lengths.prompt)
    rate = result.output_tokens / result.duration_s

    def seconds(value: Spread, low: float, high: float, baseline: float) -> Figure:
        return Figure(value.mean, value.mean * low, value.mean * high, baseline)

    return {
        "output_tokens_per_s": Figure(rate, rate / decode.high, rate / decode.low, base),
        "tpot": seconds(result.tpot_s, decode.low, decode.high, batch / base),
        "itl": seconds(result.itl_s, decode.low, decode.high, batch / base),
        "ttft": seconds(result.ttft_s, first.low, first.high, base_first),
        "e2e": seconds(result.e2e_s, decode.low, decode.high, lengths.output * batch / base),
        "requests_per_s": Figure(
            rate / lengths.output, rate / lengths.output / decode.high, rate / lengths.output / decode.low,
            base / lengths.output,
        ),
    }  # fmt: skip


def _first_baseline_s(found: Deployment, prompt: int) -> float:
    rate = 0.5 * roofline.prefill_tokens_per_s_per_card(found, prompt) * found.layout.cards
    return prompt / rate
