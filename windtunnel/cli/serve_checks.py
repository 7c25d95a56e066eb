"""Options of `windtunnel serve` that say nothing together: refused, so that no answer rests on one that was ignored."""

from __future__ import annotations

import argparse

from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.kernel_library import Stack
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_ffn import Moe

_TRAFFIC = ("rate", "rates", "concurrency", "trace", "gui_sessions")
_SGLANG = {
    "chunked_prefill_size": 0, "enable_mixed_chunk": False, "max_prefill_tokens": 16384,
    "schedule_conservativeness": 1.0, "radix_eviction_policy": "lru", "mamba_full_memory_ratio": 0.9,
    "schedule_policy": "fcfs", "num_reserved_decode_tokens": 512, "disaggregation_decode_extra_slots": None,
    "radix_eviction_policy_config": "", "mamba_radix_cache_strategy": "auto",
}  # fmt: skip
"""What only SGLang's rules read, and the values that say nothing."""
_APART = ("num_reserved_decode_tokens", "disaggregation_decode_extra_slots")
"""What only decode servers read."""
_HICACHE = {"hicache_ratio": 2.0, "hicache_size": 0.0, "hicache_write_policy": "write_through"}


def together(args: argparse.Namespace) -> None:
    """Raises E650 for options of which one leaves the other without a meaning."""
    endpoint = args.port is not None or args.engine is not None
    if args.sweep:
        for name in (*_TRAFFIC, "sla", "agents", "prefill_cards"):
            _not_beside(args, name, "--sweep", "it asks without traffic")
        if endpoint:
            raise _exclude("--sweep", "--port", "it answers once")
    if endpoint:
        for name in (*_TRAFFIC, "agents"):
            _not_beside(args, name, "--port", "its clients bring the traffic")
    elif args.max_model_len:
        raise _needs("max_model_len", "--port 8000")
    if args.trace and args.gui_sessions:
        raise _exclude("--trace", "--gui-sessions", "both are traffic")
    if args.gui_sessions and (args.rates or args.concurrency):
        raise _exclude(
            "--gui-sessions", "--rates" if args.rates else "--concurrency", "sessions begin at --rate"
        )
    if args.scheduler != Stack.SGLANG:
        for name, said in _SGLANG.items():
            if getattr(args, name) != said:
                raise _needs(name, "--scheduler sglang")
    for name in _APART:
        if not args.prefill_cards and getattr(args, name) != _SGLANG[name]:
            raise _needs(name, "--prefill-cards")
    if not args.enable_hierarchical_cache:
        for name, said in _HICACHE.items():
            if getattr(args, name) != said:
                raise _needs(name, "--enable-hierarchical-cache")


def of_model(args: argparse.Namespace, model: ModelSpec) -> None:
    """Raises E650 for what the model has no part for."""
    title = model.title or model.name
    if args.gui_sessions and model.vision is None:
        raise WindtunnelError(
            "E650",
            f"{title} reads no images, and --gui-sessions sends screenshots",
            hint="choose a model with vision",
        )
    if args.enable_expert_parallel and not any(isinstance(layer.ffn, Moe) for layer in model.layers):
        raise WindtunnelError("E650", f"{title} has no experts", hint="leave out --enable-expert-parallel")


def of_layout(args: argparse.Namespace, found: Deployment) -> None:
    """Raises E650 for what the layout, chosen or asked for, leaves without effect."""
    layout = found.layout
    loaded = args.expert_load not in ("balanced", "forced") or args.expert_imbalance != 1
    if layout.expert == 1 and (loaded or args.num_redundant_experts):
        option = "--num-redundant-experts" if args.num_redundant_experts else "--expert-load"
        raise WindtunnelError(
            "E650",
            f"{option} says nothing where every rank has a part of every expert",
            hint="spread experts over ranks: --enable-expert-parallel",
            values={"layout": found.words()},
        )
    if args.enable_dbo and (layout.expert == 1 or layout.data == 1):
        raise WindtunnelError(
            "E650",
            "--enable-dbo overlaps exchanges among data-parallel ranks with experts of their own: there are none",
            hint="--tp 1 --dp 16 --ep on 16 cards, or leave it out",
            values={"layout": found.words()},
        )


def _not_beside(args: argparse.Namespace, name: str, option: str, why: str) -> None:
    if getattr(args, name):
        raise _exclude(option, _option(name), why)


def _exclude(one: str, other: str, why: str) -> WindtunnelError:
    return WindtunnelError("E650", f"{one} and {other} exclude each other: {why}", hint="keep one of them")


def _needs(name: str, option: str) -> WindtunnelError:
    return WindtunnelError("E650", f"{_option(name)} says nothing without {option}", hint=f"add {option}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
