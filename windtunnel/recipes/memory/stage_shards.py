"""FSDP within a stage of a pipeline: gathered once a step, gradients summed whole, reduced after the last micro-batch.

PyTorch's stages keep what they gathered for the next micro-batch, and sum gradients in the type that reduces until the
last one (``PipelineStage.backward_maybe_with_nosync``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from windtunnel.program.program import Category
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.memory import parts
from windtunnel.recipes.memory.tape import GATHER, REDUCE, Buffer, Tape


@dataclass(slots=True)
class StageShards:
    """What a stage holds beside its shards. Blocks go by their names, ``weights`` are bytes of each parameter."""

    tape: Tape
    layout: Layout
    gathered: dict[str, list[Buffer]] = field(default_factory=dict)
    summed: dict[str, list[Buffer]] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    buffer: list[Buffer] = field(default_factory=list)

    def gather(self, block: str, weights: Sequence[int]) -> None:
        """Parameters of a block, before its first pass: as in ``sharded``."""
        if block in self.gathered:
            return
        width, ways = parts.width_of(self.layout), self.layout.shards
        own = self.shares[block] = sum(share(nbytes // width, ways) for nbytes in weights)
        sent = self.tape.allocate(own * width, "aten.empty", GATHER, Category.COMMUNICATION)
        buffer = self.tape.allocate(own * ways * width, "aten.empty", GATHER, Category.COMMUNICATION)
        laid = self.tape.allocate(own * width, "fsdp.all_gather_copy_in", GATHER, Category.COMMUNICATION)
        del sent, laid
        self.gathered[block] = [
            self.tape.allocate(nbytes, "fsdp.split", category=Category.COMMUNICATION) for nbytes in weights
        ]
        self.buffer = [buffer]  # given back when the next block's is copied out

    def end_forward(self) -> None:
        """The last buffer is given back."""
        self.buffer = []

    def sum(self, block: str, weights: Sequence[int]) -> None:
        """Gradients of a block, whole, from its first backward on."""
        if block not in self.summed:
            width, reduced = parts.width_of(self.layout), self._reduced
            self.summed[block] = [
                self.tape.allocate(nbytes // width * reduced, "aten._to_copy", category=Category.GRADIENT)
                for nbytes in weights
            ]

    def reduce(self) -> list[Buffer]:
        """Block by block: parameters given back, gradients copied into a buffer, their shards."""
        shards: list[Buffer] = []
        held: Buffer | None = None
        for block in list(self.gathered):
            self.tape.scope = block
            del self.gathered[block]
            own = self.shares[block]
            held = None
            held = self.tape.allocate(
                own * self.layout.shards * self._reduced, "aten.empty", category=Category.COMMUNICATION
            )
            self.summed.pop(block, None)
            shards.append(self.tape.allocate(own * parts.WIDE, "aten.empty", REDUCE, Category.GRADIENT))
        del held
        return shards

    @property
    def _reduced(self) -> int:
        return parts.WIDE if self.layout.reduce_in_fp32 else parts.width_of(self.layout)


def share(elements: int, ways: int) -> int:
    """Elements of one of ``ways`` ranks."""
    return -(-elements // ways)
