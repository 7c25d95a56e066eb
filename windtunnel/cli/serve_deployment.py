"""The deployments that the options of `windtunnel serve` ask for."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from windtunnel.cli import serve_checks
from windtunnel.cli.serve_options import CACHES
from windtunnel.cli.serve_values import bad
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.layout import Precision
from windtunnel.serving.attention_dp import AttentionDpOptions
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.offload import OffloadOptions
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.targets import cluster_of

BLOCK_FP8_FAMILIES = ("deepseek_v3", "kimi_k2")
"""Families whose published checkpoints are FP8 with 128 × 128 blocks (their config.json says so)."""


def options_of(args: argparse.Namespace, model: ModelSpec, cluster: Cluster) -> DeploymentOptions:
    """How the engine is started. Raises E650."""
    precision = args.precision
    if precision == "auto":
        block = model.family in BLOCK_FP8_FAMILIES and "fp8" in cluster.chip.peak_flops
        precision = "fp8-block" if block else "bf16"
    tail_threshold, next_prompt_estimate = _tails(args)
    return DeploymentOptions(
        tensor_parallel_size=args.tensor_parallel_size,
        data_parallel_size=args.data_parallel_size,
        enable_expert_parallel=args.enable_expert_parallel,
        precision=Precision(precision),
        kv_cache_dtype=CACHES[args.kv_precision],
        gpu_memory_utilization=args.gpu_memory_utilization,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        block_size=args.block_size,
        enable_prefix_caching=not args.no_enable_prefix_caching,
        enforce_eager=args.enforce_eager,
        enable_dbo=args.enable_dbo,
        expert_imbalance=args.expert_imbalance,
        expert_load=args.expert_load,
        num_redundant_experts=args.num_redundant_experts,
        stack=Stack(args.scheduler),
        schedule_policy=SchedulePolicy(args.schedule_policy),
        async_scheduling=not args.no_async_scheduling,
        attention_dp=AttentionDpOptions(enable_balance=args.enable_attention_dp_balance),
        sglang=SglangOptions(
            chunked_prefill_size=args.chunked_prefill_size,
            max_prefill_tokens=args.max_prefill_tokens,
            enable_mixed_chunk=args.enable_mixed_chunk,
            schedule_conservativeness=args.schedule_conservativeness,
            radix_eviction_policy=EvictionPolicy(args.radix_eviction_policy),
            tail_threshold=tail_threshold,
            next_prompt_estimate=next_prompt_estimate,
            mamba_full_memory_ratio=args.mamba_full_memory_ratio,
            mamba_radix_cache_strategy=StateStrategy(args.mamba_radix_cache_strategy),
            hicache_write_policy=WritePolicy(args.hicache_write_policy),
            num_reserved_decode_tokens=args.num_reserved_decode_tokens,
            disaggregation_decode_extra_slots=args.disaggregation_decode_extra_slots,
        ),
        offload=_offload(args),
        speculation=Speculation(tokens=args.num_speculative_tokens, acceptance=args.acceptance),
    )


def deployments(
    args: argparse.Namespace, model: ModelSpec, cluster: Cluster, longest: int
) -> tuple[Deployment, Deployment | None]:
    """Where outputs are made, and where prompts are computed, if on cards of their own. Raises E302, E650."""
    options = options_of(args, model, cluster)
    if not args.prefill_cards:
        found = deploy(model, cluster, options, longest)
        serve_checks.of_layout(args, found)
        return found, None
    if not 0 < args.prefill_cards < cluster.cards:
        if cluster.cards == 1:
            raise bad("--prefill-cards", args.prefill_cards, "left out: one card cannot be divided")
        raise bad("--prefill-cards", args.prefill_cards, f"between 1 and {cluster.cards - 1}")
    prompts = cluster_of(cluster.chip, args.prefill_cards)
    outputs = cluster_of(cluster.chip, cluster.cards - args.prefill_cards)
    plain = replace(options, speculation=Speculation())
    name = cluster.chip.name
    try:
        decode = deploy(model, outputs, options, longest)
    except AnswerIsNo as error:
        if isinstance(needed := error.values.get("cards needed"), int):
            error.hint = f"--prefill-cards {prompts.cards} --on {name}:{prompts.cards + needed}"
        raise
    try:
        prefill = deploy(model, prompts, plain, longest)
    except AnswerIsNo as error:
        if isinstance(needed := error.values.get("cards needed"), int):
            error.hint = f"--prefill-cards {needed} --on {name}:{needed + outputs.cards}"
        raise
    serve_checks.of_layout(args, decode)
    return decode, prefill


def _offload(args: argparse.Namespace) -> OffloadOptions:
    """The tiers that are asked for. Raises E650."""
    vllm, sglang = args.kv_offloading_size > 0, args.enable_hierarchical_cache
    if vllm and sglang:
        raise WindtunnelError(
            "E650", "--kv-offloading-size and --enable-hierarchical-cache exclude each other", hint="keep one"
        )
    if (vllm and args.scheduler == Stack.SGLANG) or (sglang and args.scheduler != Stack.SGLANG):
        raise WindtunnelError(
            "E650",
            "host memory is --kv-offloading-size with vLLM, --enable-hierarchical-cache with SGLang",
            hint="choose the engine: --scheduler vllm or --scheduler sglang",
            values={"scheduler": args.scheduler},
        )
    if args.kv_storage_size > 0 and not (vllm or sglang):
        raise WindtunnelError(
            "E650",
            "--kv-storage-size needs host memory before it",
            hint="add --kv-offloading-size 256, or --scheduler sglang --enable-hierarchical-cache",
        )
    return OffloadOptions(
        kv_offloading_size_bytes=args.kv_offloading_size * 2**30,
        hicache_ratio=args.hicache_ratio if sglang else 0.0,
        hicache_size_bytes=args.hicache_size * 1e9 if sglang else 0.0,
        storage_bytes=args.kv_storage_size * 1e9,
        storage_bytes_per_s=args.kv_storage_bandwidth * 1e9,
    )


def _tails(args: argparse.Namespace) -> tuple[int, int]:
    """What ``tlru`` is told: threshold, and tokens that a next prompt is expected to add. Raises E650."""
    asked, option = args.radix_eviction_policy_config, "--radix-eviction-policy-config"
    if args.radix_eviction_policy != EvictionPolicy.TLRU:
        if asked:
            raise bad(option, asked, "left out but with --radix-eviction-policy tlru")
        return 0, 0
    try:
        told = json.loads(asked or "{}")
        found = int(told.pop("threshold", 0)), int(told.pop("next_prompt_estimate", 0))
    except (ValueError, TypeError, AttributeError) as wrong:
        raise bad(option, asked, 'as {"threshold": 4096, "next_prompt_estimate": 512}') from wrong
    if told or not found[0] > found[1] >= 0:
        raise bad(
            option, asked or "{}", "a threshold above next_prompt_estimate, in tokens, and nothing else"
        )
    return found
