"""Every row of ``step_torch`` as prediction or refusal: the collector's own step, run on the virtual card.

What a row measured on a real card with a piece of PyTorch code is predicted by recording the same code on that card's
model. Needs PyTorch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib.util import find_spec

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip
from windtunnel.timeline.predict import predict
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.reasons import NOT_MODELLED, UNKNOWN_NAME, UNREADABLE
from windtunnel.validation.rows_file import Answers, refused
from windtunnel.validation.tables import Table

Progress = Callable[[int, int], None]
UNITS = {
    "forward_seconds": "s",
    "backward_seconds": "s",
    "optimizer_seconds": "s",
    "step_seconds": "s",
    "peak_reserved_gib": "GiB",
}
SIZE_MAX = 1e7
_PLAIN = "step_seconds"


@dataclass(frozen=True, slots=True)
class _Step:
    """Predicted columns, the interval of the step as factors, and FLOPs over the data sheet's peak."""

    values: dict[str, float | None]
    low: float
    high: float
    roofline_s: float


def predict_steps(table: Table, progress: Progress = lambda done, of: None) -> Iterator[Answers]:
    """All targets of all rows. Never raises."""
    found: dict[tuple[str, str], list[tuple[int, _Step]]] = defaultdict(list)
    failed: dict[str, list[int]] = defaultdict(list)
    names = list(table.columns)
    cells = zip(*(table.text(name).tolist() for name in names), strict=True)
    for position, values in enumerate(cells):
        progress(position, len(table))
        row = dict(zip(names, values, strict=True))
        name = chip_name(row["gpu"])
        if find_spec("torch") is None:
            failed[
                f"{NOT_MODELLED}: whole steps are predicted by recording them, which needs PyTorch"
            ].append(position)
        elif name is None:
            failed[f"{UNKNOWN_NAME}: accelerator `{row['gpu']}` is not in the catalogue"].append(position)
        elif row["mode"] not in ("eager", "graph") or row["block"] not in ("llama", "moe"):
            failed[f"{UNREADABLE}: block or mode is not known"].append(position)
        else:
            try:
                found[f"{row['block']} {row['mode']}", name].append((position, _recorded(row, name)))
            except WindtunnelError as error:
                failed[f"{error.code}: {error.what}"].append(position)
            except (RuntimeError, ValueError, OverflowError, AssertionError) as error:
                text = str(error).splitlines()[0] if str(error) else repr(error)
                failed[f"{UNREADABLE}: the step cannot be run: {text}"].append(position)
    ids = ids_of(table)
    for (what, name), steps in sorted(found.items()):
        for target in UNITS:
            yield from _answers(table, ids, what, name, target, steps)
    for reason, positions in sorted(failed.items()):
        own = tuple(ids[i] for i in positions)
        measured = table.number(_PLAIN)[positions]
        yield refused(table.file, _PLAIN, table.index[positions], own, measured, reason)


def _recorded(row: dict[str, str], name: str) -> _Step:
    """The row's step on the virtual card."""
    import torch

    from windtunnel.capture.cuda_names import CudaNames
    from windtunnel.capture.session import Session
    from windtunnel.validation.measure.blocks import BlockShape
    from windtunnel.validation.measure.steps import StepCase, measure_step
    from windtunnel.validation.measure.timer import Timer

    sizes = {field.name: int(float(row[field.name] or 0)) for field in fields(BlockShape)}
    batch, sequence = int(float(row["batch"])), int(float(row["sequence"]))
    if max(*sizes.values(), batch, sequence) > SIZE_MAX:
        raise ValueError("a size is out of range")
    card = chip(name)
    with Session(card, "shadow") as session, CudaNames(session):
        case = StepCase(row["block"], BlockShape(**sizes), batch, sequence, row["mode"])
        times = measure_step(case, Timer(torch.device("cuda")))
        program = session.program(row["block"])
    result = predict(program, card)
    step = result.step_time_s
    flops_s = result.hardware_flops_per_step / card.peak_flops["bf16"].value
    values = {field: getattr(times, field) for field in UNITS}
    return _Step(values, step.low / step.value, step.high / step.value, flops_s)


def _answers(
    table: Table, ids: tuple[str, ...], what: str, name: str, target: str, steps: list[tuple[int, _Step]]
) -> Iterator[Answers]:
    known = [(position, step) for position, step in steps if step.values[target] is not None]
    if not known:
        return
    positions = [position for position, _ in known]
    value = np.array([step.values[target] for _, step in known], dtype=np.float64)
    is_memory = UNITS[target] == "GiB"
    low = value * ([1.0] * len(known) if is_memory else [step.low for _, step in known])
    high = value * ([1.0] * len(known) if is_memory else [step.high for _, step in known])
    roofline = [step.roofline_s if target == _PLAIN else np.nan for _, step in known]
    yield Answers(
        table.file, f"step, {what}", "torch", name, target, UNITS[target],
        table.index[positions], tuple(ids[i] for i in positions), value, low, high,
        table.number(target)[positions], np.array(roofline), np.ones(len(known), dtype=np.bool_),
    )  # fmt: skip
