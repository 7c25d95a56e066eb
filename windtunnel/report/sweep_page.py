"""The page of `windtunnel serve --sweep`: what cards sustain, against what users see. One offline file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from windtunnel import units
from windtunnel.report import html
from windtunnel.report.figure_cards import Card, card
from windtunnel.report.files import write_bytes
from windtunnel.report.line_plots import LinePlot, Series, linear, logarithmic, plot
from windtunnel.results.sweep_result import Pair, Point, SweepResult

CURVES_MOST = 9
"""Curves of a plot that can be told apart; the tables have all points."""


def write(found: SweepResult, path: str | Path) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(found).encode())


def render(found: SweepResult) -> str:
    """The page of one sweep."""
    layouts = dict.fromkeys((point.chip, point.cards, point.layout) for point in found.points)
    return html.fill(
        "sweep.html.j2", found=found, answer=_answer(found), cards=_cards(found),
        plots=[one for one in (_front(found), *_decode(found), *_prefill(found)) if one],
        pairs=[pair_words(pair) for pair in found.pairs], layouts=list(layouts), number=_number,
        significant=units.significant,         sources=_sources(found.points), data="",
    )  # fmt: skip


def pair_words(pair: Pair) -> str:
    """Prefill and decode apart, in a sentence."""
    return (
        f"{pair.decode.chip}, {pair.prompt:,} tokens in and {pair.output:,} out, apart: "
        f"{pair.output_tokens_per_s_per_gpu:,.0f} output tokens/s over all cards, "
        f"{units.percent(pair.prefill_share)} of them for prompts "
        f"({pair.prefill.cards} cards a prefill unit, {pair.decode.cards} a decode unit, batch "
        f"{pair.decode.batch} a rank, {units.seconds(pair.decode.step_s.value)} a token)"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _where(point: Point) -> str:
    return f"{point.cards} × {point.chip}"


def _answer(found: SweepResult) -> str:
    best = found.best("decode")
    if best is None:
        return "No batch of this sweep fits the cache"
    rate, user = best.tokens_per_s_per_gpu.value, best.tokens_per_s_per_user
    return (
        f"Up to {_number(rate)} output tokens/s a card, {units.significant(user)} a user, on {_where(best)}"
    )


def _cards(found: SweepResult) -> list[Card]:
    made = []
    for phase, label in (("decode", "Output tokens a card"), ("prefill", "Prompt tokens a card")):
        best = found.best(phase)
        if best is not None:
            length = f"{best.context:,} tokens a {'sequence' if phase == 'decode' else 'prompt'}"
            note = (
                f"{_where(best)}, batch {best.batch} a rank, {length}; roofline {_number(best.roofline)}, "
                f"{units.percent(best.tokens_per_s_per_gpu.value / best.roofline)} of it"
            )
            made.append(card(label, best.tokens_per_s_per_gpu, note))
    for pair in found.pairs:
        note = f"{pair.decode.chip}, {units.percent(pair.prefill_share)} of the cards for prompts"
        number = units.significant(pair.output_tokens_per_s_per_gpu)
        made.append(Card("Output tokens a card, apart", number, "/s", "", note))
    return made


def _curves(points: Sequence[Point]) -> list[tuple[str, list[Point]]]:
    """Points that differ in batch or length only, by what they have in common."""
    several = len({point.context for point in points if point.phase == "decode"}) > 1

    def common(point: Point) -> tuple[str, int, int]:
        return point.chip, point.cards, point.context if point.phase == "decode" else 0

    found = []
    for _, group in groupby(sorted(points, key=common), common):
        members = list(group)
        length = f", {members[0].context:,} tokens" if several and members[0].phase == "decode" else ""
        found.append((_where(members[0]) + length, members))
    return found[:CURVES_MOST]


def _front(found: SweepResult) -> LinePlot | None:
    """Tokens a card against tokens a user, of batches that fit."""
    series = []
    for name, members in _curves([point for point in found.of("decode") if point.fits]):
        pairs = sorted((p.tokens_per_s_per_user, p.tokens_per_s_per_gpu.value, str(p.batch)) for p in members)
        series.append(Series(name, [pair[:2] for pair in pairs], labels=tuple(pair[2] for pair in pairs)))
    if not series:
        return None
    users = [x for one in series for x, _ in one.points]
    rates = [y for one in series for _, y in one.points]
    title = "Output tokens/s a card against tokens/s a user; dots are batches a rank"
    return plot(title, "tokens/s a user", series, linear(users, units.significant), linear(rates, _number))


def _decode(found: SweepResult) -> list[LinePlot]:
    title = "Output tokens/s a card against the batch, whether it fits or not"
    return _against(found, "decode", lambda point: point.batch, title, "sequences a rank")


def _prefill(found: SweepResult) -> list[LinePlot]:
    title = "Prompt tokens/s a card against the prompt"
    return _against(found, "prefill", lambda point: point.context, title, "tokens a prompt")


def _against(
    found: SweepResult, phase: str, size: Callable[[Point], int], title: str, label: str
) -> list[LinePlot]:
    """Rates of a phase against a size; nothing where no chip has two points."""
    curves = _curves(found.of(phase))
    if max((len(members) for _, members in curves), default=0) < 2:
        return []
    series = [
        Series(name, [(size(p), p.tokens_per_s_per_gpu.value) for p in members]) for name, members in curves
    ]
    xs = [x for one in series for x, _ in one.points]
    rates = [y for one in series for _, y in one.points]
    return [plot(title, label, series, logarithmic(xs, _number), linear(rates, _number))]


def _sources(points: Sequence[Point]) -> str:
    """How many points rest on what."""
    kinds: dict[str, int] = {}
    for point in points:
        kind = str(point.tokens_per_s_per_gpu.source)
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
