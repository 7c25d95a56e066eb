"""`windtunnel run`: record a script on a virtual card, or take a recording, and price it on chips."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import launchers, long_run, run_answer, run_cluster
from windtunnel.cli.parser import Parser, add_chip_options, add_global_options
from windtunnel.cli.script_output import script_output
from windtunnel.errors import WindtunnelError
from windtunnel.program import file as program_file
from windtunnel.program import world_files
from windtunnel.program.program import Program
from windtunnel.specs.table import did_you_mean
from windtunnel.specs.targets import parse_target

if TYPE_CHECKING:
    from windtunnel.capture.launch import Ending, Target
    from windtunnel.capture.session import Session
    from windtunnel.specs.schema import Chip

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SUFFIX = ".wt"
DEFAULT_CHIP = "mtt-s5000"
EXAMPLES = """examples:
  windtunnel run train.py --batch-size 8
  windtunnel run --on mtt-s5000,h100-sxm,h20 --steps 2 train.py
  windtunnel run --on mtt-s5000 -m package.train --config small.yaml
  windtunnel run --on mtt-s5000:8 torchrun --nproc-per-node 8 train.py
  windtunnel run --on h100-sxm train.wt"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel run`. They stand before the script; everything after it is the script's."""
    parser = subparsers.add_parser(
        "run",
        help="run your script on a virtual card and say how long a step takes",
        usage="windtunnel run [options] (SCRIPT | -m MODULE | FILE.wt) ...",
        description="Run an unmodified PyTorch script on a virtual card, and say whether it fits, how long a "
        "step takes and where the time goes. A saved recording (FILE.wt) is priced again, without PyTorch.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser)
    add = parser.add_argument
    add(
        "-m",
        dest="module",
        nargs=argparse.REMAINDER,
        metavar="MODULE",
        help="run a module, as python -m does",
    )
    add("target", nargs=argparse.REMAINDER, metavar="SCRIPT", help="the script, and its own arguments")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--on",
        default="",
        metavar="CHIP[:CARDS],...",
        help=f"chips or clusters; several are compared (default: {DEFAULT_CHIP}, or the recording's)",
    )
    add("--steps", type=int, metavar="N", help="stop the script after N complete steps")
    add("--values", action="store_true", help="compute with real data, as the chip does (small models)")
    add("--strict", action="store_true", help="refuse where a run would pretend or go without a price")
    add("--virtual-clock", action="store_true", help="the script's own clock is the chip's")
    add("--routing", default="balanced", metavar="HOW", help="expert choices: balanced, uniform or power:A")
    add("--oom", choices=("raise", "continue"), default="raise", help="what happens when memory is full")
    run_cluster.add_options(parser)
    long_run.add_options(parser)
    add("--out", type=Path, metavar="FILE.wt", help="where to save the recording (default: SCRIPT.wt)")
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Record if needed, price, print; the exit status.

    Raises:
        WindtunnelError: E402, E43x, bad input; E101 to E109 and E220, the target; E9xx, the recording.
    """
    line = launchers.unwrapped(_words(args), is_module=args.module is not None)
    words = list(line.words)
    args.module = words if line.is_module else None
    recorded_already = args.module is None and _is_recording(words[0])
    if recorded_already:  # no script follows that the rest of the line could belong to
        words = [words[0], *_options_after(words[1:], args)]
    program = _load(words, args) if recorded_already else None
    named = args.on or (program.origin.chip if program is not None else "") or DEFAULT_CHIP
    clusters = parse_target(named, args.set, args.chips)
    if program is not None and program.origin.world_size > 1:
        programs = world_files.with_others(program, words[0])
        return run_cluster.answer(args, programs, clusters, saved=words[0])
    if program is not None:
        return run_answer.answer(args, program, clusters, saved=words[0])
    _check(args, words)
    if not args.scale:
        launchers.check_size(line, clusters[0].cards, named)
    if run_cluster.is_asked(args, clusters):
        make_session = functools.partial(_session, args, clusters[0].chip)
        out = str(args.out or _default_path(words[0], is_module=args.module is not None))
        return run_cluster.record_and_answer(args, _target(args, words), make_session, clusters, out)
    ending, recorded = _record(args, words, clusters[0].chip)
    saved = ""
    if recorded.num_ops:
        saved = str(args.out or _default_path(words[0], is_module=args.module is not None))
        program_file.save(recorded, saved)
    return run_answer.answer(args, recorded, clusters, saved=saved, ending=ending)


def _options_after(words: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Read options that stand behind a recording into ``args``; what is left is none of ours."""
    parser = Parser(prog="windtunnel run", add_help=False)
    _add_options(parser)
    add_global_options(parser, top=False)
    for action in parser._actions:  # what is not said here was said before the recording, or not at all
        action.default = argparse.SUPPRESS
    found, rest = parser.parse_known_args(list(words))
    for name, value in vars(found).items():
        setattr(args, name, value)
    return rest


def _words(args: argparse.Namespace) -> list[str]:
    """The script or module, then its arguments."""
    given = args.module if args.module is not None else args.target
    words = list(given[1:] if given[:1] == ["--"] else given)
    if not words:
        raise WindtunnelError(
            "E430",
            "nothing to run: no script, module or recording is named",
            hint=f"windtunnel run --on {DEFAULT_CHIP} train.py",
        )
    return words


def _is_recording(name: str) -> bool:
    if name.endswith(SUFFIX):
        return True
    try:
        with open(name, "rb") as file:
            return file.read(len(program_file.MAGIC)) == program_file.MAGIC
    except OSError:
        return False


def _load(words: Sequence[str], args: argparse.Namespace) -> Program:
    given = {
        "--steps": args.steps is not None,
        "--values": args.values,
        "--virtual-clock": args.virtual_clock,
        "--out": args.out is not None,
    }
    useless = [name for name, is_given in given.items() if is_given] + list(words[1:])
    if useless:
        raise WindtunnelError(
            "E433",
            f"`{words[0]}` is recorded already: `{' '.join(useless)}` has no use",
            hint=f"windtunnel run --on CHIP {words[0]}, or record the script anew",
        )
    return program_file.load(words[0])


def _check(args: argparse.Namespace, words: Sequence[str]) -> None:
    """What would go wrong later is said before PyTorch is loaded."""
    if args.steps is not None and args.steps < 1:
        raise WindtunnelError(
            "E432", f"--steps {args.steps} records nothing", hint="record one step or more: --steps 1"
        )
    if args.module is None:
        _check_script(Path(words[0]))
    if args.out is not None and not args.out.parent.is_dir():
        raise WindtunnelError(
            "E435",
            f"the recording cannot be saved: there is no folder `{args.out.parent}`",
            hint="name a folder that exists: --out train.wt",
        )
    if find_spec("torch") is None:
        raise WindtunnelError(
            "E434",
            "recording a script needs PyTorch, which is not installed",
            hint="pip install 'windtunnel[torch]'",
        )


def _check_script(path: Path) -> None:
    if path.is_file():
        return
    if path.is_dir():
        what, hint = f"`{path}` is a folder", f"name the script in it, as {path / 'train.py'}"
    else:
        beside = [str(p) for p in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        what = f"there is no script `{path}`"
        hint = f"{did_you_mean(str(path), beside)}give the path of a Python file, or -m MODULE"
    raise WindtunnelError("E431", what, hint=hint, values={"path": path})


def _record(args: argparse.Namespace, words: Sequence[str], chip: Chip) -> tuple[Ending, Program]:
    from windtunnel.capture.launch import launch

    with script_output(to_stderr=args.json):
        return launch(_session(args, chip), _target(args, words), virtual_clock=args.virtual_clock)


def _target(args: argparse.Namespace, words: Sequence[str]) -> Target:
    from windtunnel.capture.launch import Target

    return Target(words[0], tuple(words[1:]), is_module=args.module is not None)


def _session(args: argparse.Namespace, chip: Chip) -> Session:
    from windtunnel.capture.handlers.drawing import parse_routing
    from windtunnel.capture.session import Session

    parse_routing(args.routing)
    return Session(
        chip,
        "values" if args.values else "shadow",
        stop_after=args.steps,
        routing=args.routing,
        strict=args.strict,
        oom_continue=args.oom == "continue",
    )


def _default_path(name: str, *, is_module: bool) -> Path:
    """Beside where the command runs: ``folder/train.py`` and ``package.train`` both give ``train.wt``."""
    stem = name.rpartition(".")[2] if is_module else Path(name).stem
    return Path(stem + SUFFIX)
