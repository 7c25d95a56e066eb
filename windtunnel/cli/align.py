"""`windtunnel align`: does a model train on one chip and precision as on another?"""

from __future__ import annotations

import argparse
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.report import align_page, align_text
from windtunnel.results import align_file
from windtunnel.results.align_result import AlignResult
from windtunnel.specs.catalogue import chip
from windtunnel.specs.table import did_you_mean

if TYPE_CHECKING:
    from windtunnel.align.campaign import Campaign
    from windtunnel.align.job import Numbers

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

WORKLOADS = {
    "digits-vqa": "windtunnel.workloads.digits_vqa.train",
    "wide-digits": "windtunnel.workloads.wide_digits",
}
"""Built-in scripts by name. The first is taken where none is named."""
MIN_REPLICAS = 3
EXAMPLES = """examples:
  windtunnel align --steps 60 digits-vqa
  windtunnel align --reference h100-sxm:bf16 --candidate mtt-s5000:fp8 train.py
  windtunnel align --reference h100-sxm:fp8 --candidate mtt-s5000:fp8 train.py --batch-size 8
  windtunnel align --steps 200 --evaluate score_items -m package.train

precisions: as-written, fp32, tf32, bf16, fp16, fp8 (the chip's own recipe), fp8-tensorwise, fp8-rowwise,
fp8-blockwise, fp8-s5000-blockwise

The script runs unmodified, several times. If it defines evaluate_items(model), which returns one true or false
an item, the trained models are compared item by item."""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel align`. They stand before the script; everything after it is the script's."""
    parser = subparsers.add_parser(
        "align",
        help="whether two runs agree numerically, and where they part",
        usage="windtunnel align [options] (SCRIPT | -m MODULE | WORKLOAD) ...",
        description="Train a script's model in the arithmetic of two chips and say whether it trains alike: "
        "locked steps tensor by tensor, free runs against the noise of rounding, gradient norms, evaluation. "
        "Three defects are injected; unless all are caught there is no report.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--reference", default="h100-sxm:bf16", metavar="CHIP:PRECISION", help="default: %(default)s")
    add("--candidate", default="mtt-s5000:fp8", metavar="CHIP:PRECISION", help="default: %(default)s")
    add("--steps", type=int, metavar="N", help="stop the script after N steps (default: when it ends)")
    add("--replicas", type=int, default=MIN_REPLICAS, metavar="N", help="of the reference (default: 3)")
    add(
        "--tolerance", type=float, default=0.005, metavar="X", help="accepted loss deviation (default: 0.005)"
    )
    add("--evaluate", default="evaluate_items", metavar="NAME", help="the script's evaluation function")
    add("--ideal", action="store_true", help="ideal FP32 sums on both sides: faster, says nothing of chips")
    add("--seed", type=int, default=0, metavar="N", help="of what the script does not seed (default: 0)")
    add("--threads", type=int, default=1, metavar="N", help="of one run (default: 1)")
    add("--parallel", type=int, default=1, metavar="N", help="runs at the same time (default: 1)")
    add("--out", type=Path, metavar="DIR", help="where runs and report are kept (default: SCRIPT.align)")
    add("--fresh", action="store_true", help="run everything again")
    add_chip_options(parser)
    add("-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module")
    add("target", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the script, and its own arguments")


def run(args: argparse.Namespace) -> int:
    """Compare, save, print; 0 where the model trains alike, 1 where it does not.

    Raises:
        WindtunnelError: E101 to E109 chips, E43x the script, E701 and E702 arithmetic, E71x and E72x what
            stands in the way of a comparison.
    """
    campaign = _campaign(args)
    from windtunnel.align.campaign import carry_out  # PyTorch takes seconds to import
    from windtunnel.align.conclude import conclude

    with output.Progress("aligning", quiet=args.quiet) as progress:
        try:
            runs = carry_out(campaign, progress.update)
        except KeyboardInterrupt:
            output.say(f"finished runs are kept in {campaign.folder}; the same command goes on from there")
            raise
        progress.update("judging")
        result = conclude(campaign, runs, _command(args, campaign))
    align_file.save(result, campaign.folder / "align.json")
    align_page.write(result, campaign.folder / "align.html")
    _show(args, result)
    total = len(runs.replicas) + 3
    reused = f" ({runs.reused} of {total} runs were there already)" if runs.reused else ""
    output.say(
        f"saved {campaign.folder / 'align.json'} and {campaign.folder / 'align.html'}{reused}",
        quiet=args.quiet,
    )
    return 0 if result.aligned else 1


def _show(args: argparse.Namespace, result: AlignResult) -> None:
    if args.json:
        output.print_json(align_file.to_json(result))
    else:
        output.print_lines(align_text.summary(result, output.width()))


def _campaign(args: argparse.Namespace) -> Campaign:
    script, argv, is_module, name = _target(args)
    _check(args)
    if find_spec("torch") is None:
        raise WindtunnelError(
            "E434",
            "aligning a script needs PyTorch, which is not installed",
            hint="pip install 'windtunnel[torch]'",
        )
    from windtunnel.align.campaign import Campaign

    return Campaign(
        script=script,
        argv=argv,
        is_module=is_module,
        reference=_numbers(args, "reference"),
        candidate=_numbers(args, "candidate"),
        folder=args.out or Path(f"{name}.align"),
        steps=args.steps or 0,
        replicas=args.replicas,
        seed=args.seed,
        threads=args.threads,
        tolerance=args.tolerance,
        evaluate=args.evaluate,
        parallel=args.parallel,
        fresh=args.fresh,
    )


def _target(args: argparse.Namespace) -> tuple[str, tuple[str, ...], bool, str]:
    """Script or module, its arguments, whether it is a module, and a name for the folder."""
    given = args.module if args.module is not None else args.target
    words = list(given[1:] if given[:1] == ["--"] else given)
    if args.module is not None and words:
        return words[0], tuple(words[1:]), True, words[0].rpartition(".")[2]
    if not words:
        words = [next(iter(WORKLOADS))]
        output.say(f"no script is named: taking the built-in workload {words[0]}", quiet=args.quiet)
    path = Path(words[0])
    if words[0] in WORKLOADS and not path.exists():
        return WORKLOADS[words[0]], tuple(words[1:]), True, words[0]
    if not path.is_file():
        beside = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        near = did_you_mean(words[0], [*beside, *WORKLOADS])
        raise WindtunnelError(
            "E431",
            f"there is no script `{words[0]}`",
            hint=f"{near}give the path of a Python file, -m MODULE, or a workload: {', '.join(WORKLOADS)}",
            values={"path": words[0]},
        )
    return words[0], tuple(words[1:]), False, path.stem


def _check(args: argparse.Namespace) -> None:
    if args.steps is not None and args.steps < 1:
        raise WindtunnelError(
            "E432", f"--steps {args.steps} trains nothing", hint="take one step or more: --steps 60"
        )
    if args.replicas < MIN_REPLICAS:
        raise WindtunnelError(
            "E714",
            f"a noise floor needs at least {MIN_REPLICAS} replicas",
            hint=f"--replicas {MIN_REPLICAS}",
            values={"replicas": args.replicas},
        )
    if not args.tolerance >= 0:
        raise WindtunnelError("E991", "--tolerance is a fraction, as 0.005", hint="--tolerance 0.005")
    for name in ("threads", "parallel"):
        if getattr(args, name) < 1:
            raise WindtunnelError(
                "E991", f"--{name} {getattr(args, name)} is less than one", hint=f"--{name} 1"
            )


def _numbers(args: argparse.Namespace, side: str) -> Numbers:
    """``mtt-s5000:fp8`` as a chip and a precision that it has."""
    from windtunnel.align.job import Numbers
    from windtunnel.capture.precision import Precision, check

    name, _, precision = str(getattr(args, side)).partition(":")
    card = chip(name, args.set, args.chips)
    known = [str(one) for one in Precision]
    wanted = precision or str(Precision.AS_WRITTEN)
    if wanted not in known:
        raise WindtunnelError(
            "E725",
            f"`{wanted}` is not a precision",
            hint=f"{did_you_mean(wanted, known)}one of: {', '.join(known)}",
            values={side: getattr(args, side)},
        )
    check(card, Precision(wanted))
    folders = tuple(str(folder) for folder in args.chips)
    return Numbers(card.name, wanted, args.ideal, tuple(args.set), folders)


def _command(args: argparse.Namespace, campaign: Campaign) -> str:
    """The line that gives the same result again, whatever order it was typed in."""
    words = ["windtunnel", "align", "--reference", args.reference, "--candidate", args.candidate]
    for name in ("steps", "replicas", "tolerance", "evaluate", "seed", "threads"):
        value = getattr(args, name)
        if value is not None and value != _DEFAULTS.get(name):
            words += [f"--{name}", str(value)]
    words += ["--ideal"] * args.ideal
    for name in ("set", "chips"):
        for value in getattr(args, name):
            words += [f"--{name}", str(value)]
    named = {module: workload for workload, module in WORKLOADS.items()}
    if campaign.script in named:
        words.append(named[campaign.script])
    else:
        words += ["-m", campaign.script] if campaign.is_module else [campaign.script]
    return shlex.join([*words, *campaign.argv])


_DEFAULTS = {
    "replicas": MIN_REPLICAS,
    "tolerance": 0.005,
    "evaluate": "evaluate_items",
    "seed": 0,
    "threads": 1,
}
