"""`windtunnel serve MODEL --sweep`: what a card sustains over card counts, prompt lengths and batches."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from windtunnel import units
from windtunnel.cli import output
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.report import sweep_page
from windtunnel.report.text_table import TextColumn, render
from windtunnel.results.sweep_result import Pair, Point, SweepResult
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.sweep import PASS_TOKENS, Sweep
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec

N = TypeVar("N", int, float)
PROMPTS = (1024, 4096, 16384)
BATCHES = (16, 32, 64, 128, 256)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the sweep."""
    add = parser.add_argument_group("sweep").add_argument
    add("--sweep", action="store_true", help="prefill and decode a card, without traffic")
    add("--sweep-cards", default="", metavar="N,N", help="card counts; default: those of --on")
    add("--sweep-prompts", default="", metavar="N,N", help="default: 1024,4096,16384")
    add("--sweep-batches", default="", metavar="N,N", help="sequences a rank; default: 16,32,64,128,256")
    add("--sweep-contexts", default="", metavar="N,N", help="tokens a sequence; default: 4096")


def run(
    args: argparse.Namespace, model: ModelSpec, clusters: Sequence[Cluster], options: DeploymentOptions
) -> int:
    """Print the tables or the points as JSON, write the page. Raises E650 for unreadable lists, E651: nothing fits."""
    prompts = numbers("--sweep-prompts", args.sweep_prompts, int) or PROMPTS
    batches = numbers("--sweep-batches", args.sweep_batches, int) or BATCHES
    contexts = numbers("--sweep-contexts", args.sweep_contexts, int) or (4096,)
    points: list[Point] = []
    pairs: list[Pair] = []
    out: list[WindtunnelError] = []
    for cluster in clusters:
        cards = numbers("--sweep-cards", args.sweep_cards, int) or (cluster.cards,)
        sweep = Sweep(model, cluster.chip, cards=cards, options=options)
        points += sweep.prefill(prompts) + sweep.decode(batches, contexts)
        pair = sweep.disaggregated(args.input_len, args.output_len, batches)
        if pair is not None:
            pairs.append(pair)
        out += [error for error in sweep.out if error.what not in {other.what for other in out}]
    if not points:
        raise out[0] if out else AnswerIsNo("E651", "nothing fits", hint="more cards: --sweep-cards 32,64")
    found = SweepResult(
        model=model.name, model_title=model.title or model.name, pass_tokens=PASS_TOKENS, points=tuple(points),
        pairs=tuple(pairs), left_out=tuple(error.what for error in out),
    )  # fmt: skip
    if args.html:
        sweep_page.write(found, args.html)
        output.say(f"wrote {args.html}", quiet=args.quiet)
    if args.json:
        output.print_json(as_json(found))
    else:
        output.print_lines(text(found, output.width()))
    return 0


def text(found: SweepResult, width: int) -> list[str]:
    """Two tables, prefill and decode, and the pairs."""
    title = found.model_title
    head = f"{title}: prompt tokens/s a card, passes of about {found.pass_tokens:,} tokens a rank"
    lines = [*output.wrapped(head, width, ""), ""]
    lines += _table(found.of("prefill"), "Prompt", width)
    lines += ["", f"{title}: output tokens/s a card", ""]
    lines += _table(found.of("decode"), "Context", width)
    for pair in found.pairs:
        lines += ["", *output.wrapped(sweep_page.pair_words(pair), width, "")]
    if not all(point.fits for point in found.points):
        lines += ["", "* does not fit the cache: what the step would take if it did"]
    for why in found.left_out:
        lines += output.wrapped(f"left out: {why}", width, "")
    layouts = dict.fromkeys(f"{point.chip}: {point.layout}" for point in found.points)
    lines += ["", "Layouts"]
    for layout in layouts:
        lines += output.wrapped(layout, width, " ")
    return lines


def _table(points: Sequence[Point], length: str, width: int) -> list[str]:
    columns = [
        TextColumn("Chip"),
        TextColumn("Cards", right=True),
        TextColumn(length, right=True),
        TextColumn("Batch", right=True),
        TextColumn("Tokens/s", right=True),
        TextColumn("80 % interval", right=True),
        TextColumn("Roofline", right=True),
        TextColumn("of it", right=True, rank=2),
        TextColumn("Step", right=True, rank=1),
        TextColumn("Source", rank=3),
    ]
    rows = []
    for point in points:
        rate = point.tokens_per_s_per_gpu
        rows.append(
            (
                point.chip,
                str(point.cards),
                f"{point.context:,}",
                str(point.batch) + ("" if point.fits else "*"),
                f"{rate.value:,.0f}",
                f"{rate.low:,.0f} – {rate.high:,.0f}",
                f"{point.roofline:,.0f}",
                units.percent(rate.value / point.roofline),
                units.seconds(point.step_s.value),
                str(rate.source),
            )
        )
    return render(columns, rows, width)


def as_json(found: SweepResult) -> dict[str, object]:
    """The object of ``--json``."""
    return {
        "schema": output.schema("serve-sweep"),
        "status": "ok",
        "model": found.model,
        "points": [_plain(point) for point in found.points],
        "disaggregated": [
            {
                "chip": pair.decode.chip,
                "input_tokens": pair.prompt,
                "output_tokens": pair.output,
                "prefill_share": pair.prefill_share,
                "output_tokens_per_s_per_gpu": pair.output_tokens_per_s_per_gpu,
                "prefill": _plain(pair.prefill),
                "decode": _plain(pair.decode),
            }
            for pair in found.pairs
        ],
        "left_out": list(found.left_out),
    }


def _plain(point: Point) -> dict[str, object]:
    return {
        **asdict(point),
        "tokens_per_s_per_gpu": point.tokens_per_s_per_gpu.to_dict(),
        "step_s": point.step_s.to_dict(),
        "tokens_per_s_per_user": point.tokens_per_s_per_user,
    }


def numbers(option: str, text: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    """The comma-separated numbers of an option; empty where it is not given. Raises E650."""
    try:
        found = tuple(kind(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        found = (kind("0"),)
    if any(not 0 < number < float("inf") for number in found):
        raise WindtunnelError(
            "E650", f"{option} {text} must be numbers above zero", hint=f"for example {option} 16,32"
        )
    return found
