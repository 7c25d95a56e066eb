"""The collector: measures what is asked for on the device at hand and adds it to the tables of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.validation.measure import collectives
from windtunnel.validation.measure.cases import Case, Grid, Row, kernel_cases
from windtunnel.validation.measure.steps import (
    TABLE,
    StepCase,
    StepTimes,
    measure_step,
    row_of,
    step_cases,
)
from windtunnel.validation.measure.tables import GrowingTable
from windtunnel.validation.measure.timer import Timer

FAMILIES = ("gemm", "attention", "ops", "collectives", "steps")
COPIES_MAX = 4
_CACHE_BYTES = 512e6
"""Working set that no card keeps in its cache: operands are rotated until they take this much."""
_REFUSALS = (RuntimeError, NotImplementedError, ValueError, TypeError, AttributeError)

Progress = Callable[[str], None]


@dataclass(slots=True)
class Collected:
    """What a run did: rows measured by table, rows that were there already, and cases that did not run."""

    folder: Path
    gpu: str
    measured: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to measure. ``gpu``: name to write; empty asks the driver. ``network``: between the nodes."""

    families: tuple[str, ...] = FAMILIES
    full: bool = False
    gpu: str = ""
    network: str = "not stated"


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """``auto``, ``cuda``, ``musa`` or ``cpu`` as a device that is there. Raises E966 where it is not."""
    if name == "musa" or (name == "auto" and not torch.cuda.is_available()):
        try:
            import torch_musa  # type: ignore[import-not-found]  # noqa: F401
        except ImportError:
            if name == "musa":
                raise _no_device(name, "torch_musa is not installed") from None
    for kind in (name,) if name != "auto" else ("cuda", "musa", "cpu"):
        if kind == "cpu":
            return torch.device("cpu")
        backend = getattr(torch, kind, None)
        if backend is not None and backend.is_available():
            if local_rank:
                backend.set_device(local_rank)
            return torch.device(kind, local_rank)
    raise _no_device(name, "PyTorch finds no such card")


def _no_device(name: str, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E966",
        f"there is no `{name}` device: {why}",
        hint="windtunnel measure --device cpu, or on a virtual card: windtunnel measure --on mtt-s5000",
    )


def gpu_name(device: torch.device) -> str:
    """The catalogue's name of the card, or the driver's where the catalogue does not have it."""
    if device.type == "cpu":
        return "cpu"
    told = str(torch.get_device_module(device).get_device_name(device.index or 0))
    known = [name for name in chip_names() if chip(name).device_name == told]
    return known[0] if known else told


def collect(wish: Wish, device: torch.device, folder: Path, progress: Progress) -> Collected:
    """Measure and write. Cases that the device refuses are listed, not raised. Raises E964, E965."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Collected(folder, wish.gpu or gpu_name(device))
    timer = Timer(device) if wish.full else Timer(device, trials=3, least_s=2e-4)
    grid = Grid(wish.full)
    tables = _Tables(folder)
    cases = list(kernel_cases(set(wish.families), grid, found.gpu, device))
    for number, case in enumerate(cases, 1):
        progress(f"kernel {number} of {len(cases)}: {case.table} {_words(case.row)}")
        _one(found, tables, case.table, case.row, (case.target,), lambda c=case: (_kernel_s(c, timer),))  # type: ignore[misc]
    if "steps" in wish.families:
        names = tuple(f.name for f in fields(StepTimes))
        for step in step_cases(grid, device.type != "cpu"):
            progress(f"step: {step.block} {step.mode} {step.batch} × {step.sequence}")
            row = row_of(step, found.gpu)
            _one(found, tables, TABLE, row, names, lambda s=step: _step(s, timer))  # type: ignore[misc]
    if "collectives" in wish.families:
        _collectives(wish, grid, found, tables, timer, progress)
    return found


class _Tables:
    """The tables of the folder by name, opened when the first row comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, GrowingTable] = {}

    def table(self, stem: str, row: Row, measured: tuple[str, ...]) -> GrowingTable:
        if stem not in self._open:
            self._open[stem] = GrowingTable(self._folder, stem, tuple(row), measured)
        return self._open[stem]


def _one(
    found: Collected,
    tables: _Tables,
    stem: str,
    row: Row,
    names: tuple[str, ...],
    measure: Callable[[], tuple[float | None, ...]],
) -> None:
    table = tables.table(stem, row, names)
    if table.has(row):
        found.kept += 1
        return
    try:
        values = measure()
    except _REFUSALS as reason:  # out of memory, a dtype without a kernel, a missing operator
        found.skipped.append(
            (f"{stem}: {_words(row)}", str(reason).splitlines()[0] if str(reason) else repr(reason))
        )
        return
    table.add(row, dict(zip(names, values, strict=True)))
    found.measured[stem] = found.measured.get(stem, 0) + 1


def _words(row: Row) -> str:
    return " ".join(cell for cell in row.values() if cell and cell != torch.__version__)


def _kernel_s(case: Case, timer: Timer) -> float:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if case.tf32 else "highest")
    try:
        copies = max(1, min(COPIES_MAX, int(_CACHE_BYTES / max(case.nbytes, 1.0))))
        return timer.kernel_s([case.make() for _ in range(copies)])
    finally:
        torch.set_float32_matmul_precision(before)


def _step(case: StepCase, timer: Timer) -> tuple[float | None, ...]:
    return tuple(asdict(measure_step(case, timer)).values())


def _collectives(
    wish: Wish, grid: Grid, found: Collected, tables: _Tables, timer: Timer, progress: Progress
) -> None:
    ranks = collectives.Ranks.of_environment()
    if ranks.world < 2:
        found.skipped.append(
            ("collectives", "one process: start with torchrun --nproc-per-node N -m windtunnel measure")
        )
        return
    collectives.start(ranks, timer.device)
    for case in _in_step(
        ranks, tables, collectives.collective_cases(grid, found.gpu, ranks, timer.device, wish.network)
    ):
        progress(f"collective: {_words(case.row)}")
        seconds = collectives.collective_s(case, timer)
        if ranks.rank == 0:
            tables.table(case.table, case.row, ("latency_seconds",)).add(
                case.row, {"latency_seconds": seconds}
            )
            found.measured[case.table] = found.measured.get(case.table, 0) + 1


def _in_step(
    ranks: collectives.Ranks, tables: _Tables, cases: Iterator[collectives.CollectiveCase]
) -> Iterator[collectives.CollectiveCase]:
    """The cases that the first rank has not measured yet, the same ones on every rank."""
    waiting = list(cases)
    chosen = (
        [not tables.table(c.table, c.row, ("latency_seconds",)).has(c.row) for c in waiting]
        if ranks.rank == 0
        else []
    )
    told: list[object] = [chosen]
    torch.distributed.broadcast_object_list(told, 0)
    flags = told[0]
    assert isinstance(flags, list)
    yield from (case for case, wanted in zip(waiting, flags, strict=True) if wanted)
