"""Writes the configurations that the golden predictions are made for: rows of measured tables without measurements.

    python -m tests.support.prediction_inputs MEASUREMENTS

Every training row of the validation tables, serving rows (of the largest table every thirtieth), and of each group of
kernels and collectives a few rows far apart in the table. Run it again only when tables or formats change.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from windtunnel.validation.folder import files_of, predict_file
from windtunnel.validation.formats import Kind
from windtunnel.validation.measured_files import MeasuredFile, read_measured
from windtunnel.validation.rows_file import Answers

INPUTS = Path(__file__).parent.parent / "golden" / "predictions" / "inputs"
ROWS_OF_GROUP = 6
SERVING_ROWS, SERVING_EVERY = 100, 30
MEASURED = frozenset(
    "latency_seconds median_seconds derived_seconds seconds step_seconds step_seconds_p10 step_seconds_p90 "
    "iteration_ms tokens_per_s_per_gpu model_tflops_per_gpu mfu_percent peak_memory_gib max_memory_gib "
    "dispatch_seconds combine_seconds dispatch_gb_per_s combine_gb_per_s time_to_train_minutes "
    "output_tokens_per_s_total output_tokens_per_s_per_gpu input_tokens_per_s_per_gpu ttft_seconds tpot_seconds "
    "mean_ttft_seconds "
    "mean_inter_token_latency_seconds achieved_requests_per_s total_tokens_per_s output_tokens_per_s power tflops "
    "busbw_gb_per_s algbw_gb_per_s mean_seconds min_seconds max_seconds std_seconds num_steps_sampled num_runs".split()
)
FROM_CALIBRATION = ("s5000_measured",)
_UNUSED = frozenset(("cuda_version", "config_file", "submitter", "system", "step_time_source", "source_url"))


def main(arguments: Sequence[str]) -> int:
    """Write the tables anew."""
    shutil.rmtree(INPUTS, ignore_errors=True)
    INPUTS.mkdir(parents=True)
    source = Path(arguments[0])
    paths = files_of(source / "validation")
    for name in FROM_CALIBRATION:
        paths += files_of(source / "calibration", name)
    for path in paths:
        _write(read_measured(path))
    return 0


def _write(file: MeasuredFile) -> None:
    known = file.format
    if known is None or known.kind is Kind.UNPREDICTED or file.reason:
        return
    table = file.table
    if known.kind in (Kind.TRAINING, Kind.SERVING):
        # a table of hundreds of serving rows takes minutes: some of them
        many = known.kind is Kind.SERVING and len(table) > SERVING_ROWS
        wanted = set(table.index.tolist()[:: SERVING_EVERY if many else 1])
    else:
        wanted = {row for part in predict_file(file) for row in _some(part)}
    chosen = table.where(np.isin(table.index, sorted(wanted)))
    names = [name for name in table.columns if name not in _UNUSED]
    columns = [
        [""] * len(chosen)
        if name in MEASURED
        else ["" if cell == "nan" else cell for cell in chosen.text(name)]
        for name in names
    ]
    if table.file == "s5000_measured":  # its one column of values holds rates: a 1 keeps the rows readable
        columns[names.index("value")] = ["1"] * len(chosen)
    with (INPUTS / f"{table.file}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))


def _some(part: Answers) -> list[int]:
    rows = sorted(part.row.tolist())
    places = np.unique(np.linspace(0, len(rows) - 1, ROWS_OF_GROUP).round().astype(int))
    return [rows[place] for place in places]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
