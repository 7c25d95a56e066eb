"""Fit every kernel family on a folder of measured tables and rewrite its parameter file. Same tables, same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.cost.fit_files import forget
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.validation.calibrate.kernel_entries import write_entries
from windtunnel.validation.calibrate.kernel_families import STAGES
from windtunnel.validation.calibrate.kernel_fits import fit_stage
from windtunnel.validation.kernels import kernel_files, rows_of_folder

PARAMETERS = Path(__file__).parents[2] / "cost" / "parameters"
"""Where the package keeps its fits."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """One fit written: what it is for, how many rows it saw, its time-weighted errors on rows left out."""

    file: str
    chip: str
    library: str
    path: str
    rows: int
    error_median: float
    error_p90: float
    roofline_median: float | None  # the same error of plain baselines
    nearest_median: float | None


def calibrate_kernels(data: Path, families: Sequence[str] = ()) -> Iterator[Fitted]:
    """Fit the families in order and write their files into the package, yielding each fit as it is done.

    Raises WindtunnelError E953 for a folder without tables, E954 for an unknown family.
    """
    known = [stage.file for stage in STAGES]
    for family in families:
        if family not in known:
            raise WindtunnelError(
                "E954", f"no kernel family `{family}` to calibrate", hint=f"one of: {', '.join(known)}"
            )
    if not data.is_dir() or not kernel_files(data):
        raise WindtunnelError(
            "E953",
            f"no measured kernel tables in {data}",
            hint="give the folder that holds files such as kernel_aic_gemm.parquet",
        )
    chips = {name: chip(name) for name in chip_names()}
    for stage in STAGES:
        if families and stage.file not in families:
            continue
        rows = rows_of_folder(data, stage.tables)
        if not rows:
            continue
        entries, borrowed = fit_stage(stage, rows, chips)
        write_entries(PARAMETERS / f"{stage.file}.json", entries, borrowed)
        forget()
        for entry in entries:
            if not entry["rows"]:  # by hand
                continue
            path = "/".join(str(entry[name]) for name in ("precision", "variant") if entry[name])
            yield Fitted(
                file=stage.file,
                chip=str(entry["chip"]),
                library=str(entry["library"]),
                path=path,
                rows=int(str(entry["rows"])),
                error_median=float(str(entry["error_median"])),
                error_p90=float(str(entry["error_p90"])),
                roofline_median=_number(entry["roofline_median"]),
                nearest_median=_number(entry["nearest_median"]),
            )


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None
