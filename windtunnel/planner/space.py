"""The layouts that a search looks at: every degree that is left open, in the values that make sense.

What makes sense: tensor parallel inside a node and no wider than heads and feed-forward divide; pipeline
stages of at least one layer; context parallel only for sequences of more than ``CONTEXT_TOKENS`` a rank;
expert parallel in divisors of the experts; interleaving as far as layers go. Sharded parameters (FSDP) are
tried without a pipeline only, unless asked for (``LEFT_OUT``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from windtunnel.errors import WindtunnelError
from windtunnel.planner.job import TrainingJob
from windtunnel.recipes.layout import Layout, Recompute, Sharding
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_mixers import Attention, GatedDelta, Latent

CONTEXT_TOKENS = 8192
"""Tokens of a sequence that one rank takes without being split."""
MOST_STAGES = 64
MOST_CHUNKS = 8
MICRO_BATCHES = (1, 2, 4, 8)
LEFT_OUT = (
    "FSDP with a pipeline: a stage then holds its parameters and gradients whole between micro-batches, so that it "
    "needs more memory than ZeRO-1 and exchanges no less; --fsdp with --pp looks at it"
)
"""What ``families`` leaves out where the sharding is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Degrees that are given; None leaves one open.

    Attributes:
        chunks: model chunks of a stage (virtual pipeline). schedule: of the pipeline; None: 1F1B, interleaved
            where there are several chunks.
        overlap_experts: dispatch and combine run beside another micro-batch's compute.
        overlap_tensor: tensor-parallel collectives run beside products.
        imbalance: load of the busiest expert rank over the mean.
    """

    tensor: int | None = None
    pipeline: int | None = None
    chunks: int | None = None
    context: int | None = None
    expert: int | None = None
    micro_batch: int | None = None
    recompute: Recompute | None = None
    sharding: Sharding | None = None
    schedule: str | None = None
    overlap_experts: bool = False
    overlap_tensor: bool = False
    imbalance: float = 1.0


def families(job: TrainingJob, space: Space) -> Iterator[list[Layout]]:
    """Layouts in groups that share degrees and sharding; the first of a group needs the least memory.

    Raises WindtunnelError E250 where what is given does not multiply up with any choice of the rest.
    """
    found = False
    for tensor, pipeline, context, expert, sharding in _degrees(job, space):
        group = list(_group(job, space, tensor, pipeline, context, expert, sharding))
        if group:
            found = True
            yield group
    if not found:
        raise _nothing(job, space)


def _degrees(job: TrainingJob, space: Space) -> Iterator[tuple[int, int, int, int, Sharding]]:
    cards = job.cluster.cards
    for tensor in _tensors(job, space):
        for context in _contexts(job, space):
            if cards % (tensor * context):
                continue
            for pipeline in _pipelines(job, space, cards // (tensor * context)):
                for expert in _experts(job, space, cards // pipeline):
                    for sharding in _shardings(space, pipeline):
                        yield tensor, pipeline, context, expert, sharding


def _tensors(job: TrainingJob, space: Space) -> list[int]:
    if space.tensor is not None:
        return [space.tensor]
    widest = job.cluster.node.cards
    common = 0
    for layer in set(job.model.layers):
        if isinstance(layer.mixer, (Attention, Latent)):
            common = gcd(common, layer.mixer.heads)
        elif isinstance(layer.mixer, GatedDelta):
            common = gcd(common, layer.mixer.key_heads)
        if isinstance(layer.ffn, Dense):
            common = gcd(common, layer.ffn.width)
    return [degree for degree in _divisors(common or widest) if degree <= widest]


def _contexts(job: TrainingJob, space: Space) -> list[int]:
    if space.context is not None:
        return [space.context]
    most = max(1, job.sequence // CONTEXT_TOKENS)
    return [1 << n for n in range(most.bit_length()) if 1 << n <= most and job.sequence % (1 << n) == 0]


def _pipelines(job: TrainingJob, space: Space, ranks: int) -> list[int]:
    if space.pipeline is not None:
        return [space.pipeline] if ranks % space.pipeline == 0 else []
    most = min(MOST_STAGES, len(job.model.layers))
    return [degree for degree in _divisors(ranks) if degree <= most]


def _experts(job: TrainingJob, space: Space, stage_ranks: int) -> list[int]:
    counts = {layer.ffn.experts for layer in job.model.layers if isinstance(layer.ffn, Moe)}
    if space.expert is not None:
        return [space.expert] if stage_ranks % space.expert == 0 else []
    if not counts:
        return [1]
    return [degree for degree in _divisors(gcd(*counts)) if stage_ranks % degree == 0]


def _shardings(space: Space, pipeline: int) -> list[Sharding]:
    if space.sharding is not None:
        return [space.sharding]
    return [Sharding.ZERO1] if pipeline > 1 else [Sharding.ZERO1, Sharding.FSDP]


def _group(
    job: TrainingJob, space: Space, tensor: int, pipeline: int, context: int, expert: int, sharding: Sharding
) -> Iterator[Layout]:
    """Micro-batches, model chunks and recomputation, thriftiest first."""
    data = job.cluster.cards // (tensor * pipeline * context)
    ways = [Recompute.FULL, Recompute.SELECTIVE, Recompute.NONE]
    for micro_batch in [space.micro_batch] if space.micro_batch else MICRO_BATCHES:
        if job.global_batch % (micro_batch * data):
            continue
        for chunks in _chunks(job, space, pipeline, job.global_batch // (micro_batch * data)):
            for recompute in ways if space.recompute is None else [space.recompute]:
                yield Layout(
                    cards=job.cluster.cards,
                    global_batch=job.global_batch,
                    sequence=job.sequence,
                    micro_batch=micro_batch,
                    tensor=tensor,
                    pipeline=pipeline,
                    chunks=chunks,
                    context=context,
                    expert=expert,
                    schedule=space.schedule or ("interleaved" if chunks > 1 else "1f1b"),
                    precision=job.precision,
                    recompute=recompute,
                    sharding=sharding,
                    overlap_experts=space.overlap_experts and expert > 1,
                    overlap_tensor=space.overlap_tensor and tensor > 1,
                    imbalance=space.imbalance,
                )


def _chunks(job: TrainingJob, space: Space, pipeline: int, micro_batches: int) -> list[int]:
    if space.chunks is not None:
        given = [space.chunks] if pipeline > 1 or space.chunks == 1 else []
        return given if space.chunks == 1 or micro_batches % pipeline == 0 else []
    open_schedule = space.schedule in (None, "interleaved")
    if pipeline == 1 or not open_schedule or micro_batches % pipeline:
        return [1]
    layers = len(job.model.layers) // pipeline
    # equal shares only, and two chunks where layers do not divide anyway
    even = len(job.model.layers) % pipeline == 0
    return [n for n in range(1, MOST_CHUNKS + 1) if n <= layers and (layers % n == 0 if even else n <= 2)]


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _nothing(job: TrainingJob, space: Space) -> WindtunnelError:
    given = {
        name: value
        for name in ("tensor", "pipeline", "chunks", "context", "expert", "micro_batch")
        if (value := getattr(space, name)) is not None
    }
    return WindtunnelError(
        "E250",
        f"no layout of {job.cluster.cards:,} cards and {job.global_batch:,} sequences a step multiplies up",
        hint="tensor x pipeline x context must divide the cards, and micro-batch x data parallel the global "
        "batch: leave a degree open, or choose another --global-batch",
        values={"cards": job.cluster.cards, "global batch": job.global_batch, **given},
    )
