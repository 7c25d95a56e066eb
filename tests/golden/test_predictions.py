"""No prediction moves by more than 1 % without a line in CHANGELOG.md.

The golden file holds predictions for real configurations (without their measurements; ``inputs/``). When this fails
and the move is meant: add a line to CHANGELOG.md that names the tables in backticks (``train_*`` and the like may stand
for several) and says why, then ``UPDATE_GOLDEN=1 pytest tests/golden/test_predictions.py`` records the new values. It
refuses while a table that moved has no new line.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from windtunnel.validation.folder import predict_file
from windtunnel.validation.formats import Kind
from windtunnel.validation.measured_files import MeasuredFile, read_measured

FOLDER = Path(__file__).parent / "predictions"
INPUTS = FOLDER / "inputs"
GOLDEN = FOLDER / "golden.json"
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
MOVE = 0.01
EVERY = {Kind.TRAINING: 10, Kind.SERVING: 5}
"""Slow tables are checked in every so many rows; in all of them in the slow test."""

Values = dict[str, dict[str, float | None]]
"""Table → ``row target`` → prediction, or None where the row is refused."""


def predicted(file: MeasuredFile) -> dict[str, float | None]:
    """All predictions of one table, to five digits."""
    found: dict[str, float | None] = {}
    for part in predict_file(file):
        for row, value in zip(part.row.tolist(), part.value.tolist(), strict=True):
            name = f"{row} {part.target}" if math.isfinite(value) else f"{row}"
            found[name] = float(f"{value:.5g}") if math.isfinite(value) else None
    return found


def tables(every: Mapping[Kind, int]) -> Values:
    """Predictions of all input tables; of the slow kinds every so many rows."""
    found = {}
    for path in sorted(INPUTS.glob("*.csv")):
        file = read_measured(path)
        assert not file.reason, (path, file.reason)
        assert file.format is not None
        if file.format.kind in every:
            table = file.table.where(file.table.index % every[file.format.kind] == 0)
            file = MeasuredFile(file.name, file.format, table, file.broken)
        found[path.stem] = predicted(file)
    return found


def moved(golden: Values, now: Values) -> dict[str, list[str]]:
    """Table → what moved by more than ``MOVE``, worst first. Rows that only one side has count as moved."""
    found: dict[str, list[str]] = {}
    for table, values in now.items():
        known = golden.get(table, {})
        rows = {name.split()[0] for name in values}
        ratios = []
        for name in {*values, *(n for n in known if n.split()[0] in rows)}:
            before, after = known.get(name), values.get(name)
            if (before is None) != (after is None) or (name in known) != (name in values):
                ratios.append((math.inf, name))
            elif before and after and abs(after / before - 1) > MOVE:
                ratios.append((abs(after / before - 1), name))
        if ratios:
            found[table] = [
                f"{name}: {'answered or refused' if r == math.inf else f'{r:.1%}'}"
                for r, name in sorted(ratios)[::-1]
            ]
    return found


def declared(text: str, names: Iterable[str]) -> dict[str, int]:
    """How many lines of the changelog name each table."""
    counts: dict[str, int] = defaultdict(int)
    for line in text.splitlines():
        patterns = re.findall(r"`([\w*]+)`", line)
        for name in names:
            counts[name] += any(fnmatchcase(name, pattern) for pattern in patterns)
    return dict(counts)


def read() -> tuple[Values, dict[str, int]]:
    """The golden predictions, and how often each table was named in the changelog when they were recorded."""
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return data["predictions"], data["declared"]


def update(now: Values) -> None:
    """Record new values. Fails while a table that moved has no new line in the changelog."""
    lines = declared(CHANGELOG.read_text(encoding="utf-8"), now)
    if GOLDEN.exists():
        golden, before = read()
        silent = [
            name for name in moved(golden, now) if lines[name] <= before.get(name, 0) and name in golden
        ]
        assert not silent, f"add a line to CHANGELOG.md that names `{'`, `'.join(silent)}`, then update again"
    text = json.dumps({"declared": lines, "predictions": now}, indent=0, sort_keys=True)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


def check(every: Mapping[Kind, int]) -> None:
    """Compare, or record anew."""
    if os.environ.get("UPDATE_GOLDEN") == "1":
        update(tables({}))
    golden, _ = read()
    found = moved(golden, tables(every))
    shown = "\n".join(f"  {table}: {len(rows)} moved, {', '.join(rows[:3])}" for table, rows in found.items())
    assert not found, (
        f"predictions moved by more than {MOVE:.0%}:\n{shown}\n"
        "if that is meant, say so in CHANGELOG.md (name the tables in backticks) and record them:\n"
        "UPDATE_GOLDEN=1 pytest tests/golden/test_predictions.py"
    )


def test_predictions_stand_where_they_were() -> None:
    check(EVERY)


@pytest.mark.slow
def test_all_predictions_stand_where_they_were() -> None:
    check({})


def test_a_move_is_seen_and_has_to_be_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: Values = {"train_x": {"0 step_seconds": 1.0, "1 step_seconds": 2.0, "2": None}}
    same: Values = {"train_x": {"0 step_seconds": 1.009, "1 step_seconds": 2.0, "2": None}}
    other: Values = {"train_x": {"0 step_seconds": 1.02, "1 step_seconds": 2.0, "2": None}}
    answered: Values = {"train_x": {"0 step_seconds": 1.0, "1 step_seconds": 2.0, "2 step_seconds": 3.0}}
    assert moved(before, same) == {}
    assert list(moved(before, other)) == ["train_x"]
    assert list(moved(before, answered)) == ["train_x"]
    assert moved(before, {"train_x": {"1 step_seconds": 2.0}}) == {}  # part of the rows

    here = "tests.golden.test_predictions" if "tests.golden" in __name__ else __name__
    monkeypatch.setattr(f"{here}.GOLDEN", tmp_path / "golden.json")
    monkeypatch.setattr(f"{here}.CHANGELOG", tmp_path / "CHANGELOG.md")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    update(before)
    with pytest.raises(AssertionError, match="train_x"):
        update(other)
    assert read()[0] == before
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n- `train_*`: another figure.\n")
    update(other)
    assert read()[0] == other
    with pytest.raises(AssertionError, match="train_x"):  # the line is used up
        update(before)


def test_inputs_hold_no_measurement() -> None:
    from tests.support.prediction_inputs import MEASURED

    for path in INPUTS.glob("*.csv"):
        table = read_measured(path).table
        for name in MEASURED & set(table.columns):
            assert not [cell for cell in table.text(name) if cell not in ("", "nan")], (path.name, name)
