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

SCHEMA = "windtunnel.claims/1"
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
    add("--why", action="store_true", help="every setting, changed assumption and step of the arithmetic")
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
    from windtunnel.claims.page import claimed, told

    rows = []
    for finding in findings:
        predicted, interval = "–", ""
        if finding.best is not None:
            predicted, interval = told(finding.claim, finding.best.prediction)
        kept, of = finding.robust
        rows.append(
            (
                finding.claim.name,
                claimed(finding.claim),
                predicted,
                interval,
                str(finding.verdict),
                f"{kept}/{of}" if of else "",
            )
        )
    columns = (
        TextColumn("Claim"),
        TextColumn("said", right=True),
        TextColumn("predicted", right=True),
        TextColumn("80 % interval", right=True, rank=2),
        TextColumn("verdict", shorten=Shorten.WRAP, least=9),
        TextColumn("robust", right=True, rank=1),
    )
    return render(columns, rows, width)


def _why(finding: Finding, width: int) -> list[str]:
    from windtunnel.claims.page import number, told
    from windtunnel.claims.verdict import holds

    claim, answer = finding.claim, finding.answer
    lines = ["", f"{claim.title}: {finding.verdict}", *output.wrapped(f"“{claim.wording}”", width, " ")]
    lines += output.wrapped(f"source: {claim.said}", width, " ")
    if claim.workload:
        lines += output.wrapped(f"workload: {claim.workload}", width, " ")
    if claim.assumed:
        lines += output.wrapped(f"assumed: {'; '.join(claim.assumed)}", width, " ")
    settings = [
        (
            setting.label + (" (stated)" if setting.stated else ""),
            *told(claim, setting.prediction),
            "–" if setting.bound is None else number(setting.bound),
            str(setting.prediction.source),
            "yes" if holds(claim, setting.prediction, setting.bound) else "no",
        )
        for setting in answer.settings
    ]
    if settings:
        columns = (
            TextColumn("Setting", shorten=Shorten.WRAP, least=24),
            TextColumn(claim.unit, right=True),
            TextColumn("80 % interval", right=True),
            TextColumn("bound", right=True, rank=2),
            TextColumn("rests on", rank=3),
            TextColumn("agrees"),
        )
        lines += ["", *render(columns, settings, width)]
    varied = [
        (v.assumption, *told(claim, v.prediction), "yes" if holds(claim, v.prediction) else "no")
        for v in answer.variations
    ]
    if varied:
        changed = (
            TextColumn("Changed assumption", shorten=Shorten.WRAP, least=24),
            TextColumn(claim.unit, right=True),
            TextColumn("80 % interval", right=True),
            TextColumn("agrees"),
        )
        lines += ["", *render(changed, varied, width)]
    lines += [""]
    for line in (*answer.runs, *answer.why):
        lines += output.wrapped(f"- {line}", width, " ")
    if answer.would_take:
        lines += output.wrapped(f"what it would take: {answer.would_take}", width, " ")
    commands = dict.fromkeys(
        [claim.command, *(setting.command for setting in answer.settings if setting.command)]
    )
    return [*lines, *(f"  {command}" for command in commands)]


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
                "stated": setting.stated, "command": setting.command,
            }
            for setting in answer.settings
        ],
        "variations": [
            {"assumption": v.assumption, "prediction": v.prediction.to_dict()} for v in answer.variations
        ],
        "runs": list(answer.runs),
        "why": list(answer.why),
        "would_take": answer.would_take,
    }  # fmt: skip
