"""`windtunnel serve MODEL`: what users of a deployment would see, or an endpoint that answers at its pace."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output, serve_agents, serve_answer, serve_checks, serve_endpoint, serve_sweep
from windtunnel.cli.fit_model import find_model
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.layout import Precision
from windtunnel.report import serving_page
from windtunnel.results.serving_result import ServingResult
from windtunnel.serving.arrivals import Arrivals, Lengths, at_rate, drawn, stretched
from windtunnel.serving.attention_dp import AttentionDpOptions
from windtunnel.serving.deployment import Deployment, DeploymentOptions, deploy
from windtunnel.serving.gui_agent import GuiAgent, gui_sessions
from windtunnel.serving.host_tree import WritePolicy
from windtunnel.serving.interval import with_interval
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.metrics import parse_sla
from windtunnel.serving.offload import DRIVE_BYTES_PER_S, OffloadOptions
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.prefill_budget import SglangOptions, StateStrategy
from windtunnel.serving.queue_order import SchedulePolicy
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.router import Policy
from windtunnel.serving.sessions import in_sessions
from windtunnel.serving.step_time import Speculation
from windtunnel.serving.trace_readers import BAD_SHOWN, Trace, read_trace
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.targets import cluster_of, parse_target
from windtunnel.workloads.agents.replay import longest

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_ON = "mtt-s5000:8"
CACHES = {"auto": "bfloat16", "bf16": "bfloat16", "fp8": "float8_e4m3fn"}
PRECISIONS = ("auto", "bf16", "fp16", "fp8", "fp8-block", "mxfp8", "nvfp4")
BLOCK_FP8_FAMILIES = ("deepseek_v3", "kimi_k2")
"""Families whose published checkpoints are FP8 with 128 × 128 blocks (their config.json says so)."""
EXAMPLES = """examples:
  windtunnel serve qwen3-8b --on mtt-s5000 --rate 4
  windtunnel serve deepseek-v3-671b --on mtt-s5000:32 --concurrency 2048 --input-len 4096 --output-len 512
  windtunnel serve deepseek-v3-671b --on mtt-s5000:64 --prefill-cards 32 --rate 20 --sla 'ttft<2s,tpot<60ms'
  windtunnel serve deepseek-v3-671b --on mtt-s5000:144,h20:144 --sweep --enable-dbo
  windtunnel serve llama3-70b --on h20:8 --trace mooncake.jsonl --trace-speed 0.2
  windtunnel serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8 --agents autogen:swarm×200
  windtunnel serve qwen3-8b --on mtt-s5000 --port 8000
  windtunnel serve qwen3-8b --on mtt-s5000 --port 8000 --engine vllm"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel serve`; those of engines have vLLM's names."""
    parser = subparsers.add_parser(
        "serve",
        help="predict serving, or answer requests at a card's pace",
        usage="windtunnel serve MODEL [options]",
        description="Say what users of a deployment would see under a load, or answer OpenAI requests at "
        "the deployment's pace (--port). Exit status 1: it does not fit, or misses the SLA.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a shipped model, a config.json, a transformers class")
    add("--on", default=DEFAULT_ON, metavar="CHIP[:CARDS]", help=f"default: {DEFAULT_ON}")
    _add_load(parser)
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="the answer as a page: of a load, a sweep, agents, or an endpoint's life",
    )
    serve_sweep.add_options(parser)
    _add_engine(parser)
    _add_tiers(parser)
    serve_endpoint.add_options(parser)
    serve_agents.add_options(parser)
    add_chip_options(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("load").add_argument
    add("--rate", type=float, metavar="R", help="requests a second")
    add("--rates", default="", metavar="R,R", help="goodput and latencies against the rate, one run each")
    add("--concurrency", type=int, metavar="N", help="clients that send one request after another")
    add("--trace", type=Path, metavar="FILE", help="recorded traffic (Mooncake, Azure, BurstGPT, …)")
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


def _add_engine(parser: argparse.ArgumentParser) -> None:
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
        help="balanced, forced, published, power-law:A, file",
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


def _add_tiers(parser: argparse.ArgumentParser) -> None:
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


def run(args: argparse.Namespace) -> int:
    """Predict and print, or serve. Raises E209, E302, E501, E650 to E657."""
    _check(args)
    serve_checks.together(args)
    model = find_model(args.model)
    serve_checks.of_model(args, model)
    clusters = parse_target(args.on, args.set, args.chips)
    if args.sweep:
        return serve_sweep.run(args, model, clusters, _options(args, model, clusters[0]))
    if len(clusters) != 1:
        raise WindtunnelError(
            "E650",
            "serve takes one chip",
            hint="run it once for each: --on mtt-s5000:8",
            values={"on": args.on},
        )
    if args.agents:
        team, teams = serve_agents.wanted_graph(args.agents)
        decode, _ = _deployments(args, model, clusters[0], longest([team]))
        return serve_agents.run(args, decode, team, teams)
    load = None if serve_endpoint.wanted(args) else _load(args)
    most = max((r.prompt_tokens + r.output_tokens for r in load.requests), default=1) if load else 1
    if args.trace:
        most = 1  # single long requests of a trace are rejected and counted, not the deployment
    if args.pipeline_parallel_size > 1:
        most = 0  # a stage holds a part of the layers only: vLLM is told how much cache each has left
    decode, prefill = _deployments(args, model, serve_endpoint.stage_cluster(args, clusters[0]), most)
    if load is None:
        return serve_endpoint.run(args, decode, prefill)
    if args.rates:
        return _at_rates(args, decode, prefill)
    result = _predicted(args, decode, load, prefill)
    _page(args, [result])
    if args.json:
        output.print_json(serve_answer.as_json(result))
    else:
        output.print_lines(serve_answer.text(result, output.width()))
    return 0 if result.meets_sla else 1


def _predicted(
    args: argparse.Namespace, decode: Deployment, load: Load, prefill: Deployment | None, which: str = ""
) -> ServingResult:
    """The answer, and its interval; ``which``: of several."""
    policy = Policy(args.router)
    with output.Progress(f"serving{which}", quiet=args.quiet) as progress:
        result = predict(
            decode, load, policy=policy, sla=parse_sla(args.sla), prefill=prefill, say=progress.update
        )
    try:
        with output.Progress(f"ends of the interval{which}", quiet=args.quiet) as progress:
            return with_interval(result, decode, load, policy=policy, prefill=prefill, say=progress.update)
    except KeyboardInterrupt:
        if not args.json:
            output.print_lines(serve_answer.text(result, output.width()))
        raise


def _at_rates(args: argparse.Namespace, decode: Deployment, prefill: Deployment | None) -> int:
    """The same traffic at several rates; exit status 1 when none of them meets the SLA."""
    rates = serve_sweep.numbers("--rates", args.rates, float)
    results = []
    for place, rate in enumerate(rates, 1):
        args.rate = rate
        which = f", {rate:g} requests/s ({place} of {len(rates)})"
        results.append(_predicted(args, decode, _load(args), prefill, which))
    _page(args, results, rates)
    if args.json:
        runs = [serve_answer.as_json(result) for result in results]
        output.print_json(
            {"schema": output.schema("serve-rates"), "status": "ok", "rates": rates, "runs": runs}
        )
    else:
        output.print_lines(serve_answer.rates_text(rates, results, output.width()))
    return 0 if any(result.meets_sla for result in results) else 1


def _page(args: argparse.Namespace, results: list[ServingResult], rates: Sequence[float] = ()) -> None:
    if args.html:
        serving_page.write(results, args.html, rates)
        output.say(f"wrote {args.html}", quiet=args.quiet)


def _options(args: argparse.Namespace, model: ModelSpec, cluster: Cluster) -> DeploymentOptions:
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


def _deployments(
    args: argparse.Namespace, model: ModelSpec, cluster: Cluster, longest: int
) -> tuple[Deployment, Deployment | None]:
    options = _options(args, model, cluster)
    if not args.prefill_cards:
        found = deploy(model, cluster, options, longest)
        serve_checks.of_layout(args, found)
        return found, None
    if not 0 < args.prefill_cards < cluster.cards:
        if cluster.cards == 1:
            raise _bad("--prefill-cards", args.prefill_cards, "left out: one card cannot be divided")
        raise _bad("--prefill-cards", args.prefill_cards, f"between 1 and {cluster.cards - 1}")
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


def _load(args: argparse.Namespace) -> Load:
    if args.trace:
        trace = read_trace(args.trace, args.requests or 0)
        for bad in trace.bad[:BAD_SHOWN]:
            output.say(f"{trace.name}, line {bad.line} left out: {bad.why}", quiet=args.quiet)
        if len(trace.bad) > BAD_SHOWN:
            output.say(f"{trace.name}: {len(trace.bad) - BAD_SHOWN:,} more lines left out", quiet=args.quiet)
        return _replayed(args, trace)
    if args.gui_sessions:
        found = gui_sessions(GuiAgent(), args.gui_sessions, args.rate or 0.1, args.seed)
        words = f"{args.gui_sessions:,} sessions of screen agents, {args.rate or 0.1:g}/s, {len(found):,} requests"
        return Load(requests=tuple(found), words=words)
    lengths = Lengths(
        prompt=args.input_len, output=args.output_len, spread=args.range_ratio, prefix=args.prefix_len
    )
    requests = tuple(
        drawn(
            args.requests or 1000, lengths, rate=args.rate or 0.0, pattern=Arrivals(args.arrivals),
            burstiness=args.burstiness, seed=args.seed,
        )
    )  # fmt: skip
    what = f"{args.input_len + args.prefix_len:,} tokens in, {args.output_len:,} out"
    if args.rate:
        how = f"{args.rate:g} requests/s ({args.arrivals})"
    elif args.concurrency:
        how = f"{args.concurrency:,} clients"
    else:
        how = "all at once"
    words = f"{len(requests):,} requests, {what}, {how}"
    return Load(requests=requests, words=words, concurrency=0 if args.rate else args.concurrency or 0)


def _replayed(args: argparse.Namespace, trace: Trace) -> Load:
    """A trace as it came, or its requests at a rate, or sent by clients that wait."""
    requests = tuple(stretched(trace.requests, args.trace_speed))
    sessions = in_sessions(requests)
    what = "sessions" if sessions else "requests"
    if args.rate:
        pattern = Arrivals(args.arrivals)
        requests = tuple(
            at_rate(requests, args.rate, pattern=pattern, burstiness=args.burstiness, seed=args.seed)
        )
        when = f"{args.rate:g} {what}/s ({args.arrivals})"
    elif args.concurrency:
        when = f"{args.concurrency:,} clients"
    else:
        last_s = max(request.arrival_s for request in requests)
        when = f"recorded over {last_s:,.0f} s" if sessions else f"over {last_s:,.0f} s"
        when = when if last_s else "all at once"
    if sessions:
        waiting = sum(request.follows is not None for request in requests)
        when += f", {waiting:,} of them each sent when the answers it waits for have come (closed loop)"
    elif not args.concurrency:
        when += ", sent at these times whatever is answered (open loop)" if not args.rate else ""
    return Load(
        requests=requests,
        words=f"{trace.name}, {len(requests):,} requests, {when}",
        bad_lines=len(trace.bad),
        concurrency=args.concurrency or 0,
        said=_untimed(trace),
    )


def _untimed(trace: Trace) -> tuple[str, ...]:
    if not trace.untimed:
        return ()
    said = f"{trace.untimed:,} recorded calls do not say how long their answer took: the next waits the whole gap"
    return (said,)


def _check(args: argparse.Namespace) -> None:
    for name, value in vars(args).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _bad(f"--{name.replace('_', '-')}", value, "a finite number")
    positive = (
        "input_len", "output_len", "max_num_seqs", "max_num_batched_tokens", "data_parallel_size",
        "trace_speed", "burstiness", "speed", "max_queue", "max_prefill_tokens", "schedule_conservativeness",
        "hicache_ratio", "kv_storage_bandwidth", "mamba_full_memory_ratio",
    )  # fmt: skip
    for name in positive:
        if not 0 < getattr(args, name) < float("inf"):
            raise _bad(f"--{name.replace('_', '-')}", getattr(args, name), "above zero")
    for name in ("rate", "concurrency", "requests"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise _bad(f"--{name}", value, "above zero")
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
            raise _bad(f"--{name.replace('_', '-')}", getattr(args, name), "zero or more")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise _bad("--gpu-memory-utilization", args.gpu_memory_utilization, "between 0 and 1")
    if not 0 <= args.acceptance <= 1:
        raise _bad("--acceptance", args.acceptance, "between 0 and 1")
    if not 0 <= args.range_ratio < 1:
        raise _bad("--range-ratio", args.range_ratio, "from 0 to below 1")
    if not args.expert_imbalance >= 1:
        raise _bad("--expert-imbalance", args.expert_imbalance, "at least 1")
    if args.max_num_batched_tokens < args.max_num_seqs:
        raise _bad("--max-num-batched-tokens", args.max_num_batched_tokens, "at least --max-num-seqs")
    if sum(bool(value) for value in (args.rate, args.rates, args.concurrency)) > 1:
        raise WindtunnelError(
            "E650", "--rate, --rates and --concurrency exclude each other", hint="keep one of them"
        )


def _tails(args: argparse.Namespace) -> tuple[int, int]:
    """What ``tlru`` is told: threshold, and tokens that a next prompt is expected to add. Raises E650."""
    asked, option = args.radix_eviction_policy_config, "--radix-eviction-policy-config"
    if args.radix_eviction_policy != EvictionPolicy.TLRU:
        if asked:
            raise _bad(option, asked, "left out but with --radix-eviction-policy tlru")
        return 0, 0
    try:
        told = json.loads(asked or "{}")
        found = int(told.pop("threshold", 0)), int(told.pop("next_prompt_estimate", 0))
    except (ValueError, TypeError, AttributeError) as wrong:
        raise _bad(option, asked, 'as {"threshold": 4096, "next_prompt_estimate": 512}') from wrong
    if told or not found[0] > found[1] >= 0:
        raise _bad(
            option, asked or "{}", "a threshold above next_prompt_estimate, in tokens, and nothing else"
        )
    return found


def _bad(option: str, value: object, should: str) -> WindtunnelError:
    return WindtunnelError(
        "E650", f"{option} {value} must be {should}", hint=f"see windtunnel serve --help for {option}"
    )
