"""Published wide expert-parallel runs that nothing was fitted to, predicted as their sources state them.

The limits are what the model reaches, with a little room: a change that exceeds one belongs in the change log and in
docs/wide-expert-parallel.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import median

import pytest

from benchmarks.wide_ep_published import SOURCES, Run, acceptance, predicted, read, words
from windtunnel.estimate import Estimate
from windtunnel.serving.speculation import Speculation

RUNS = read()
FACTOR = 1.6
"""No run is further off than this."""


@cache
def answer(run: Run) -> Estimate:
    return predicted(run)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_every_run_is_within_a_factor(run: Run) -> None:
    assert 1 / FACTOR < answer(run).value / run.measured < FACTOR


def test_half_of_the_runs_are_close_and_most_inside_the_interval() -> None:
    errors = [abs(answer(run).value / run.measured - 1) for run in RUNS]
    inside = [answer(run).low <= run.measured <= answer(run).high for run in RUNS]
    assert median(errors) < 0.22
    assert sum(inside) >= 0.65 * len(RUNS)


def test_every_figure_has_a_source_and_a_name_of_its_own() -> None:
    assert {run.source for run in RUNS} == set(SOURCES)
    assert len({run.name for run in RUNS}) == len(RUNS)
    assert {run.figure for run in RUNS} == {"text", "chart"}


def test_the_page_says_what_is_predicted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wide-expert-parallel.md").read_text(encoding="utf-8")
    lines = [line.split(" | ") for line in page.splitlines() if line.count(" | ") == 4 and " × " in line]
    assert len(lines) == len(RUNS)
    for run, (what, measured, told, *_) in zip(RUNS, lines, strict=True):
        assert what.endswith(words(run))
        assert measured == f"{run.measured:,.0f}"
        assert float(told.replace(",", "")) == pytest.approx(answer(run).value, rel=0.03, abs=1.0)


@pytest.mark.parametrize(("yielded", "drafts"), [(1.9, 1), (2.55, 2), (3.1, 3)])
def test_acceptance_yields_what_a_source_says(yielded: float, drafts: int) -> None:
    found = Speculation(tokens=drafts, acceptance=acceptance(yielded, drafts))
    assert found.yielded == pytest.approx(yielded)
