"""`windtunnel serve --port`: the options of the endpoint, and the engine that answers behind it."""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output
from windtunnel.cli.serve_values import bad
from windtunnel.errors import WindtunnelError
from windtunnel.report import serving_page
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.metrics import parse_sla
from windtunnel.serving.predict import Load, lived
from windtunnel.specs.cluster import Cluster

if TYPE_CHECKING:
    from windtunnel.endpoint.live import LiveEngine
    from windtunnel.endpoint.speaker import Speaker

PORT = 8000
ENGINES = ("native", "vllm")
QUEUE = 4096
LONGEST = 131_072
"""Tokens of a sequence at most, of models whose configuration does not say."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The group `endpoint` of `windtunnel serve --help`."""
    add = parser.add_argument_group("endpoint").add_argument
    add("--port", type=int, metavar="N", help="answer OpenAI requests here instead of predicting")
    add("--engine", choices=ENGINES, help="who answers; native (ours) or vllm (the real one)")
    add("--host", default="127.0.0.1", help="default: 127.0.0.1")
    add("--speed", type=float, default=1.0, metavar="X", help="run the clock X times as fast; default: 1")
    add("--max-model-len", type=int, default=0, metavar="N", help="default: the model's, as the cache allows")
    add("--max-queue", type=int, default=QUEUE, metavar="N", help="requests held before 429 (vllm: 503)")
    add("--served-model-name", nargs="+", default=[], metavar="NAME", help="names of the model; *: any")
    add("--answer-tokens", type=float, default=0.0, metavar="N", help="mean of answers without max_tokens")
    add("--answer-trace", type=Path, metavar="FILE", help="draw those lengths from recorded traffic")
    add(
        "--answer-with",
        type=Path,
        metavar="DIR",
        help="a small transformers model that writes the answers, on the card in values mode",
    )
    add("--pipeline-parallel-size", "--pp", type=int, default=1, metavar="N", help="vllm: stages; default: 1")
    add("--record", type=Path, metavar="FILE", help="append one line a call, for --agents")
    add("--tokenizer", type=Path, metavar="DIR", help="vllm: a tokenizer to count tokens with")
    add("--vllm-args", default="", metavar="'OPTIONS'", help="vllm: further options of `vllm serve`")


def wanted(args: argparse.Namespace) -> bool:
    """Whether an endpoint is asked for, not a prediction."""
    return args.port is not None or args.engine is not None


def stage_cluster(args: argparse.Namespace, cluster: Cluster) -> Cluster:
    """The cards of one pipeline stage. Raises E650."""
    stages = args.pipeline_parallel_size
    if stages == 1:
        return cluster
    if args.engine != "vllm":
        raise WindtunnelError(
            "E650",
            "--pipeline-parallel-size is vLLM's; the native engine and the simulator have no pipeline",
            hint="add --engine vllm, or spread the model with --tp",
        )
    if stages < 1 or cluster.cards % stages or args.prefill_cards:
        should = f"a divisor of the {cluster.cards} cards, without --prefill-cards"
        raise bad("--pipeline-parallel-size", stages, should)
    return replace(cluster, cards=cluster.cards // stages)


def run(args: argparse.Namespace, deployment: Deployment, prefill: Deployment | None) -> int:
    """Serve until interrupted; ``prefill``: a deployment of its own for prompts. Raises E650, E660 to E663, E667."""
    port = PORT if args.port is None else args.port
    if not 0 <= port < 1 << 16:
        raise bad("--port", port, "from 0 to 65535")
    if args.answer_tokens < 0:
        raise bad("--answer-tokens", args.answer_tokens, "zero or more")
    if args.html and args.engine == "vllm":
        raise WindtunnelError(
            "E650",
            "--html of an endpoint is the native engine's; the real vLLM has /metrics",
            hint="leave out --html, or --engine vllm",
        )
    if args.engine == "vllm":
        return _vllm(args, deployment, prefill, port)
    if prefill is not None:
        raise WindtunnelError(
            "E650",
            "the native endpoint has no prefill cards of its own",
            hint="add --engine vllm, or leave --port out to simulate them",
        )
    return _native(args, deployment, port)


def _native(args: argparse.Namespace, deployment: Deployment, port: int) -> int:
    from windtunnel.endpoint.lengths import AnswerLengths
    from windtunnel.endpoint.server import Endpoint, serve  # only endpoints need the server's packages

    speaker = _speaker(args)
    endpoint = Endpoint(
        deployment,
        speed=args.speed,
        max_queue=args.max_queue,
        names=tuple(args.served_model_name),
        lengths=AnswerLengths.told(args.answer_tokens, str(args.answer_trace or "")),
        record=args.record,
        speaker=speaker,
        keeps=bool(args.html),
        max_model_len=longest(args, [deployment]),
    )
    try:
        status = serve(endpoint, host=args.host, port=port)
    finally:
        if speaker is not None:
            speaker.close()
    if args.html:
        _page(args, deployment, endpoint.engine)
    return status


def _page(args: argparse.Namespace, deployment: Deployment, engine: LiveEngine) -> None:
    """What the endpoint has answered, as a page."""
    if not any(replica.served for replica in engine.replicas):
        output.say(f"nothing was answered: {args.html} is not written", quiet=args.quiet)
        return
    load = Load(requests=tuple(engine.asked), words=f"live, {len(engine.asked):,} requests to the endpoint")
    result = lived(deployment, load, engine.replicas, engine.now_s / engine.speed, parse_sla(args.sla))
    serving_page.write([result], args.html)
    output.say(f"wrote {args.html}", quiet=args.quiet)


def _speaker(args: argparse.Namespace) -> Speaker | None:
    """The small model of ``--answer-with``. Raises E666."""
    if args.answer_with is None:
        return None
    from windtunnel.endpoint.speaker import Speaker

    with output.Progress("loading the model that answers", quiet=args.quiet):
        speaker = Speaker(args.answer_with, args.on, args.set, [str(folder) for folder in args.chips])
    output.say(f"answers come from {args.answer_with}: {speaker.about}, values mode", quiet=args.quiet)
    return speaker


def _vllm(args: argparse.Namespace, deployment: Deployment, prefill: Deployment | None, port: int) -> int:
    from windtunnel.endpoint.server import ANY, bound
    from windtunnel.endpoint.vllm import launch
    from windtunnel.endpoint.vllm.settings import Settings

    bound(args.host, port).close()  # before vLLM takes half a minute to find out
    told = Settings(
        precision=str(deployment.layout.precision),
        overrides=tuple(args.set),
        chips=tuple(str(folder.resolve()) for folder in args.chips),
        speed=args.speed,
        acceptance=args.acceptance,
        imbalance=args.expert_imbalance,
        overlap=args.enable_dbo,
        answer_tokens=args.answer_tokens,
        answer_trace=str(args.answer_trace.resolve()) if args.answer_trace else "",
        answer_with=str(args.answer_with.resolve()) if args.answer_with else "",
        record=str(args.record.resolve()) if args.record else "",
        any_name=ANY in args.served_model_name,
    )
    name = deployment.model.name
    place = launch.Place(
        model=args.model,
        on=args.on,
        names=tuple(one for one in args.served_model_name if one != ANY) or (name,),
        host=args.host,
        port=port,
        longest=longest(args, [deployment, *([prefill] if prefill else [])]),
        work=Path(tempfile.gettempdir()) / "windtunnel-vllm" / name,
        tokenizer=args.tokenizer,
        more=(*_queue(args, deployment), *shlex.split(args.vllm_args)),
    )
    if prefill is not None:
        return launch.serve_apart(prefill, deployment, told, place)
    return launch.serve(deployment, told, place, args.pipeline_parallel_size)


def _queue(args: argparse.Namespace, deployment: Deployment) -> tuple[str, ...]:
    """vLLM's bound counts those that run, too; without one asked for it has none, as in life."""
    if args.max_queue == QUEUE:
        return ()
    places = deployment.options.max_num_seqs * deployment.layout.data
    return ("--max-num-queued-reqs", str(places + args.max_queue))


def longest(args: argparse.Namespace, deployments: Sequence[Deployment]) -> int:
    """Tokens of a sequence at most: as asked for, or the model's context as far as a rank's cache holds it.

    Of a pipeline's cache vLLM itself knows the size; each stage holds its layers. Raises E650 where vLLM would refuse.
    """
    asked, context = args.max_model_len, deployments[0].model.context
    if asked < 0 or (context and asked > context):
        raise bad("--max-model-len", asked, f"from 1 to {context or LONGEST:,}, the model's context")
    if args.pipeline_parallel_size > 1:
        return asked or context or LONGEST
    room = min(deployment.cache_tokens for deployment in deployments)
    if asked > room:
        raise bad("--max-model-len", asked, f"at most {room:,}, the cache of a rank")
    return asked or min(context or LONGEST, room)
