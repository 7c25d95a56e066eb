"""What is asked of a deployment, by vLLM's names, and what an engine makes of what is left open."""

from __future__ import annotations

from dataclasses import dataclass, field

from windtunnel.recipes.layout import Precision
from windtunnel.serving.attention_dp import AttentionDpOptions
from windtunnel.serving.expert_load import BALANCED
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.offload import OffloadOptions
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.sglang_states import states_per_sequence
from windtunnel.serving.speculation import Speculation

LATENT_BLOCK = 64
"""MLA kernels work on blocks of 64 tokens."""
BLOCK = {Stack.VLLM: 16, Stack.SGLANG: 1, Stack.TRTLLM: 32}
"""Else the engines' defaults: ``--block-size``, ``--page-size``, ``tokens_per_block``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentOptions:
    """Options by their vLLM names.

    Attributes:
        tensor_parallel_size: 0: chosen. stack: whose rules and kernels.
        gpu_memory_utilization: TensorRT-LLM's share of what weights and activations leave free, too
            (``free_gpu_memory_fraction``).
        expert_imbalance: a factor on the busiest rank's load. expert_load: see ``expert_load.imbalances``.
        deepep: date of its release, empty: today's.
        num_redundant_experts: spare slots, as vLLM's and SGLang's balancers take them.
        offload: cache beyond the card. async_scheduling: SGLang's overlap scheduling, too
            (TensorRT-LLM's executor, whose admission this is, decides after each step).
        block_size: SGLang's page size, too; 0: the engine's default. sglang: what only SGLang knows.
        wide_inputs, narrow_experts, eight_bit_rows: see ``ServingLayout``.
        gemm_allreduce_plugin: TensorRT-LLM's, see ``ServingLayout.fused_sums``.
        max_utilization: TensorRT-LLM's capacity scheduler of that name, which admits what fits now and preempts.
        attention_dp: TensorRT-LLM's ``attention_dp_config``.
        cudagraph_capture_sizes: batches with a captured graph; empty: vLLM's.
        built_engine: TensorRT-LLM's engines built ahead, whose kernels C++ issues, not its PyTorch backend.
    """

    tensor_parallel_size: int = 0
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    precision: Precision = Precision.BF16
    kv_cache_dtype: str = "bfloat16"
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 0
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    max_utilization: bool = False
    enable_chunked_prefill: bool = True
    attention_dp: AttentionDpOptions = field(default_factory=AttentionDpOptions)
    gemm_allreduce_plugin: bool = False
    wide_inputs: bool = False
    narrow_experts: bool = False
    eight_bit_rows: bool = False
    cudagraph_capture_sizes: tuple[int, ...] = ()
    built_engine: bool = False
    enable_dbo: bool = False
    expert_imbalance: float = 1.0
    expert_load: str = BALANCED
    num_redundant_experts: int = 0
    deepep: str = ""
    stack: Stack = Stack.VLLM
    schedule_policy: SchedulePolicy = SchedulePolicy.FCFS
    async_scheduling: bool = True
    sglang: SglangOptions = field(default_factory=SglangOptions)
    offload: OffloadOptions = field(default_factory=OffloadOptions)
    speculation: Speculation = field(default_factory=Speculation)


def held_states(o: DeploymentOptions) -> int:
    """Recurrent states that SGLang keeps for one sequence."""
    strategy = state_strategy(o)
    return states_per_sequence(
        o.async_scheduling, o.enable_prefix_caching, strategy is StateStrategy.EXTRA_BUFFER
    )


def state_strategy(o: DeploymentOptions) -> StateStrategy:
    """Where SGLang keeps older recurrent states."""
    page = o.block_size or BLOCK[Stack.SGLANG]
    return o.sglang.mamba_radix_cache_strategy.chosen(o.async_scheduling, page)
