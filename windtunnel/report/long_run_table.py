"""A long run for a terminal: where the days go, and what that rests on."""

from __future__ import annotations

from windtunnel import units
from windtunnel.report import notices
from windtunnel.report.text_table import Shorten, TextColumn, bar, render
from windtunnel.results import columns
from windtunnel.results.columns import LONG_RUN_KEYS
from windtunnel.results.run_result import LongRun, RunResult

_PARTS = (TextColumn("Share of the time"), TextColumn("share", right=True), TextColumn("", rank=1))
_INPUTS = (
    TextColumn("Rests on"),
    TextColumn("value", right=True),
    TextColumn("", rank=1),
    TextColumn("where from", shorten=Shorten.WRAP, least=24),
)


def sentence(run: LongRun) -> str:
    """``30 days on 1,024 cards: 97.1 % effective training time (96.5 – 97.7), 14.5 failures``."""
    share, low, high = (
        units.percent(x) for x in (run.effective.value, run.effective.low, run.effective.high)
    )
    tokens = f", {units.significant(run.tokens.value / 1e9)} billion tokens" if run.tokens is not None else ""
    return (
        f"{run.days:g} days on {run.cards:,} {'card' if run.cards == 1 else 'cards'}: {share} effective training "
        f"time ({low} to {high}), {units.significant(run.failures.value)} failures{tokens}"
    )


def lines(result: RunResult, width: int) -> list[str]:
    """Sentence, parts, inputs; nothing where no long run was asked for."""
    run = result.long_run
    if run is None:
        return []
    parts = [
        (columns.label(key), units.percent(getattr(run, key)), bar(getattr(run, key)))
        for key in LONG_RUN_KEYS
        if getattr(run, key) > 0
    ]
    inputs = [(row.what, row.value, str(row.source or ""), row.where) for row in run.inputs]
    histories = f"means of {run.histories} histories, seed {run.seed}"
    return [
        *notices.wrapped(sentence(run), width),
        "",
        *render(_PARTS, parts, width),
        "",
        *render(_INPUTS, inputs, width),
        "",
        histories,
    ]
