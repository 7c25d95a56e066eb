"""The summary on a terminal: golden at three widths, exact numbers at any, nothing a file can inject."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.support import golden, sample_results
from windtunnel.estimate import Estimate, Source
from windtunnel.report.terminal import BOLD, summary
from windtunnel.report.text_table import Shorten, TextColumn, bar, render, shortened
from windtunnel.report.words import step_groups
from windtunnel.results.run_result import RunResult

CASES = {
    "training": (sample_results.training(),),
    "out-of-memory": (sample_results.out_of_memory(),),
    "decode": (sample_results.decode(),),
    "hostile": (sample_results.hostile(),),
    "compared": (sample_results.training(), sample_results.other_chip(), sample_results.out_of_memory()),
}


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("case", CASES)
def test_summary_is_the_recorded_one(case: str, width: int) -> None:
    golden.check(f"report/{case}-{width}.txt", summary(CASES[case], width))


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("case", CASES)
def test_lines_fit_the_width(case: str, width: int) -> None:
    too_long = [line for line in summary(CASES[case], width).splitlines() if cell_len(line) > width]
    assert not too_long


def test_no_number_is_cut_however_narrow() -> None:
    for width in range(30, 141):
        assert not re.search(r"\d…|\d\.…", summary(CASES["training"], width)), width


def test_no_escape_sequence_of_a_file_reaches_the_terminal() -> None:
    assert "\x1b" not in summary(CASES["hostile"], 100)


def test_style_changes_no_letter() -> None:
    plain = summary(CASES["training"], 100)
    styled = summary(CASES["training"], 100, styled=True)
    assert BOLD in styled
    assert re.sub(r"\x1b\[\dm", "", styled) == plain


def test_unfolded_lists_every_notice() -> None:
    unfolded = summary(CASES["training"], 100, fold=False)
    assert "at place 156" in unfolded
    assert "more: `windtunnel report`" not in unfolded


def test_a_run_without_a_step_has_no_time_tables() -> None:
    base = sample_results.training()
    nothing = Estimate.exact(0.0)
    empty = replace(base, step_time_s=nothing, ops=(), tokens_per_s_per_gpu=None, mfu=None)
    text = summary([empty], 100)
    assert "Where the step goes" not in text
    assert "Step time" not in text


def test_unbounded_interval_is_said() -> None:
    base = sample_results.decode()
    rate = Estimate(2.0, 1.0, float("inf"), ((Source.ASSUMED, 1.0),))
    assert "1.00 – ∞" in summary([replace(base, tokens_per_s_per_gpu=rate)], 100)


def test_samples_stand_in_for_tokens() -> None:
    base = sample_results.training()
    images = replace(base, tokens_per_s_per_gpu=None, tokens_per_step=0, samples_per_step=64)
    expected = 64 / base.cards / base.step_time_s.value
    assert f"{expected:.2f} samples/s/GPU" in summary([images], 100)


@settings(deadline=None, max_examples=50)
@given(st.integers(30, 160), st.integers(2, 9))
def test_comparison_never_drops_a_chip(width: int, chips: int) -> None:
    results = [_renamed(sample_results.decode(), f"chip-{index}") for index in range(chips)]
    text = summary(results, width)
    tables = text.partition("Verdicts")[0]
    assert all(f"chip-{index}" in tables for index in range(chips))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.text("abc日", max_size=40), st.integers(0, 10**9)), max_size=5), st.integers(10, 90)
)
def test_tables_keep_numbers_whole(rows: list[tuple[str, int]], width: int) -> None:
    columns = (TextColumn("name", shorten=Shorten.HEAD), TextColumn("number", right=True))
    lines = render(columns, [(name, f"{number:,}") for name, number in rows], width)
    assert len(lines) == len(rows) + 2
    for line, (_, number) in zip(lines[2:], rows):
        assert line.endswith(f"{number:,}")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=30), st.integers(1, 30))
def test_shortened_text_fits(text: str, size: int) -> None:
    for where in (Shorten.HEAD, Shorten.TAIL):
        assert cell_len(shortened(text, size, where)) <= size


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1))
def test_bar_grows_with_the_fraction(fraction: float) -> None:
    assert len(bar(fraction)) <= 10
    assert bool(bar(fraction)) is (fraction > 0)


def _renamed(result: RunResult, name: str) -> RunResult:
    return replace(result, chip=name)


def test_a_long_message_is_told_in_two_sentences() -> None:
    message = (
        "SomeError: out of memory. Tried to allocate 20 MiB. GPU 0 has a total capacity of 80 GiB.\nMore."
    )
    base = sample_results.out_of_memory()
    text = summary([replace(base, memory=replace(base.memory, out_of_memory_at=message))], 140)
    assert "out of memory: SomeError: out of memory. Tried to allocate 20 MiB\n" in text


def test_prefill_and_decode_are_told_apart() -> None:
    groups = {group.kind: group for group in step_groups(sample_results.decode())}
    assert groups["prefill"].count == 1
    assert groups["decode"].count == 31
    assert groups["decode"].median_s == pytest.approx(0.00805)
    assert groups["decode"].first_s == groups["decode"].shortest_s == pytest.approx(0.0079)


def test_equal_steps_are_one_number() -> None:
    same = (("train", 1.0), ("train", 1.005))
    assert step_groups(replace(sample_results.training(), steps=same)) == []
    assert step_groups(replace(sample_results.training(), steps=(*same, ("train", 1.5)))) != []
