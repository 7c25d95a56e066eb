"""What values the options of `windtunnel serve` may have, each by itself."""

from __future__ import annotations

import argparse
import math

from windtunnel.errors import WindtunnelError


def check(args: argparse.Namespace) -> None:
    """Raises E650 for a value out of its range."""
    for name, value in vars(args).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise bad(f"--{name.replace('_', '-')}", value, "a finite number")
    positive = (
        "input_len", "output_len", "max_num_seqs", "max_num_batched_tokens", "data_parallel_size",
        "trace_speed", "burstiness", "speed", "max_queue", "max_prefill_tokens", "schedule_conservativeness",
        "hicache_ratio", "kv_storage_bandwidth", "mamba_full_memory_ratio",
    )  # fmt: skip
    for name in positive:
        if not 0 < getattr(args, name) < float("inf"):
            raise bad(f"--{name.replace('_', '-')}", getattr(args, name), "above zero")
    for name in ("rate", "concurrency", "requests"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise bad(f"--{name}", value, "above zero")
    for name in (
        "tensor_parallel_size",
        "block_size",
        "prefix_len",
        "num_speculative_tokens",
        "num_redundant_experts",
        "gui_sessions",
        "kv_offloading_size",
        "hicache_size",
        "kv_storage_size",
    ):
        if getattr(args, name) < 0:
            raise bad(f"--{name.replace('_', '-')}", getattr(args, name), "zero or more")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise bad("--gpu-memory-utilization", args.gpu_memory_utilization, "between 0 and 1")
    if not 0 <= args.acceptance <= 1:
        raise bad("--acceptance", args.acceptance, "between 0 and 1")
    if not 0 <= args.range_ratio < 1:
        raise bad("--range-ratio", args.range_ratio, "from 0 to below 1")
    if not args.expert_imbalance >= 1:
        raise bad("--expert-imbalance", args.expert_imbalance, "at least 1")
    if args.max_num_batched_tokens < args.max_num_seqs:
        raise bad("--max-num-batched-tokens", args.max_num_batched_tokens, "at least --max-num-seqs")
    if sum(bool(value) for value in (args.rate, args.rates, args.concurrency)) > 1:
        raise WindtunnelError(
            "E650", "--rate, --rates and --concurrency exclude each other", hint="keep one of them"
        )


def bad(option: str, value: object, should: str) -> WindtunnelError:
    """E650 for one option; ``should``: what its value must be."""
    return WindtunnelError(
        "E650", f"{option} {value} must be {should}", hint=f"see windtunnel serve --help for {option}"
    )
