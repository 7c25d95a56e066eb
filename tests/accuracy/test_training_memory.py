"""Peak memory of training runs measured on real cards, against `fit`.

Measured: MooreThreads/SimuMax's B200 runs of Megatron-LM (allocated), TorchTitan's pages (reserved). Nothing in
the formulas was fitted to these rows but the fragmentation factor, and that to the calibration rows only. The
medians below are what the model reaches; a change of them is a change of the model and belongs in the same commit.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from windtunnel.recipes.fit.training import training_memory
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_ffn import Moe
from windtunnel.units import GIB
from windtunnel.validation.model_names import architecture_named
from windtunnel.validation.training_rows import training_case

MEASUREMENTS = Path(__file__).parents[3] / "shared" / "measurements"
NAMES = {
    "Llama-3 70B": "llama3-70b",
    "Llama-3.1 70B": "llama3-70b",
    "Llama-3.1 8B": "llama3-8b",
    "Llama-3.1 405B": "llama3.1-405b",
    "DeepSeek-V2 236B": "deepseek-v2-236b",
    "DeepSeek-V3 671B": "deepseek-v3-671b",
}

pytestmark = pytest.mark.skipif(not MEASUREMENTS.is_dir(), reason="measurements are not beside the checkout")


def rows(folder: str, table: str) -> Iterator[dict[str, str]]:
    with (MEASUREMENTS / folder / f"{table}.csv").open(encoding="utf-8") as file:
        yield from (row for row in csv.DictReader(file) if row["peak_memory_gib"])


def model_of(text: str) -> ModelSpec:
    whole = shipped_model(next(name for start, name in NAMES.items() if text.startswith(start)))
    cut = re.search(r"truncated to (\d+) layers( \(1 dense)?", text)
    if cut is None:
        return whole
    count = int(cut[1])
    if not cut[2]:
        return replace(whole, layers=whole.layers[:count])
    sparse = next(layer for layer in whole.layers if isinstance(layer.ffn, Moe))
    return replace(whole, layers=(whole.layers[0], *(sparse,) * (count - 1)))


def errors(folder: str, table: str) -> list[float]:
    """Relative error of every row."""
    titan = "titan" in table
    found = []
    for row in rows(folder, table):
        layout = training_case(row, architecture_named).layout
        parts = training_memory(model_of(row["model"]), layout)
        ours = parts.reserved if titan else parts.allocated
        found.append(ours / GIB / float(row["peak_memory_gib"]) - 1)
        print(
            f"{row['row_id']:18} {row['model'][:44]:44} {row['peak_memory_gib']:>7} GiB {100 * found[-1]:+6.1f} %"
        )
    return found


@pytest.mark.parametrize(
    ("folder", "table", "count", "expected"),
    [
        ("calibration", "train_simumax_b200", 16, 0.006),
        # the first release lies 5 to 8 % below, as the replay of a recording of that model does
        ("calibration", "train_torchtitan", 7, 0.070),
        ("validation", "train_simumax_b200", 27, 0.024),
        ("validation", "train_torchtitan", 9, 0.052),
    ],
)
def test_median_error_of_peak_memory(folder: str, table: str, count: int, expected: float) -> None:
    found = errors(folder, table)
    assert len(found) == count
    assert median(map(abs, found)) == pytest.approx(expected, abs=0.004)
