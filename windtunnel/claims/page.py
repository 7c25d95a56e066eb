"""The page of all claims, as Markdown and as one offline HTML file."""

from __future__ import annotations

import importlib.resources
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import jinja2

from windtunnel.claims.claim import Claim, Says, Setting, Variation
from windtunnel.claims.region import Region, Turn
from windtunnel.claims.verdict import MEANING, Finding, Verdict, agrees, holds, reaches
from windtunnel.estimate import Estimate, Source
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


@dataclass(frozen=True, slots=True)
class Change:
    """One variation as the page prints it."""

    of: str
    becomes: str
    predicted: str
    interval: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Table:
    """One region as the page prints it. ``cells``: text and its class (``yes``, ``near`` or ``no``)."""

    title: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One claim as the page prints it."""

    finding: Finding
    claimed: str
    measured: str
    predicted: str
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    tables: tuple[Table, ...]
    turns: tuple[tuple[str, str, str], ...]
    robust: str
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class View:
    """The whole page. ``counts``: claims by verdict, in words."""

    groups: tuple[tuple[str, tuple[Entry, ...]], ...]
    counts: str
    meaning: tuple[tuple[Verdict, str], ...] = MEANING


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
    predicted, measured = "–", "–"
    if best is not None:
        value, interval = told(claim, best.prediction)
        predicted = value if best.prediction.low == best.prediction.high else f"{value} ({interval})"
    readings = [setting for setting in answer.settings if is_reading(setting)]
    if readings:
        measured = told(claim, readings[0].prediction)[0]
    kept, of = finding.robust
    commands = dict.fromkeys([claim.command, *(setting.command for setting in answer.settings)])
    return Entry(
        finding,
        claimed(claim),
        measured,
        predicted,
        tuple(_row(claim, setting) for setting in answer.settings),
        tuple(_change(claim, one, verdict) for one, verdict in zip(answer.variations, finding.varied)),
        tuple(shown(claim, region) for region in answer.regions),
        tuple(turned(claim, turn) for turn in answer.turns),
        f"{kept} of {of} changes leave the verdict as it is" if of else "",
        tuple(command for command in commands if command),
    )


def is_reading(setting: Setting) -> bool:
    """Whether a setting is what somebody measured, as it stands."""
    prediction = setting.prediction
    return prediction.source is Source.MEASURED and prediction.low == prediction.high


def _row(claim: Claim, setting: Setting) -> Row:
    value, interval = told(claim, setting.prediction)
    limit = "–" if setting.bound is None else number(setting.bound)
    agrees = "its own" if setting.claimant else "yes" if holds(claim, setting) else "no"
    return Row(setting.label, value, interval, limit, str(setting.prediction.source), agrees)


def _change(claim: Claim, one: Variation, verdict: Verdict) -> Change:
    if one.prediction is None:
        return Change(one.of, one.becomes, one.outcome, "", str(verdict))
    return Change(one.of, one.becomes, *told(claim, one.prediction), str(verdict))


def shown(claim: Claim, region: Region) -> Table:
    """A region with each cell marked: bold where the prediction reaches the figure, ~ where its interval does."""

    def cell(found: Estimate | None) -> tuple[str, str]:
        if found is None:
            return "–", "dim"
        value = told(claim, found)[0]
        if not agrees(claim, found):
            return value, "no"
        return (value, "yes") if reaches(claim, found.value) else (f"{value} ~", "near")

    rows = tuple((name, tuple(cell(one) for one in row)) for name, row in region.rows)
    kinds = Counter(kind for _, row in rows for _, kind in row)
    whole = len(region.cells)
    summary = (
        f"the prediction reaches the figure in {kinds['yes']} of {whole}, its interval alone in {kinds['near']}, "
        f"neither in {kinds['no']}"
    )
    return Table(region.title, region.across, region.columns, rows, summary)


def turned(claim: Claim, turn: Turn) -> tuple[str, str, str]:
    """A quantity solved for: its name, what is taken, and where the outcome turns."""
    unit = f" {turn.unit}" if turn.unit else ""
    now = f"{number(turn.now)}{unit}"
    if turn.needed is not None:
        where = "reached up to" if turn.needed > turn.now else "reached down to"
        if not turn.reached:
            where = "reached from" if turn.needed > turn.now else "reached at or below"
        return turn.quantity, now, f"{where} {number(turn.needed)}{unit}"
    end = f"{number(turn.end)}{unit}"
    return turn.quantity, now, f"{'reached' if turn.reached else 'not reached'} anywhere to {end}"
