"""`windtunnel report FILE [FILE2]`: a program or saved result as page, trace or table; two compared."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel import api
from windtunnel.cli import long_run, output
from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.program import world_files
from windtunnel.program.program import Origin, Program
from windtunnel.report import chrome, comparison, csv, difference, html, perfetto, threshold
from windtunnel.report.terminal import summary
from windtunnel.report.threshold import Threshold
from windtunnel.results import file, json_result
from windtunnel.results.run_result import NearestMeasured, RunResult
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import for_world, parse_target

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_CHIP = "mtt-s5000"
BESIDE = "\0beside"  # an option given without a path: the file goes beside the first input
EXAMPLES = """examples:
  windtunnel report train.wt
  windtunnel report train.wt --on mtt-s5000,h100-sxm --html compared.html
  windtunnel report train.wt --perfetto --csv ops
  windtunnel report before.wt after.wt --fail-if 'step_time>3%'"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel report`."""
    parser = subparsers.add_parser(
        "report",
        help="a saved result as page, trace or table",
        description="Render a recorded program (.wt) or a saved result (.wtr). Two files are compared.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="one file, or before and after")
    parser.add_argument("--on", metavar="CHIP[,CHIP…]", help="price on these (default: the recording's chip)")
    for name, what in (
        ("html", "the page (default when nothing else is asked for)"),
        ("perfetto", "a trace for ui.perfetto.dev"),
        ("chrome", "a trace as JSON events"),
        ("save", "the result, to be rendered or compared later"),
    ):
        parser.add_argument(f"--{name}", nargs="?", const=BESIDE, metavar="PATH", help=what)
    parser.add_argument(
        "--csv", action="append", default=[], choices=sorted(csv.TABLES), help="a table; may repeat"
    )
    parser.add_argument(
        "--fail-if", metavar="LIMIT", action="append", default=[],
        help="exit 1 when the second of two results is past this, as 'step_time>3%%'",
    )  # fmt: skip
    long_run.add_options(parser)
    parser.add_argument("--open", choices=("yes", "no"), default="no", help="show the page in a browser")


def run(args: argparse.Namespace) -> int:
    """Render. Exit status 1 when a --fail-if limit is passed.

    Raises:
        WindtunnelError: E9xx for files that cannot be read or written, E926 and E928 for limits and file
            counts, and what pricing raises.
    """
    limits = [threshold.parse(text) for text in args.fail_if]
    results = _results(args)
    names = _names(args.files, results)
    if limits and len(results) != 2:
        raise WindtunnelError(
            "E926",
            f"--fail-if compares two results; there are {len(results)}",
            hint="give two files, or one file with --on CHIP,CHIP",
        )
    written = _write_all(args, results, names)
    broken = [limit for limit in limits if limit.failed(*results)]
    if args.json:
        output.print_json(_json(results, written, broken))
    else:
        if len(results) > 1:
            output.print_lines(_compared(results, names))
        output.print_lines(f"wrote {path} ({_size(path)}{note})" for path, note in written)
        for limit in broken:
            output.say(_past(limit, results).render())
    if args.open == "yes" and written and written[0][0].suffix == ".html":
        _open(written[0][0])
    return 1 if broken else 0


def _results(args: argparse.Namespace) -> list[RunResult]:
    paths: list[Path] = args.files
    if len(paths) > 2:
        raise WindtunnelError(
            "E928",
            f"a report takes one file or two, not {len(paths)}",
            hint="to compare chips, give one file and --on CHIP,CHIP",
        )
    results = [result for path in paths for result in _of_file(path, args)]
    if len(paths) == 2 and len(results) != 2:
        raise WindtunnelError(
            "E928",
            f"two files with one result each can be compared; these hold {len(results)}",
            hint="name one chip with --on, or give one file with several",
        )
    return results


def _of_file(path: Path, args: argparse.Namespace) -> list[RunResult]:
    """The results of one file: as saved, or priced now."""
    if file.is_result_file(path):
        if args.on is not None:
            raise WindtunnelError(
                "E928",
                f"`{path}` is a saved result: it cannot be priced again on `{args.on}`",
                hint="give the program file (.wt) with --on, or leave --on out",
            )
        return list(file.load(path))
    programs = world_files.load(path)
    origin = programs[0].origin
    results = []
    for named in parse_target(args.on or origin.chip or DEFAULT_CHIP):
        cluster = for_world(named, origin.world_size) if origin.world_size > 1 else named
        result = long_run.added(args, api.predict(programs, on=cluster), cluster.chip)
        nearest = _nearest_measured(programs[0], cluster)
        results.append(replace(result, command=_command(origin, result), nearest_measured=nearest))
    return results


def _nearest_measured(program: Program, cluster: Cluster) -> tuple[NearestMeasured, ...]:
    """Public measurements near the kernels that matter, among those that ship with the package."""
    from windtunnel.network.model import NetworkModel
    from windtunnel.validation.explain.beside import beside
    from windtunnel.validation.explain.points import shipped_points

    return beside(program, cluster.chip, shipped_points(), NetworkModel(cluster).estimate)


def _command(origin: Origin, result: RunResult) -> str:
    """The command that recorded the program, for what it is priced on now."""
    on = result.chip if result.cards == 1 else f"{result.chip}:{result.cards}"
    return shlex.join(["windtunnel", "run", "--on", on, origin.script, *origin.argv])


def _names(paths: Sequence[Path], results: Sequence[RunResult]) -> list[str]:
    """What tells the results apart: their files, or the chips of one file."""
    stems = [path.stem for path in paths]
    if len(stems) == len(results) == 2:
        return stems if stems[0] != stems[1] else ["before", "after"]
    return comparison.names(results)


def _write_all(
    args: argparse.Namespace, results: Sequence[RunResult], names: Sequence[str]
) -> list[tuple[Path, str]]:
    """Every file asked for, with what to say about it; the page when none was."""
    stem = "-".join(dict.fromkeys(path.stem for path in args.files))
    beside = args.files[0].parent / stem
    others = args.perfetto or args.chrome or args.csv or args.save or args.json
    page = args.html or (None if others else BESIDE)
    written: list[tuple[Path, str]] = []

    def one(asked: str | None, suffix: str, write: Callable[[Path], None], note: str = "") -> None:
        if asked is not None:
            path = beside.with_name(beside.name + suffix) if asked == BESIDE else Path(asked)
            write(path)
            written.append((path, note))

    one(page, ".html", lambda path: html.write(results, path, names), ", opens offline")
    one(args.perfetto, ".pftrace", lambda path: perfetto.write(results, path), ", open in ui.perfetto.dev")
    one(args.chrome, ".trace.json", lambda path: chrome.write(results, path))
    one(args.save, ".wtr", lambda path: file.save(results, path))
    for kind in args.csv:
        for result in results:
            name = f"-{result.chip}" if len(results) > 1 else ""
            path = beside.with_name(f"{beside.name}{name}-{kind}.csv")
            csv.write(result, kind, path)
            written.append((path, ""))
    return written


def _compared(results: Sequence[RunResult], names: Sequence[str]) -> list[str]:
    lines = summary(results, output.width(), output.styled(), names=names).splitlines()
    if len(results) == 2:
        lines += ["", *difference.table(results[0], results[1], output.width(), names)]
    return [*lines, ""]


def _json(
    results: Sequence[RunResult], written: Sequence[tuple[Path, str]], broken: Sequence[Threshold]
) -> dict[str, object]:
    answer = json_result.answer(results)
    status = {"schema": output.schema("report"), "status": "no" if broken else answer["status"]}
    failure = {"error": _past(broken[0], results).to_dict()} if broken else {}
    return {**answer, **status, **failure, "written": [str(path) for path, _ in written]}


def _past(limit: Threshold, results: Sequence[RunResult]) -> AnswerIsNo:
    change = limit.change(*results)
    values = {} if change is None else {"change": f"{100 * change:+.2f} %"}
    what = f"{limit.figure} is past the limit `{limit.text}`"
    if change is None:
        what = f"{limit.figure} cannot be compared: a result lacks it"
    return AnswerIsNo("E927", what, hint="the largest changes are in the table above", values=values)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _open(path: Path) -> None:
    import webbrowser

    webbrowser.open(path.resolve().as_uri())
