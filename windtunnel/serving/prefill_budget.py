"""What one prefill step may still take by SGLang's rules, and the options that say so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.radix_pool import RadixPool
from windtunnel.serving.radix_tree import EvictionPolicy

CLIP_MAX_NEW_TOKENS = 4096
"""Most output that admission counts with."""


class StateStrategy(StrEnum):
    """Names of ``--mamba-radix-cache-strategy``: where sequences keep older recurrent states."""

    AUTO = "auto"
    NO_BUFFER = "no_buffer"
    EXTRA_BUFFER = "extra_buffer"

    def chosen(self, ahead: bool, page: int) -> StateStrategy:
        """What ``auto`` comes to for Qwen3.5 (``_mamba_radix_cache_resolution``)."""
        if self is not StateStrategy.AUTO:
            return self
        return StateStrategy.EXTRA_BUFFER if ahead or page > 1 else StateStrategy.NO_BUFFER


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangOptions:
    """Options by their SGLang names; those shared with vLLM are in ``SchedulerOptions``.

    Attributes:
        chunked_prefill_size: most prompt tokens of a step; 0: ``max_num_batched_tokens``, below: prompts are not
            cut. max_prefill_tokens: prompt tokens
            after which no further prompt joins a step. enable_mixed_chunk: running sequences decode in steps of
            prompts, too. schedule_conservativeness: factor on the first estimate of output.
        radix_eviction_policy: which leaf goes first. tail_threshold, next_prompt_estimate: what ``tlru`` is told in
            ``--radix-eviction-policy-config``, in tokens.
        mamba_full_memory_ratio: memory of recurrent states ÷ of tokens. mamba_radix_cache_strategy: where older states
            are kept. hicache_write_policy: when what the card has is written to host memory.
    """

    chunked_prefill_size: int = 0
    max_prefill_tokens: int = 16384
    enable_mixed_chunk: bool = False
    schedule_conservativeness: float = 1.0
    radix_eviction_policy: EvictionPolicy = EvictionPolicy.LRU
    tail_threshold: int = 0
    next_prompt_estimate: int = 0
    mamba_full_memory_ratio: float = 0.9
    mamba_radix_cache_strategy: StateStrategy = StateStrategy.AUTO
    hicache_write_policy: WritePolicy = WritePolicy.WRITE_THROUGH
    num_reserved_decode_tokens: int = 512
    disaggregation_decode_extra_slots: int | None = None


NO_LIMIT = 1 << 60
NO_TOKEN, OTHER = 0, -1
"""Why no token of a prompt joins a step: no room in the cache, or none left in the step."""


class PrefillBudget:
    """What one step's prompts may still take: ``input`` and ``chunk`` tokens of work, ``total`` tokens of cache.

    ``mixed``: sequences that decode in the same step.
    """

    def __init__(self, pool: RadixPool, most: int, chunk: int, promised: float, mixed: int = 0) -> None:
        self._pool = pool
        self._page = pool.tree.page
        self.input = most - mixed
        self.chunk = chunk - mixed if chunk > 0 else NO_LIMIT
        self._total = mixed + promised
        self._current = mixed

    @property
    def total(self) -> float:
        """Tokens of cache that are neither held nor promised."""
        return self._pool.free * self._page - self._total

    @property
    def has_room(self) -> bool:
        """Whether any cache is left."""
        return self.total > 0 and self._pool.free * self._page > self._current

    @property
    def spent(self) -> bool:
        """Whether the step can take no further token."""
        return self.input <= 0 or self.chunk <= 0

    def reserve(self, new: int, output: int) -> None:
        """Charge one prompt with ``new`` tokens and ``output`` to come."""
        whole = -(-new // self._page) * self._page
        self._total += whole + self._page + output
        self._current += whole + self._page
        self.input -= whole
        self.chunk -= whole
