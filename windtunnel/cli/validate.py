"""`windtunnel validate`: predictions of measured tables, compared group by group, worst first."""

from __future__ import annotations

import argparse
import contextlib
import datetime
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from windtunnel.cli import output
from windtunnel.errors import WindtunnelError

if TYPE_CHECKING:
    from windtunnel.validation.groups import Group
    from windtunnel.validation.page import Accuracy
    from windtunnel.validation.rows_file import Answers

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """examples:
  windtunnel validate
  windtunnel validate --data measurements/validation
  windtunnel validate --data measurements/validation --only 'kernel_*' --rows rows.jsonl --json
  windtunnel validate --data measurements/validation --html accuracy.html --markdown accuracy.md"""

GROUPS_SHOWN = 40
_HEADS = ("rows", "refused", "median", "p90", "t-med", "all", "bias", "rank", "80 %", "sheet", "near")
_WIDTHS = (7, 7, 7, 7, 7, 7, 7, 6, 5, 6, 6)


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel validate`."""
    parser = subparsers.add_parser(
        "validate",
        help="predictions against public measurements",
        description="Predict every row of the measured tables in a folder and compare: kernels, collectives, "
        "training steps, peak memory. Without --data, the figures that came with this version.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of tables, known by their file names"
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="the tables that models were fitted to: reported apart, and looked up as the nearest-shape baseline",
    )
    parser.add_argument("--only", default="*", metavar="GLOB", help="only files whose name matches")
    parser.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="write every row's prediction as JSON lines, as it is made: kernels and collectives first",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the accuracy page as HTML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the accuracy page as Markdown")
    parser.add_argument("--update", action="store_true", help="make these the figures that the package ships")


def run(args: argparse.Namespace) -> int:
    """Predict, compare, print and write. Raises WindtunnelError E925, E930, E937 and E953."""
    from windtunnel.report.files import write_bytes
    from windtunnel.validation import page, shipped

    if args.data is None:
        if args.rows or args.update or args.calibration:
            raise WindtunnelError(
                "E937",
                "--rows, --update and --calibration need --data",
                hint="windtunnel validate --data DIR --rows FILE",
            )
        accuracy = shipped.shipped()
    else:
        accuracy = _validated(args)
    if args.markdown:
        write_bytes(args.markdown, page.markdown(accuracy).encode())
    if args.html:
        write_bytes(args.html, page.html(accuracy).encode())
    if args.update:
        write_bytes(shipped.path(), shipped.encode(accuracy).encode())
    if args.json:
        output.print_json(output.success("validate", _as_json(accuracy)))
    else:
        output.print_lines(_text(accuracy))
    return 0


def _validated(args: argparse.Namespace) -> Accuracy:
    from windtunnel.validation.groups import by_family, by_file, pooled
    from windtunnel.validation.left_out import left_out
    from windtunnel.validation.page import Accuracy
    from windtunnel.validation.peers import beside_peers

    answers, fitted, unused = _predicted(args)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Accuracy(
        rows=len({(part.file, row) for part in answers for row in part.row.tolist()}),
        files=tuple(by_file(answers)),
        groups=tuple(by_family(answers)),
        unused=tuple(unused),
        data=args.data.resolve().name,
        date=today,
        calibration=tuple(by_file(fitted)),
        pooled=tuple(pooled(answers)),
        calibration_pooled=tuple(pooled(fitted)),
        peers=(
            *beside_peers(args.data, answers, args.data.resolve().name),
            *(beside_peers(args.calibration, fitted, "calibration") if args.calibration else ()),
        ),
        left_out=left_out(),
    )


def _predicted(args: argparse.Namespace) -> tuple[list[Answers], list[Answers], list[tuple[str, str]]]:
    """The answers to ``--data`` and to ``--calibration``, and files of which nothing can be used.

    Rows are written as they are predicted: whoever stops the run keeps what is there.
    """
    from windtunnel.validation.folder import files_of
    from windtunnel.validation.pieces import pieces_of, predict_piece
    from windtunnel.validation.rows_file import lines
    from windtunnel.validation.workers import cores, in_order

    asked = pieces_of(files_of(args.data, args.only), args.calibration)
    beside = pieces_of(files_of(args.calibration, args.only)) if args.calibration else []
    found: tuple[list[Answers], list[Answers]] = ([], [])
    unused: list[tuple[str, str]] = []
    processes = min(cores(), sum(piece.slow for piece in (*asked, *beside)))
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(output.Progress("predicting", quiet=args.quiet))
        rows = stack.enter_context(_opened(args.rows)) if args.rows else None
        progress.update(asked[0].path.name)
        predicted = in_order(predict_piece, [*asked, *beside], processes)
        stack.callback(predicted.close)
        for number, part in enumerate(predicted):
            of_data = number < len(asked)
            found[0 if of_data else 1].extend(part.answers)
            if of_data and part.reason and not part.answers:
                unused.append((part.piece.path.name, part.reason))
            if rows is not None and of_data:
                rows.write("".join(lines(part.answers)))
                rows.flush()
            progress.update(f"{part.piece.path.name}, {number + 1} of {len(asked) + len(beside)} parts")
    for answers in found:
        answers.sort(key=lambda part: part.file)
    return *found, sorted(unused)


def _opened(path: Path) -> TextIO:
    """The rows file, empty: a path that cannot be written is said before minutes of work."""
    from windtunnel.report.files import write_bytes

    write_bytes(path, b"")
    return path.open("a", encoding="utf-8", newline="\n")


def _as_json(accuracy: Accuracy) -> dict[str, object]:
    from windtunnel.validation.groups import worst_first
    from windtunnel.validation.shipped import as_json

    return {
        "data": accuracy.data,
        "date": accuracy.date,
        "rows": accuracy.rows,
        "files": [as_json(group) for group in worst_first(accuracy.files)],
        "groups": [as_json(group) for group in worst_first(accuracy.groups)],
        "pooled": [as_json(group) for group in accuracy.pooled],
        "calibration": [as_json(group) for group in worst_first(accuracy.calibration)],
        "calibration_pooled": [as_json(group) for group in accuracy.calibration_pooled],
        "peers": [asdict(peer) for peer in accuracy.peers],
        "left_out": [asdict(fit) | {"met": fit.met} for fit in accuracy.left_out],
        "unused_files": [{"file": name, "reason": reason} for name, reason in accuracy.unused],
    }


def _text(accuracy: Accuracy) -> list[str]:
    from windtunnel.validation.groups import worst_first

    files = worst_first(accuracy.files)
    groups = worst_first(accuracy.groups)
    found = [f"{accuracy.rows:,} rows of `{accuracy.data}`, {accuracy.date}; worst first", ""]
    if accuracy.pooled:
        found += [_head("pooled over files"), *(_line(g.file, g) for g in accuracy.pooled), ""]
    found += [_head("file and column"), *(_line(f"{g.file} {g.target}", g) for g in files), ""]
    found += [_head("group"), *(_line(_name(g), g) for g in groups[:GROUPS_SHOWN])]
    if len(groups) > GROUPS_SHOWN:
        found.append(f"... and {len(groups) - GROUPS_SHOWN} better groups: --json lists all")
    found += _beside(accuracy)
    reasons = [(g.file, reason, rows) for g in files for reason, rows in g.reasons]
    if reasons or accuracy.unused:
        found += ["", "not predicted:"]
        found += [f"  {rows:7d}  {file}: {reason}" for file, reason, rows in sorted(set(reasons))]
        found += [f"      all  {name}: {reason}" for name, reason in accuracy.unused]
    return [
        *found,
        "",
        "errors are absolute; all: refusals counted as 100 %; t-med: weighted by measured time;",
        "80 %: measurements inside the 80 % interval; sheet: median error of the data sheet alone;",
        "near: median error of the nearest shape in the tables of --calibration",
    ]


def _beside(accuracy: Accuracy) -> list[str]:
    """What the fits say of the tables they were made of, and other simulators."""
    from windtunnel.validation.groups import worst_first

    found = []
    if accuracy.calibration:
        lines = [_line(g.file, g) for g in accuracy.calibration_pooled]
        lines += [_line(f"{g.file} {g.target}", g) for g in worst_first(accuracy.calibration) if g.compared]
        found += ["", _head("calibration tables"), *lines]
    if accuracy.peers:
        found += ["", f"{'other simulators, mean error or regret':64} {'rows':>7} {'ours':>7} {'theirs':>7}"]
        found += [
            f"{f'{p.table} ({p.where}), {p.what}: {p.who}':64} {p.rows:7d} {p.ours:7.1%} {p.theirs:7.1%}"
            for p in accuracy.peers
        ]
    return found


def _name(group: Group) -> str:
    words = (group.file, group.family, group.library, group.chip, group.target)
    return " ".join(word for word in words if word)


def _head(first: str) -> str:
    return f"{first:64} " + " ".join(f"{name:>{width}}" for name, width in zip(_HEADS, _WIDTHS, strict=True))


def _line(name: str, group: Group) -> str:
    shares = (group.median, group.p90, group.time_median, group.median_all)
    cells = [f"{group.seen}", f"{group.refused}", *("-" if v is None else f"{v:.1%}" for v in shares)]
    cells.append("-" if group.bias is None else f"{group.bias:+.1%}")
    cells.append("-" if group.rank is None else f"{group.rank:.3f}")
    cells += [
        "-" if v is None else f"{v:.0%}"
        for v in (group.coverage, group.baseline_median, group.nearest_median)
    ]
    return f"{name:64} " + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))
