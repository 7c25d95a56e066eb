"""What one fused kernel asks of a chip: the unit in which molecular dynamics and docking engines are priced."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKernel:
    """The work of one kind of kernel in one step of an engine, all its launches together.

    Attributes:
        instructions: instructions issued, counted once for each thread (32 for a warp).
        fp64_flops: FLOPs in double precision, beside the instructions.
        cache_bytes: traffic to the level-2 cache: what is gathered and added at scattered places, in sectors of
            32 bytes, and what streams through.
        memory_bytes: least traffic to device memory, read and written, where nothing stays in the cache.
        round_trips: longest chain of dependent accesses to memory that one thread waits for.
        launches: how often it is launched in a step; fractions for kernels that do not run in every step.
    """

    name: str
    instructions: float = 0.0
    fp64_flops: float = 0.0
    cache_bytes: float = 0.0
    memory_bytes: float = 0.0
    round_trips: float = 1.0
    launches: float = 1.0
