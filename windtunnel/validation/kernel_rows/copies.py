"""Rows of ``micro_driver_launch_copy``: copies on the device and over PCIe, pinned and pageable, by size.

Rates are in MB/s. On the device they count reading and writing, as their closeness to the data sheet shows. The
141 GB part of the H20 has another memory than the H20 of the catalogue, so only its PCIe rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windtunnel.program.work import Family
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured import MeasuredRows, batch
from windtunnel.validation.tables import Table

_TESTS = {"CopyPinnedRate": "", "Copy1DUnAlignedRate": "pageable_"}


def rows(table: Table) -> Iterator[MeasuredRows]:
    """Copies by chip, kind of host memory and direction."""
    for (gpu, test, metric), part in table.groups("gpu", "test", "metric"):
        chip = chip_name(gpu)
        direction = metric.split(" ")[0].lower()
        if (
            chip is None
            or test not in _TESTS
            or direction not in ("h2d", "d2h", "d2d")
            or "Mean" not in metric
        ):
            continue
        size = part.number("problem_size")
        if direction == "d2d":
            if "3e" in gpu:
                continue
            moved, seconds = size / 2.0, size / (part.number("value") * 1e6)
            work = batch(Family.COPY, "bf16", {"bytes": size}, bytes_read=moved, bytes_written=moved)
            library = "driver"
        else:
            variant = _TESTS[test] + direction
            work = batch(
                Family.HOST_COPY,
                "fp32",
                {"bytes": size},
                bytes_read=size,
                bytes_written=size,
                variant=variant,
            )
            seconds, library = size / (part.number("value") * 1e6), "driver"
        groups = np.arange(len(part), dtype=np.int64)
        yield MeasuredRows(part.file, chip, library, part.index, (work,), seconds, groups)
