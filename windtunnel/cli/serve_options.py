"""The options of `windtunnel serve` for a load, an engine, and cache beyond the card; vLLM's and SGLang's names."""

from __future__ import annotations

import argparse
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.serving.arrivals import Arrivals
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.offload import DRIVE_BYTES_PER_S
from windtunnel.serving.prefill_budget import StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.router import Policy

CACHES = {"auto": "bfloat16", "bf16": "bfloat16", "fp8": "float8_e4m3fn"}
PRECISIONS = ("auto", "bf16", "fp16", "fp8", "fp8-block", "mxfp8", "nvfp4")


class _Once(argparse.Action):
    """An option of one value. Raises E650 where it is given again: the last of several would be all that is read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        said: str | None = None,
    ) -> None:
        """Keep the value."""
        before = getattr(namespace, self.dest)
        if before is not None:
            raise WindtunnelError(
                "E650",
                f"{said} {before} and {said} {values} exclude each other: one trace is replayed",
                hint=f"one run for each: {said} {before}",
            )
        setattr(namespace, self.dest, values)


def add_load(parser: argparse.ArgumentParser) -> None:
    """What is sent."""
    add = parser.add_argument_group("load").add_argument
    add("--rate", type=float, metavar="R", help="requests a second")
    add("--rates", default="", metavar="R,R", help="goodput and latencies against the rate, one run each")
    add("--concurrency", type=int, metavar="N", help="clients that send one request after another")
    add(
        "--trace",
        type=Path,
        action=_Once,
        metavar="FILE",
        help="recorded traffic (Mooncake, Azure, BurstGPT, …)",
    )
    add(
        "--gui-sessions", type=int, default=0, metavar="N", help="screen agents, beginning at --rate a second"
    )
    add("--trace-speed", type=float, default=1.0, metavar="X", help="replay X times as fast; default: 1")
    add("--requests", type=int, metavar="N", help="how many; default: 1,000, or the whole trace")
    add("--input-len", type=int, default=1024, metavar="TOKENS", help="default: 1024")
    add("--output-len", type=int, default=128, metavar="TOKENS", help="default: 128")
    add("--range-ratio", type=float, default=0.0, metavar="F", help="spread of lengths; default: 0")
    add("--prefix-len", type=int, default=0, metavar="TOKENS", help="tokens that all prompts share")
    add("--arrivals", choices=[str(kind) for kind in Arrivals], default="poisson", help="default: poisson")
    add("--burstiness", type=float, default=1.0, metavar="B", help="shape of gamma arrivals; default: 1")
    add("--seed", type=int, default=0, help="of arrivals and lengths; default: 0")
    add("--sla", default="", metavar="TERMS", help="as 'ttft:p99<2s,tpot<50ms'; missed: exit status 1")


def add_engine(parser: argparse.ArgumentParser) -> None:
    """What it is sent to."""
    add = parser.add_argument_group("engine").add_argument
    add("--tensor-parallel-size", "--tp", type=int, default=0, metavar="N", help="default: chosen")
    add("--data-parallel-size", "--dp", type=int, default=1, metavar="N", help="attention replicas")
    add("--enable-expert-parallel", "--ep", action="store_true", help="experts over all ranks")
    add("--precision", choices=PRECISIONS, default="auto", help="of weights; auto: as published")
    add("--kv-precision", choices=list(CACHES), default="auto", help="of the cache; auto: bf16")
    add(
        "--gpu-memory-utilization",
        type=float,
        default=0.9,
        metavar="F",
        help="of the card; with --scheduler trtllm the cache's share of what is free; default: 0.9",
    )
    add("--max-num-seqs", "--max-running-requests", type=int, default=256, metavar="N", help="default: 256")
    add("--max-num-batched-tokens", type=int, default=8192, metavar="N", help="default: 8192")
    add(
        "--block-size", "--page-size", type=int, default=0, metavar="TOKENS",
        help="default: 16, SGLang 1; latent attention: 64",
    )  # fmt: skip
    add("--no-enable-prefix-caching", action="store_true", help="prompts share nothing")
    add("--enforce-eager", action="store_true", help="no captured graphs: the host issues every kernel")
    add("--enable-dbo", action="store_true", help="two half-batches overlap computing and exchange")
    add("--expert-imbalance", type=float, default=1.0, metavar="F", help="busiest rank ÷ mean; default: 1")
    add(
        "--expert-load",
        default="balanced",
        metavar="KIND",
        help="balanced, forced, published:N, power-law:A, file",
    )
    add("--num-redundant-experts", type=int, default=0, metavar="N", help="spare expert slots, balanced")
    add("--num-speculative-tokens", type=int, default=0, metavar="N", help="multi-token prediction")
    add("--acceptance", type=float, default=0.8, metavar="P", help="of a drafted token; default: 0.8")
    add("--scheduler", choices=[str(s) for s in Stack], default="vllm", help="whose batching and kernels")
    add(
        "--no-async-scheduling", "--disable-overlap-schedule", action="store_true",
        help="decide a step when the one before it ended, not when it began",
    )  # fmt: skip
    add("--schedule-policy", choices=[str(p) for p in SchedulePolicy], default="fcfs", help="of the queue")
    add("--chunked-prefill-size", type=int, default=0, metavar="N", help="SGLang; default: as batched tokens")
    add("--enable-mixed-chunk", action="store_true", help="SGLang: decode in steps of prompts, too")
    add("--max-prefill-tokens", type=int, default=16384, metavar="N", help="SGLang; default: 16384")
    add("--schedule-conservativeness", type=float, default=1.0, metavar="F", help="SGLang; default: 1")
    add("--radix-eviction-policy", choices=[str(p) for p in EvictionPolicy], default="lru", help="SGLang")
    add("--radix-eviction-policy-config", default="", metavar="JSON", help="SGLang: what tlru is told")
    add(
        "--mamba-full-memory-ratio", type=float, default=0.9, metavar="R",
        help="SGLang: memory of recurrent states to that of tokens; default: 0.9",
    )  # fmt: skip
    add(
        "--mamba-radix-cache-strategy", choices=[str(p) for p in StateStrategy], default="auto",
        help="SGLang: where older recurrent states are kept",
    )  # fmt: skip
    add("--num-reserved-decode-tokens", type=int, default=512, metavar="N", help="SGLang; default: 512")
    add(
        "--disaggregation-decode-extra-slots", type=int, metavar="N",
        help="SGLang: requests on their way to a rank beyond --max-running-requests; default: twice as many up to 32",
    )  # fmt: skip
    add(
        "--enable-attention-dp-balance",
        action="store_true",
        help="TensorRT-LLM: ranks' prompts come together",
    )
    add("--router", choices=[str(kind) for kind in Policy], default="least-load", help="over replicas")
    add("--prefill-cards", type=int, default=0, metavar="N", help="cards of their own for prompts")


def add_tiers(parser: argparse.ArgumentParser) -> None:
    """Host memory and storage."""
    add = parser.add_argument_group("cache beyond the card").add_argument
    add(
        "--kv-offloading-size", type=float, default=0.0, metavar="GIB", help="host memory of an engine (vLLM)"
    )
    add("--enable-hierarchical-cache", action="store_true", help="host memory beside each card (SGLang)")
    add("--hicache-ratio", type=float, default=2.0, metavar="R", help="of it to the card's cache; default: 2")
    add("--hicache-size", type=float, default=0.0, metavar="GB", help="of it a card, in place of the ratio")
    add(
        "--hicache-write-policy", choices=[str(p) for p in WritePolicy], default="write_through",
        help="when host memory is written (SGLang); default: write_through",
    )  # fmt: skip
    add("--kv-storage-size", type=float, default=0.0, metavar="GB", help="storage of a node behind it")
    add(
        "--kv-storage-bandwidth", type=float, default=DRIVE_BYTES_PER_S / 1e9, metavar="GB/S",
        help="of a node's storage; default: 7, one NVMe drive",
    )  # fmt: skip
