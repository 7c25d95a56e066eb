"""Peak memory of training runs measured on real cards, against replayed recipes.

Measured: MooreThreads/SimuMax's B200 runs of Megatron-LM (allocated, and reserved in the notes), TorchTitan's pages
(reserved, with the expandable segments that its launcher sets). Nothing was fitted to these rows. The medians below are
what the model reaches; a change of them is a change of the model and belongs in the same commit.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from windtunnel.memory.settings import AllocatorSettings
from windtunnel.recipes.fit.question import replayed_on
from windtunnel.specs.catalogue import chip
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


def errors(folder: str, table: str, figure: str) -> list[float]:
    """Relative error of every row in what PyTorch calls ``figure``: allocated or reserved."""
    settings = AllocatorSettings(expandable_segments="titan" in table)
    found = []
    for row in rows(folder, table):
        case = training_case(row, architecture_named)
        parts = replayed_on(chip(case.chip), model_of(row["model"]), case.layout, settings=settings)
        ours, measured = float(parts.allocated), float(row["peak_memory_gib"])
        if figure == "reserved":
            ours = parts.reserved - parts.communication
            in_notes = re.search(r"reserved GiB=([\d.]+)", row["notes"])
            measured = float(in_notes[1]) if in_notes else measured
        found.append(ours / GIB / measured - 1)
        print(f"{row['row_id']:18} {row['model'][:44]:44} {measured:7.2f} GiB {100 * found[-1]:+6.1f} %")
    return found


@pytest.mark.parametrize(
    ("folder", "table", "figure", "count", "middle", "worst"),
    [
        ("calibration", "train_simumax_b200", "allocated", 16, 0.002, 0.023),
        ("calibration", "train_simumax_b200", "reserved", 16, 0.013, 0.055),
        ("calibration", "train_torchtitan", "reserved", 7, 0.015, 0.043),
        ("validation", "train_simumax_b200", "allocated", 27, 0.010, 0.031),
        ("validation", "train_simumax_b200", "reserved", 27, 0.012, 0.079),
        ("validation", "train_torchtitan", "reserved", 9, 0.023, 0.121),
    ],
)
def test_errors_of_peak_memory(
    folder: str, table: str, figure: str, count: int, middle: float, worst: float
) -> None:
    found = [abs(error) for error in errors(folder, table, figure)]
    assert len(found) == count
    assert median(found) == pytest.approx(middle, abs=0.003)
    assert max(found) <= worst
