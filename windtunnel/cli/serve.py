"""`windtunnel serve MODEL`: what users of a deployment would see, or an endpoint that answers at its pace."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from windtunnel.cli import (
    output,
    serve_agents,
    serve_answer,
    serve_checks,
    serve_endpoint,
    serve_options,
    serve_sweep,
    serve_values,
)
from windtunnel.cli.fit_model import find_model
from windtunnel.cli.parser import add_chip_options
from windtunnel.cli.serve_deployment import deployments, options_of
from windtunnel.cli.serve_load import load_of
from windtunnel.errors import WindtunnelError
from windtunnel.report import serving_page
from windtunnel.report.files import check_writable
from windtunnel.results.serving_result import ServingResult
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.interval import with_interval
from windtunnel.serving.metrics import parse_sla
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.router import Policy
from windtunnel.specs.targets import parse_target
from windtunnel.workloads.agents.replay import longest

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_ON = "mtt-s5000:8"
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
    serve_options.add_load(parser)
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="the answer as a page: of a load, a sweep, agents, or an endpoint's life",
    )
    serve_sweep.add_options(parser)
    serve_options.add_engine(parser)
    serve_options.add_tiers(parser)
    serve_endpoint.add_options(parser)
    serve_agents.add_options(parser)
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and print, or serve. Raises E209, E302, E501, E650 to E657, E925."""
    serve_values.check(args)
    serve_checks.together(args)
    if args.html:
        check_writable(args.html)
    model = find_model(args.model)
    serve_checks.of_model(args, model)
    clusters = parse_target(args.on, args.set, args.chips)
    if args.sweep:
        return serve_sweep.run(args, model, clusters, options_of(args, model, clusters[0]))
    if len(clusters) != 1:
        raise WindtunnelError(
            "E650",
            "serve takes one chip",
            hint="run it once for each: --on mtt-s5000:8",
            values={"on": args.on},
        )
    if args.agents:
        team, teams = serve_agents.wanted_graph(args.agents)
        decode, _ = deployments(args, model, clusters[0], longest([team]))
        return serve_agents.run(args, decode, team, teams)
    load = None if serve_endpoint.wanted(args) else load_of(args)
    most = max((r.prompt_tokens + r.output_tokens for r in load.requests), default=1) if load else 1
    if args.trace:
        most = 1  # single long requests of a trace are rejected and counted, not the deployment
    if args.pipeline_parallel_size > 1:
        most = 0  # a stage holds a part of the layers only: vLLM is told how much cache each has left
    decode, prefill = deployments(args, model, serve_endpoint.stage_cluster(args, clusters[0]), most)
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
        results.append(_predicted(args, decode, load_of(args), prefill, which))
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
