"""A comparison in a terminal: answer, reasons, the deviations side by side, locked steps, controls."""

from __future__ import annotations

import textwrap

from windtunnel.report import align_words as words
from windtunnel.report.text_table import Shorten, TextColumn, plain, render
from windtunnel.results.align_result import AlignResult, Side


def summary(result: AlignResult, width: int) -> list[str]:
    """Lines of at most ``width`` cells wherever that is possible."""
    blocks = [
        _answer(result, width),
        _sides(result, width),
        _deviations(result, width),
        _locked(result, width),
    ]
    blocks += [_controls(result, width), _evaluation(result), _notes(result, width)]
    return [line for block in blocks if block for line in (*block, "")][:-1]


def _answer(result: AlignResult, width: int) -> list[str]:
    return [words.verdict(result), *(line for reason in result.reasons for line in _wrapped(reason, width))]


def _wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False
    )


def _sides(result: AlignResult, width: int) -> list[str]:
    def lines(name: str, side: Side) -> list[str]:
        text = f"{name:<10} {side.chip_title}: {side.precision}; {side.accumulator} ({side.exactness})"
        return _wrapped(text, width, " ")

    return lines("reference", result.reference) + lines("candidate", result.candidate)


def _deviations(result: AlignResult, width: int) -> list[str]:
    if not result.deviations:
        return []
    columns = [
        TextColumn("Loss deviation"),
        TextColumn("here", right=True),
        TextColumn("rounding alone", right=True),
        TextColumn("z", right=True),
        TextColumn("is it 0.62 %?", rank=2),
        TextColumn("defined as", rank=1, shorten=Shorten.WRAP, least=24),
    ]
    rows = [
        (
            judged.deviation.name,
            words.value(judged),
            words.floor(judged),
            words.z(judged) + ("" if judged.inside else " !"),
            words.could_be_published(judged),
            judged.deviation.definition,
        )
        for judged in result.deviations
    ]
    marked = any(not judged.inside for judged in result.deviations)
    mark = [" ! outside the 95 % prediction interval of runs that differ in rounding alone"] if marked else []
    return [*render(columns, rows, width), *mark]


def _locked(result: AlignResult, width: int) -> list[str]:
    columns = [
        TextColumn("Locked step", right=True),
        TextColumn("loss", right=True),
        TextColumn("gradient", right=True),
        TextColumn("worst tensor", right=True),
        TextColumn("loss, recipe", right=True),
        TextColumn("gradient, recipe", right=True),
        TextColumn("worst, recipe", right=True, rank=1),
    ]
    rows = [
        (
            str(row.step),
            words.percent(row.loss_golden, signed=True),
            words.percent(row.global_golden),
            words.percent(row.worst_golden),
            words.percent(row.loss_reference, signed=True),
            words.percent(row.global_reference),
            words.percent(row.worst_reference),
        )
        for row in result.locked.rows
    ]
    table = render(columns, rows, width)
    flagged = result.locked.flagged
    names = f" flagged: {', '.join(flagged[: words.SHOWN_TENSORS])}" if flagged else " no tensor is flagged"
    places = [
        f" against {place.against}, {words.limit(place)}: {words.place(place)}"
        for place in result.locked.places
        if place.limit != 0.01
    ]
    note = " the first three against the candidate's recipe with ideal sums, the others against the reference"
    return [*table, note, names, *places]


def _controls(result: AlignResult, width: int) -> list[str]:
    columns = [
        TextColumn("Injected defect", shorten=Shorten.WRAP, least=20),
        TextColumn("caught"),
        TextColumn("tensors", right=True),
        TextColumn("the first", shorten=Shorten.HEAD),
        TextColumn("shows first at", shorten=Shorten.HEAD, rank=1),
    ]
    rows = [
        (
            control.defect,
            "yes" if control.caught else "NO",
            str(len(control.flagged)),
            control.flagged[0] if control.flagged else "",
            control.place.line if control.place is not None else "gradients only",
        )
        for control in result.locked.controls
    ]
    return render(columns, rows, width)


def _evaluation(result: AlignResult) -> list[str]:
    seen = result.evaluation
    if seen is None:
        return []

    def score(name: str, right: int, items: int, value: float, low: float, high: float) -> str:
        return f" {name:<10} {value:6.1%}   {low:.1%} to {high:.1%}   {right} of {items} right"

    lines = [
        score(name, p.right, p.items, p.value, p.low, p.high)
        for name, p in (("reference", seen.reference), ("candidate", seen.candidate))
    ]
    lines += [
        score("replica", p.right, p.items, p.value, p.low, p.high) + f", p = {p_value:.2g}"
        for p, p_value in zip(result.replica_scores, result.replica_p_values, strict=True)
    ]
    lines.append(
        f" only the reference right on {seen.only_reference}, only the candidate on {seen.only_candidate}: "
        f"p = {seen.p_value:.2g}; both the same on {seen.agreement:.1%}"
    )
    return ["Evaluation (95 % Wilson intervals)", *lines]


def _notes(result: AlignResult, width: int) -> list[str]:
    notes = [*map(plain, result.notes), words.published(result)]
    notes += [f"assumed of {result.candidate.chip_title}: {line}" for line in result.candidate.assumed]
    return ["Notes", *(line for note in notes for line in _wrapped(note, width, " "))]
