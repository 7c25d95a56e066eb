"""Columns: one definition per key, and text that keeps values and their intervals in one scale."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.results import columns
from windtunnel.results.columns import COLUMNS, PART_KEYS, Unit
from windtunnel.results.run_result import StepParts

INTRODUCTION = """# Result keys

What `--json`, CSV tables and reports call each quantity, its unit and its definition; made from
`windtunnel/results/columns.py`. In JSON every number is in its base unit (seconds, bytes, fractions), and an
estimate is an object with `value`, `low`, `high` (80 % interval), `source` and `source_shares`. One chip has
these keys at the top level beside `schema` and `status`; several chips have them in each object of `runs`.
Reports print fractions in percent, memory in GiB, and rates in decimal units.
"""


def test_keys_are_defined_once() -> None:
    keys = [column.key for column in COLUMNS]
    assert len(keys) == len(set(keys))


def test_part_keys_are_the_fields_of_a_step() -> None:
    assert set(PART_KEYS) == {field.name for field in fields(StepParts)}
    assert all(columns.column(key).unit is Unit.SECONDS for key in PART_KEYS)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.SECONDS, 1.39, "1.39 s"),
        (Unit.SECONDS, 0.00139, "1.39 ms"),
        (Unit.SECONDS, 7300.0, "2.03 h"),
        (Unit.FRACTION, 0.345, "34.5 %"),
        (Unit.BYTES, 50.8 * 1024**3, "50.8 GiB"),
        (Unit.FLOP, 57.9e9, "57.9 GFLOP"),
        (Unit.BYTES_PER_S, 3.35e12, "3.35 TB/s"),
        (Unit.COUNT, 41312, "41,312"),
        (Unit.TOKENS_PER_S_PER_GPU, 5893.2, "5,893 tokens/s/GPU"),
    ],
)
def test_text(unit: Unit, value: float, text: str) -> None:
    assert columns.text(unit, value) == text


def test_interval_shares_the_scale_of_its_value() -> None:
    assert columns.numbers(Unit.SECONDS, (1.0, 0.95, 1.05)) == (("1.00", "0.95", "1.05"), "s")
    assert columns.numbers(Unit.SECONDS, (0.0012, 0.0009, 0.0015)) == (("1.20", "0.90", "1.50"), "ms")


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-9, 1e6))
def test_text_keeps_three_digits(value: float) -> None:
    (number,), _ = columns.numbers(Unit.SECONDS, (value,))
    factor, _ = columns.scale(Unit.SECONDS, value)
    assert float(number.replace(",", "")) * factor == pytest.approx(value, rel=6e-3)


def test_the_page_of_keys_is_this_table() -> None:
    heading = ["| Key | Label | Unit | Definition |", "|---|---|---|---|"]
    rows = [f"| `{c.key}` | {c.label} | {c.unit} | {c.definition} |" for c in COLUMNS]
    text = "\n".join([INTRODUCTION, *heading, *rows]) + "\n"
    page = Path(__file__).parents[3] / "docs" / "result-keys.md"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        page.write_text(text, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == text
