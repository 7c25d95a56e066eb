"""The fullest moment of a training step under PyTorch's fully sharded data parallel, layer by layer.

What FSDP2 holds, and when (torch/distributed/fsdp/_fully_shard: ``_fsdp_param_group.py``, ``_fsdp_collectives.py``),
wrapped as TorchTitan wraps a decoder: embedding, every layer, and the last norm with the output product; the latter
is kept gathered from forward to backward.

* the loss: nothing is reduced yet, the output group is gathered, all activations are there;
* backward of a layer: its parameters gathered, the next group's gathered buffer on its way, its gradients in the
  parameters' type, the buffer that the layer before it is reduced from, gradient shards of all layers behind it;
* its reduction: parameters are given back, gradients are copied into a buffer of the reduced type;
* the optimizer: all gradient shards, no activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from windtunnel.recipes.layout import Layout, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupMemory:
    """One FSDP unit.

    Attributes:
        parameters: whole elements on a rank before sharding. shard: elements of this rank.
        kept: bytes of activations from forward to backward.
        again: bytes that recomputation brings back before backward begins.
        stages: of its backward: bytes beside what was kept (gradients of activations, less what was freed), and
            elements of the parameters whose gradients exist by then.
        behind: bytes that the gradient which leaves the unit takes.
    """

    parameters: int
    shard: int
    kept: float = 0.0
    again: float = 0.0
    stages: tuple[tuple[float, int], ...] = ()
    behind: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Bytes alive beside parameters and optimizer state. ``gathered``: in buffers on the stream that gathers."""

    gradients: float = 0.0
    activations: float = 0.0
    working: float = 0.0
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.gradients + self.activations + self.working + self.gathered


def fullest(groups: Sequence[GroupMemory], loss: float, layout: Layout, trains: bool = True) -> Moment:
    """The fullest moment of backward and optimizer. ``groups`` in the order of forward; ``loss``: its bytes."""
    return max(_moments(groups, loss, layout, trains), key=lambda moment: moment.total)


def idle_pools(groups: Sequence[GroupMemory], moment: Moment, layout: Layout, trains: bool = True) -> float:
    """Bytes that the allocator keeps for other streams and that ``moment`` does not use.

    Blocks serve only the stream that they were allocated on. Gathering has two buffers at once, with the shards
    of the second cast and laid end to end; gradient shards are born on the stream that reduces.
    """
    width = 4 if layout.precision is Precision.FP32 else 2
    pairs = pairwise(groups)
    gathering = max(width * (one.parameters + two.parameters + 2 * two.shard) for one, two in pairs)
    shards = 4 * sum(group.shard for group in groups) if trains else 0
    return max(0.0, gathering - moment.gathered) + max(0.0, shards - moment.gradients)


def _moments(groups: Sequence[GroupMemory], loss: float, layout: Layout, trains: bool) -> Iterator[Moment]:
    width = 4 if layout.precision is Precision.FP32 else 2
    reduced = 4 if layout.reduce_in_fp32 else width
    own = 4 * sum(group.shard for group in groups) if trains else 0
    before = own if layout.micro_batches > 1 else 0  # shards of the micro-batches before this one
    kept = sum(group.kept for group in groups)
    yield Moment(gradients=before, activations=kept, working=loss + width * groups[-1].parameters)
    done, buffer = 0, 0.0  # elements of shards reduced so far; the buffer of the last reduction
    for index in reversed(range(len(groups))):
        group = groups[index]
        coming = width * groups[index - 1].parameters if index else 0
        kept -= group.kept
        shards = before or 4 * done
        for transient, elements in group.stages:
            yield Moment(
                gradients=shards,
                activations=kept + group.kept + group.again,
                working=transient + width * (group.parameters + trains * elements) + buffer,
                gathered=coming,
            )
        if trains:
            # the gathered parameters are given back before their gradients are copied into the buffer
            buffer = reduced * group.parameters
            yield Moment(
                gradients=shards,
                activations=kept,
                working=group.behind + width * group.parameters + buffer + 4 * group.shard,
                gathered=coming,
            )
            done += group.shard
    yield Moment(gradients=own)
