"""`windtunnel claims`: the public claims about the MTT S5000, one verdict each."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import output
from windtunnel.report.text_table import Shorten, TextColumn, render

if TYPE_CHECKING:
    from windtunnel.claims.verdict import Finding

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

SCHEMA = "windtunnel.claims/2"
EXAMPLES = """examples:
  windtunnel claims
  windtunnel claims deepseek-prefill --why
  windtunnel claims --html claims.html --markdown claims.md
  windtunnel claims robobrain --rerun"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel claims`."""
    parser = subparsers.add_parser(
        "claims",
        help="public claims about the MTT S5000, checked one by one",
        usage="windtunnel claims [NAME ...] [options]",
        description="Predict what each public claim about the MTT S5000 says, with an interval and a bound, and "
        "judge it by rules. Evidence that takes long is kept with its command; --rerun makes it again.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="claims to check; default: all")
    add("--why", action="store_true", help="every setting, assumption, region and step of the arithmetic")
    add("--rerun", action="store_true", help="make the kept evidence of these claims again; takes long")
    add("--markdown", type=Path, metavar="FILE", help="write the page as Markdown")
    add("--html", type=Path, metavar="FILE", help="write the page as HTML")


def run(args: argparse.Namespace) -> int:
    """Check and print; 0 whatever the verdicts, since the question was what they are.

    Raises:
        WindtunnelError: E801, no such claim; E809, evidence that was changed; E925, a page that cannot be written.
    """
    from windtunnel.claims import catalogue, page, rerun
    from windtunnel.report.files import write_bytes

    claims = catalogue.named(args.names)
    if args.rerun:
        with output.Progress("evidence", quiet=args.quiet) as progress:
            rerun.rerun([claim.name for claim in claims], progress.update)
    with output.Progress("checking", quiet=args.quiet or args.json) as progress:
        findings = catalogue.check(claims, progress.update)
    for path, write in ((args.markdown, page.markdown), (args.html, page.html)):
        if path is not None:
            write_bytes(path, write(findings).encode())
    if args.json:
        output.print_json(
            {"schema": SCHEMA, "status": "ok", "claims": [_as_json(finding) for finding in findings]}
        )
    else:
        output.print_lines(_table(findings, output.width()))
        if args.why or len(findings) == 1:
            for finding in findings:
                output.print_lines(_why(finding, output.width()))
    return 0


def _table(findings: Sequence[Finding], width: int) -> list[str]:
    from windtunnel.claims.page import claimed, is_reading, told

    rows = []
    for finding in findings:
        predicted, interval = "–", ""
        readings = [setting for setting in finding.answer.settings if is_reading(setting)]
        measured = told(finding.claim, readings[0].prediction)[0] if readings else ""
        if finding.best is not None:
            predicted, interval = told(finding.claim, finding.best.prediction)
        kept, of = finding.robust
        rows.append(
            (
                finding.claim.name,
                claimed(finding.claim),
                measured,
                predicted,
                interval,
                str(finding.verdict),
                f"{kept}/{of}" if of else "",
            )
        )
    columns = (
        TextColumn("Claim"),
        TextColumn("said", right=True),
        TextColumn("measured", right=True, rank=1),
        TextColumn("predicted", right=True),
        TextColumn("80 % interval", right=True, rank=2),
        TextColumn("verdict", shorten=Shorten.WRAP, least=9),
        TextColumn("robust", right=True, rank=1),
    )
    return render(columns, rows, width)


def _why(finding: Finding, width: int) -> list[str]:
    claim, answer = finding.claim, finding.answer
    lines = ["", f"{claim.title}: {finding.verdict}", *output.wrapped(f"“{claim.wording}”", width, " ")]
    lines += output.wrapped(f"source: {claim.said}", width, " ")
    if claim.workload:
        lines += output.wrapped(f"workload: {claim.workload}", width, " ")
    if claim.assumed:
        lines += output.wrapped(f"assumed: {'; '.join(claim.assumed)}", width, " ")
    lines += _settings(finding, width)
    lines += [""]
    for line in (*answer.runs, *answer.why):
        lines += output.wrapped(f"- {line}", width, " ")
    lines += _sensitivity(finding, width)
    lines += _regions(finding, width)
    if answer.would_take:
        lines += output.wrapped(f"in words: {answer.would_take}", width, " ")
    commands = dict.fromkeys(
        [claim.command, *(setting.command for setting in answer.settings if setting.command)]
    )
    return [*lines, *(f"  {command}" for command in commands)]


def _settings(finding: Finding, width: int) -> list[str]:
    from windtunnel.claims.page import number, told
    from windtunnel.claims.verdict import holds

    claim = finding.claim
    rows = [
        (
            setting.label + (" (stated)" if setting.stated else ""),
            *told(claim, setting.prediction),
            "–" if setting.bound is None else number(setting.bound),
            str(setting.prediction.source),
            "its own" if setting.claimant else "yes" if holds(claim, setting) else "no",
        )
        for setting in finding.answer.settings
    ]
    columns = (
        TextColumn("Setting", shorten=Shorten.WRAP, least=24),
        TextColumn(claim.unit, right=True),
        TextColumn("80 % interval", right=True),
        TextColumn("bound", right=True, rank=2),
        TextColumn("rests on", rank=3),
        TextColumn("agrees"),
    )
    return ["", *render(columns, rows, width)] if rows else []


def _sensitivity(finding: Finding, width: int) -> list[str]:
    from windtunnel.claims.page import told

    claim, answer = finding.claim, finding.answer
    rows = [
        (
            one.of,
            one.becomes,
            *((one.outcome, "") if one.prediction is None else told(claim, one.prediction)),
            str(verdict),
        )
        for one, verdict in zip(answer.variations, finding.varied)
    ]
    columns = (
        TextColumn("Assumption", shorten=Shorten.WRAP, least=16),
        TextColumn("changed to", shorten=Shorten.WRAP, least=16),
        TextColumn("then", shorten=Shorten.WRAP, least=8),
        TextColumn("80 % interval", right=True, rank=1),
        TextColumn("verdict", shorten=Shorten.WRAP, least=9),
    )
    lines = ["", *render(columns, rows, width)] if rows else [""]
    for one in answer.steady:
        lines += output.wrapped(f"cannot turn the verdict: {one.of}: {one.why}", width, " ")
    return lines


def _regions(finding: Finding, width: int) -> list[str]:
    from windtunnel.claims.page import shown, turned

    claim, answer = finding.claim, finding.answer
    lines: list[str] = []
    for region in answer.regions:
        view = shown(claim, region)
        mark = {"yes": " ✓", "near": "", "no": "", "dim": ""}
        rows = [(name, *(text + mark[kind] for text, kind in cells)) for name, cells in view.rows]
        columns = (
            TextColumn("", shorten=Shorten.WRAP, least=12),
            *(TextColumn(name, right=True, shorten=Shorten.WRAP, least=6) for name in view.columns),
        )
        lines += [
            "",
            *output.wrapped(f"{view.title}; columns: {view.across}", width),
            *render(columns, rows, width),
        ]
        lines += output.wrapped(f"✓ reached, ~ inside the interval: {view.summary}", width, " ")
    turns = [turned(claim, turn) for turn in answer.turns]
    if turns:
        columns = (
            TextColumn("What would have to be true", shorten=Shorten.WRAP, least=24),
            TextColumn("taken", right=True),
            TextColumn("outcome turns", shorten=Shorten.WRAP, least=20),
        )
        lines += ["", *render(columns, turns, width)]
    return lines


def _as_json(finding: Finding) -> dict[str, object]:
    claim, answer = finding.claim, finding.answer
    return {
        "name": claim.name,
        "title": claim.title,
        "wording": claim.wording,
        "source": claim.said,
        "says": str(claim.says),
        "figure": claim.figure,
        "unit": claim.unit,
        "verdict": str(finding.verdict),
        "workload": claim.workload,
        "assumed": list(claim.assumed),
        "command": claim.command,
        "settings": [
            {
                "label": setting.label, "prediction": setting.prediction.to_dict(), "bound": setting.bound,
                "stated": setting.stated, "claimant": setting.claimant, "command": setting.command,
            }
            for setting in answer.settings
        ],
        "variations": [
            {
                "assumption": one.of, "becomes": one.becomes, "verdict": str(verdict), "outcome": one.outcome,
                "prediction": None if one.prediction is None else one.prediction.to_dict(),
            }
            for one, verdict in zip(answer.variations, finding.varied)
        ],
        "steady": [{"assumption": one.of, "why": one.why} for one in answer.steady],
        "regions": [
            {
                "title": region.title, "across": region.across, "columns": list(region.columns),
                "rows": [
                    {"label": name, "predictions": [None if one is None else one.to_dict() for one in row]}
                    for name, row in region.rows
                ],
            }
            for region in answer.regions
        ],
        "turns": [
            {
                "quantity": turn.quantity, "unit": turn.unit, "now": turn.now, "needed": turn.needed,
                "searched_to": turn.end, "reached": turn.reached,
            }
            for turn in answer.turns
        ],
        "runs": list(answer.runs),
        "why": list(answer.why),
        "would_take": answer.would_take,
    }  # fmt: skip
