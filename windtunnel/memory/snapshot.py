"""What the allocator holds, block by block, in the shape of ``torch.cuda.memory_snapshot``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from windtunnel.memory.blocks import Block


@dataclass(frozen=True, slots=True)
class BlockState:
    """One block: ``state`` is ``active_allocated`` or ``inactive``."""

    address: int
    size: int
    requested_size: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of memory from the driver, cut into blocks without gaps."""

    address: int
    stream: int
    small: bool
    expandable: bool
    blocks: tuple[BlockState, ...]

    @property
    def total_size(self) -> int:
        """Bytes reserved."""
        return sum(block.size for block in self.blocks)

    @property
    def allocated_size(self) -> int:
        """Bytes handed out."""
        return sum(block.size for block in self.blocks if block.state == "active_allocated")

    def to_dict(self, device: int = 0) -> dict[str, object]:
        """With PyTorch's key names."""
        return {
            "device": device,
            "address": self.address,
            "total_size": self.total_size,
            "allocated_size": self.allocated_size,
            "active_size": self.allocated_size,
            "requested_size": sum(block.requested_size for block in self.blocks),
            "stream": self.stream,
            "segment_type": "small" if self.small else "large",
            "segment_pool_id": (0, 0),
            "is_expandable": self.expandable,
            "frames": [],
            "blocks": [
                {
                    "address": block.address,
                    "size": block.size,
                    "requested_size": block.requested_size,
                    "state": block.state,
                    "frames": [],
                }
                for block in self.blocks
            ],
        }


def segments_of(heads: Iterable[Block], expandable: bool) -> tuple[Segment, ...]:
    """Segments from their first blocks; unbacked addresses separate the segments of an expandable one."""
    segments: list[Segment] = []
    for head in heads:
        states: list[BlockState] = []
        block: Block | None = head
        while block is not None:
            if block.mapped:
                states.append(_state(block))
            if states and (block.next is None or not block.mapped):
                segments.append(
                    Segment(
                        address=states[0].address,
                        stream=head.pool.stream,
                        small=head.pool.small,
                        expandable=expandable,
                        blocks=tuple(states),
                    )
                )
                states = []
            block = block.next
    return tuple(segments)


def _state(block: Block) -> BlockState:
    return BlockState(
        block.address, block.size, block.requested, "active_allocated" if block.live else "inactive"
    )
