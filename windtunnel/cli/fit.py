"""`windtunnel fit`: whether a model fits in memory, part by part, and what to change if it does not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from windtunnel.cli import fit_answer, output
from windtunnel.cli.fit_model import find_model
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.recipes.fit.inference import CACHE_BYTES, WEIGHT_BYTES
from windtunnel.recipes.fit.question import FitAnswer, FitQuestion, Mode
from windtunnel.recipes.fit.training import Adapters, Optimizer
from windtunnel.recipes.layout import Precision, Recompute, Sharding
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.targets import parse_target

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CHIP = "mtt-s5000"
EXAMPLES = """examples:
  windtunnel fit llama3-70b --on mtt-s5000:8 --precision fp8 --batch 32 --context 8192
  windtunnel fit deepseek-v3-671b --on mtt-s5000:16 --precision fp8 --tp 8 --pp 2
  windtunnel fit qwen3-vl-8b --mode train --on mtt-s5000:8 --batch 2 --sequence 8192 --recompute full
  windtunnel fit ./my-model/config.json --mode lora --on h100-sxm --json"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel fit`."""
    parser = subparsers.add_parser(
        "fit",
        help="whether a model fits in memory, and on how many cards",
        usage="windtunnel fit MODEL [options]",
        description="Say how much memory a model takes on the fullest card, part by part, and whether it "
        "fits. If it does not, the hint is a command that was computed to fit. Exit status 1: it does not.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a shipped model, a config.json, a transformers class")
    add("--models", action="store_true", help="list the shipped models")
    add("--on", default=DEFAULT_CHIP, metavar="CHIP[:CARDS]", help=f"default: {DEFAULT_CHIP}, one card")
    add("--mode", choices=[str(mode) for mode in Mode], default="infer", help="default: infer")
    add(
        "--precision",
        default="bf16",
        metavar="P",
        help="of weights or, in training, of products; default: bf16",
    )
    add("--batch", type=int, default=1, metavar="N", help="sequences on one data rank at once (micro-batch)")
    add("--sequence", type=int, metavar="TOKENS", help="tokens of a training sample; default: 4096")
    add("--context", type=int, metavar="TOKENS", help="tokens of a served sequence; default: 4096")
    add("--kv-precision", choices=list(CACHE_BYTES), default="bf16", help="of the cache; default: bf16")
    add("--tp", type=int, metavar="N", help="tensor parallel; default when serving: the cards of a node")
    add("--pp", type=int, metavar="N", help="pipeline stages; default when serving: the nodes")
    add("--ep", type=int, default=1, metavar="N", help="expert parallel")
    add("--cp", type=int, default=1, metavar="N", help="context parallel (training)")
    sharding = parser.add_mutually_exclusive_group()
    for flag, chosen in (("--fsdp", Sharding.FSDP), ("--zero1", Sharding.ZERO1), ("--ddp", Sharding.DDP)):
        sharding.add_argument(
            flag, dest="sharding", action="store_const", const=chosen, help=f"data-parallel ranks: {chosen}"
        )
    parser.set_defaults(sharding=Sharding.FSDP)
    add("--recompute", choices=[str(way) for way in Recompute], default="none", help="default: none")
    add("--optimizer", choices=[str(kind) for kind in Optimizer], default="adamw", help="default: adamw")
    add(
        "--eager", action="store_true", help="norms, activations and loss as plain PyTorch runs them, unfused"
    )
    add("--lora-rank", type=int, default=16, metavar="R", help="default: 16")
    add("--lora-all", action="store_true", help="adapters on the feed-forward too")
    add(
        "--prefill-tokens", type=int, default=8192, metavar="N", help="new tokens of one serving step at most"
    )
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the answer; 0 it fits, 1 it does not.

    Raises:
        WindtunnelError: E101 to E109 and E220, the target; E205, E207, the layout; E302 to E307, the model;
            E305, an option.
    """
    if args.models:
        return fit_answer.print_models(json=args.json)
    if args.model is None:
        raise WindtunnelError("E305", "fit needs a model", hint="windtunnel fit --models lists those shipped")
    model = find_model(args.model)
    answers = [FitAnswer(_question(args, cluster, model)) for cluster in _targets(args)]
    if args.json:
        output.print_json(fit_answer.as_json(answers, args.model))
    else:
        for answer in answers:
            output.print_lines(fit_answer.lines(answer, args.model, output.width()))
    return 0 if all(answer.fits for answer in answers) else 1


def _targets(args: argparse.Namespace) -> tuple[Cluster, ...]:
    return parse_target(args.on, args.set, args.chips)


def _question(args: argparse.Namespace, cluster: Cluster, model: ModelSpec) -> FitQuestion:
    mode = Mode(args.mode)
    for name in ("batch", "ep", "cp", "lora_rank", "prefill_tokens", "tp", "pp", "sequence", "context"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise _bad_option(f"--{name.replace('_', '-')}", value, "a whole number above 0")
    known = list(WEIGHT_BYTES) if mode is Mode.INFER else [str(precision) for precision in Precision]
    if args.precision not in known:
        raise _bad_option("--precision", args.precision, f"one of {', '.join(known)} in mode {mode}")
    tensor, pipeline, cards = _degrees(args, cluster, mode)
    length = (args.context or args.sequence) if mode is Mode.INFER else (args.sequence or args.context)
    return FitQuestion(
        model=model,
        chip=cluster.chip,
        cards=cards,
        mode=mode,
        batch=args.batch,
        sequence=length or 4096,
        tensor=tensor,
        pipeline=pipeline,
        expert=args.ep,
        context_parallel=args.cp,
        precision=args.precision,
        cache_precision=args.kv_precision,
        sharding=args.sharding,
        recompute=Recompute(args.recompute),
        optimizer=Optimizer(args.optimizer),
        adapters=Adapters(rank=args.lora_rank, all_products=args.lora_all),
        prefill_tokens=args.prefill_tokens,
        fused=not args.eager,
    )


def _degrees(args: argparse.Namespace, cluster: Cluster, mode: Mode) -> tuple[int, int, int]:
    """Tensor, pipeline, cards. Degrees without a number of cards ask for as many as they need."""
    asked = (args.tp or 1) * (args.pp or 1) * args.cp
    cards = max(cluster.cards, asked) if ":" not in args.on else cluster.cards
    if mode is not Mode.INFER or args.tp or args.pp:
        tensor, pipeline = args.tp or 1, args.pp or 1
    else:
        tensor = min(cards, cluster.chip.cards_per_node)
        pipeline = -(-cards // tensor)
    if cards % (tensor * pipeline * args.cp):
        raise _bad_option(
            "--on", args.on, f"a multiple of tensor {tensor} x pipeline {pipeline} x context {args.cp} cards"
        )
    return tensor, pipeline, cards


def _bad_option(option: str, value: object, wanted: str) -> WindtunnelError:
    return WindtunnelError(
        "E305",
        f"{option} must be {wanted}, not {value}",
        hint="see windtunnel fit --help",
        values={option: value},
    )
