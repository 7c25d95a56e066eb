"""The communicators of a layout, as the ranks that rank 0 of a pipeline stage shares them with."""

from __future__ import annotations

from windtunnel.program.program import ProcessGroup
from windtunnel.recipes.layout import Layout, Sharding

WORLD, TENSOR, CONTEXT, EXPERT, DATA, SHARD, REPLICA, EXPERT_DATA, PIPELINE = range(9)
"""Index of each group in a recipe's programs."""


def groups_of(layout: Layout, stage: int = 0) -> list[ProcessGroup]:
    """Groups of the first rank of ``stage``, in the order of the constants above."""
    base = stage * layout.stage_ranks
    tensor, inner = layout.tensor, layout.tensor * layout.context
    # gradients are summed over data and context: stride tensor
    data = tuple(base + tensor * i for i in range(layout.data_and_context))
    experts = layout.expert * layout.expert_tensor
    shard = data[: layout.shards] if layout.sharding is Sharding.FSDP else data
    neighbours = tuple(s * layout.stage_ranks for s in range(layout.pipeline))
    return [
        ProcessGroup(tuple(range(layout.cards)), "nccl", "world"),
        ProcessGroup(tuple(range(base, base + tensor)), "nccl", "tensor"),
        ProcessGroup(tuple(range(base, base + inner, tensor)), "nccl", "context"),
        ProcessGroup(tuple(range(base, base + experts, layout.expert_tensor)), "nccl", "expert"),
        ProcessGroup(data, "nccl", "data"),
        ProcessGroup(shard, "nccl", "shard"),
        ProcessGroup(data[:: max(1, len(shard))], "nccl", "replica"),
        ProcessGroup(tuple(range(base, base + layout.stage_ranks, experts)), "nccl", "expert data"),
        ProcessGroup(neighbours, "nccl", "pipeline"),
    ]
