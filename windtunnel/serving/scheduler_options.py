"""What a scheduler is told, by vLLM's names."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.serving.queue_order import SchedulePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOptions:
    """Options by their vLLM names.

    Attributes:
        max_num_seqs: most sequences in a step. max_num_batched_tokens: most tokens in a step.
        block_size: tokens in a block. num_gpu_blocks: blocks of the cache that sequences can hold.
        enable_prefix_caching: whether full blocks are found again.
        enable_chunked_prefill: whether a prompt may be cut to the budget.
        scheduler_reserve_full_isl: whether the whole prompt must fit at admission, not its first chunk only.
        prefill_first: a step holds prompts or decodes, prompts first (SGLang without --enable-mixed-chunk).
        schedule_policy: order of the queue (SGLang's option).
        state_groups: groups of layers with recurrent state; each holds a block a sequence beside attention's (two
            while a prefix can be found again, see ``hybrid``).
        num_speculative_tokens: drafts of each decoding sequence, which use the budget of a step, too.
        acceptance: chance that a draft is accepted after the ones before it.
        async_scheduling: each step is decided when the one before it begins.
        guaranteed_no_evict: a request is admitted only when the blocks of its whole output are free too, so that
            none is ever preempted (TensorRT-LLM's default capacity scheduler).
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    num_gpu_blocks: int = 4096
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduler_reserve_full_isl: bool = True
    prefill_first: bool = False
    async_scheduling: bool = False
    guaranteed_no_evict: bool = False
    num_speculative_tokens: int = 0
    acceptance: float = 0.0
    state_groups: int = 0
    schedule_policy: SchedulePolicy = SchedulePolicy.FCFS

    @property
    def other_rules(self) -> bool:
        """Whether the engine is not vLLM."""
        return self.prefill_first or self.guaranteed_no_evict

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "block_size", "num_gpu_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must hold one token of each of max_num_seqs")
