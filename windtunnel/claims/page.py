"""The page of all claims, as Markdown and as one offline HTML file."""

from __future__ import annotations

import importlib.resources
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import jinja2

from windtunnel.claims.claim import Claim, Says
from windtunnel.claims.verdict import Finding, Verdict, holds
from windtunnel.estimate import Estimate
from windtunnel.report.html import fill


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as the page prints it."""

    label: str
    predicted: str
    interval: str
    bound: str
    source: str
    agrees: str
    command: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One claim as the page prints it."""

    finding: Finding
    claimed: str
    predicted: str
    rows: tuple[Row, ...]
    variations: tuple[Row, ...]
    robust: str


@dataclass(frozen=True, slots=True)
class View:
    """The whole page. ``counts``: claims by verdict, in words."""

    groups: tuple[tuple[str, tuple[Entry, ...]], ...]
    counts: str


def number(value: float) -> str:
    """Three significant digits, with thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(findings: Sequence[Finding]) -> str:
    """The page as Markdown; the same findings give the same bytes."""
    source = (
        importlib.resources.files("windtunnel.claims").joinpath("templates/claims.md.j2").read_text("utf-8")
    )
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(source).render(view=_view(findings))


def html(findings: Sequence[Finding]) -> str:
    """The page as HTML, with the style that all our pages share."""
    return fill("claims.html.j2", view=_view(findings), data="")


def claimed(claim: Claim) -> str:
    """The claim's figure in words."""
    if claim.says is Says.NO_FIGURE:
        return "no figure"
    figure = f"{claim.figure:.0%}" if claim.unit == "MFU" else f"{number(claim.figure)} {claim.unit}"
    return {Says.AT_LEAST: "≥ ", Says.AT_MOST: "≤ ", Says.ABOUT: ""}[claim.says] + figure


def told(claim: Claim, prediction: Estimate) -> tuple[str, str]:
    """A prediction and its interval in the claim's unit."""
    if claim.unit == "MFU":
        return f"{prediction.value:.1%}", f"{prediction.low:.1%} – {prediction.high:.1%}"
    return number(prediction.value), f"{number(prediction.low)} – {number(prediction.high)}"


def _view(findings: Sequence[Finding]) -> View:
    groups = tuple(
        (name, tuple(_entry(finding) for finding in members))
        for name, members in groupby(findings, key=lambda finding: finding.claim.group)
    )
    counts = Counter(finding.verdict for finding in findings)
    return View(groups, ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict]))


def _entry(finding: Finding) -> Entry:
    claim, answer, best = finding.claim, finding.answer, finding.best
    rows = tuple(
        _row(claim, setting.label, setting.prediction, setting.bound, setting.command)
        for setting in answer.settings
    )
    variations = tuple(_row(claim, v.assumption, v.prediction, None, "") for v in answer.variations)
    predicted = "–"
    if best is not None:
        value, interval = told(claim, best.prediction)
        predicted = value if best.prediction.low == best.prediction.high else f"{value} ({interval})"
    kept, of = finding.robust
    robust = (
        f"holds under {kept} of {of} changed assumptions" if of else "rests on no assumption that was varied"
    )
    return Entry(finding, claimed(claim), predicted, rows, variations, robust)


def _row(claim: Claim, label: str, prediction: Estimate, bound: float | None, command: str) -> Row:
    value, interval = told(claim, prediction)
    limit = "–" if bound is None else number(bound)
    agrees = "yes" if holds(claim, prediction, bound) else "no"
    return Row(label, value, interval, limit, str(prediction.source), agrees, command)
