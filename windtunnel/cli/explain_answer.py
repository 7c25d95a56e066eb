"""What `windtunnel explain` prints: the prediction, then what it is made of."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass

from windtunnel import units
from windtunnel.cli import output
from windtunnel.report.text_table import Shorten, TextColumn, render
from windtunnel.validation.explain.collective import CollectiveWhy
from windtunnel.validation.explain.kernel import Input, KernelWhy
from windtunnel.validation.explain.memory import MemoryWhy
from windtunnel.validation.explain.operations import OpWhy, StepWhy, Why
from windtunnel.validation.explain.points import Near
from windtunnel.validation.explain.row import RowWhy, TargetAnswer

PARAMETERS_PER_LINE = 6


def show_kernel(args: argparse.Namespace, why: KernelWhy, where: str) -> None:
    """One kernel."""
    _show(args, "kernel", why, where, _kernel(why, where))


def show_collective(args: argparse.Namespace, why: CollectiveWhy, where: str) -> None:
    """One collective."""
    _show(args, "collective", why, where, _collective(why, where))


def show_step(args: argparse.Namespace, why: StepWhy, where: str) -> None:
    """A recording's step."""
    _show(args, "step", why, where, _step(why, where))


def show_row(args: argparse.Namespace, why: RowWhy, where: str) -> None:
    """A row of a table."""
    lines = [f"{why.file} row {why.row}"]
    stated = "; ".join(f"{name} {cell}" for name, cell in why.stated)
    lines += output.wrapped(stated, output.width(), "  ")
    lines += [_target(answer) for answer in why.answers]
    for part in why.parts:
        lines += ["", *_why(part, where)]
    if why.step is not None:
        lines += ["", *_step(why.step, where)]
    if why.memory is not None:
        lines += ["", *_memory(why.memory)]
    _show(args, "row", why, where, lines)


def _show(args: argparse.Namespace, kind: str, why: object, where: str, lines: Iterable[str]) -> None:
    if args.json:
        data = {"kind": kind, "nearest_points_from": where, kind: _plain(why)}
        output.print_json(output.success("explain", data))
    else:
        output.print_lines(lines)


def _plain(why: object) -> object:
    """Dataclasses as objects; pairs of name and number as one object."""
    assert is_dataclass(why)
    assert not isinstance(why, type)
    return asdict(why)


def _target(answer: TargetAnswer) -> str:
    if answer.prediction is None:
        return f"  {answer.target}: not predicted: {answer.reason}"
    text = f"  {answer.target}: {answer.prediction:.5g} {answer.unit}"
    if answer.low is not None and answer.high is not None:
        text += f", 80 % interval {answer.low:.5g} to {answer.high:.5g}"
    if answer.measured:
        text += f"; measured {answer.measured:.5g} ({answer.prediction / answer.measured - 1:+.1%})"
    if answer.baseline is not None:
        text += f"; data sheet alone {answer.baseline:.5g}"
    return text


def _why(why: Why, where: str) -> list[str]:
    return _kernel(why, where) if isinstance(why, KernelWhy) else _collective(why, where)


def _interval(value_s: float, low_s: float, high_s: float, source: str, limit: str) -> str:
    return (
        f"  {units.seconds(value_s)}, 80 % interval {units.seconds(low_s)} to {units.seconds(high_s)}; "
        f"{source}; bound by {limit}"
    )


def _kernel(why: KernelWhy, where: str) -> list[str]:
    dims = " ".join(f"{name} {value:g}" for name, value in why.dims)
    rate = f", {units.decimal(why.flops / why.seconds, 'FLOP/s')}" if why.flops else ""
    moved = units.decimal(why.bytes_moved, "B")
    work = f"{units.decimal(why.flops, 'FLOP')}, {moved}" if why.flops else moved
    lines = [
        f"{why.what} {why.path} on {why.chip}: {dims}",
        _interval(why.seconds, why.low_s, why.high_s, str(why.source), why.limit),
        f"  work: {work}{rate}, {units.decimal(why.bytes_moved / why.seconds, 'B/s')}",
        *output.wrapped(f"formula: {why.formula}", output.width(), "  "),
        f"  data sheet alone (roofline): {units.seconds(why.roofline_s)}",
        *_inputs(why.inputs),
    ]
    fit = why.fit
    if fit.rows:
        place = f"on {fit.chip}" if fit.chip else ""
        whose = " ".join(word for word in (fit.path, fit.library, place) if word)
        error = "" if math.isnan(fit.error_median) else (
            f"; error on shapes left out {fit.error_median:.1%} median, {fit.error_p90:.1%} at p90"
        )  # fmt: skip
        text = f"fit: {fit.relation}: {whose}, {fit.rows:,} rows of {fit.tables}{error}"
    else:
        text = f"fit: {fit.relation}"
    lines += output.wrapped(text, output.width(), "  ")
    values = "  ".join(f"{name} {value:.4g}" for name, value in fit.parameters)
    lines += output.wrapped(f"parameters: {values}", output.width(), "  ")
    ranges = ", ".join(
        f"{r.name} {r.value:g} {'in' if r.inside else 'OUTSIDE'} {r.low:g} to {r.high:g}" for r in why.ranges
    )
    lines += output.wrapped(f"fitted range: {ranges or 'none'}", output.width(), "  ")
    return [*lines, *_near(why.near, why.near_predicted_s, why.chip, where)]


def _collective(why: CollectiveWhy, where: str) -> list[str]:
    place = f"{why.ranks} cards" + (f" on {why.nodes} nodes" if why.nodes > 1 else "")
    return [
        f"{why.what} of {units.binary_bytes(why.message_bytes)} on {why.chip}, {place}",
        _interval(why.seconds, why.low_s, why.high_s, str(why.source), why.limit),
        f"  bus bandwidth {units.decimal(why.bus_bytes_per_s, 'B/s')}; algorithm {why.algorithm}",
        *output.wrapped(f"formula: {why.formula}", output.width(), "  "),
        *_inputs(why.inputs),
        *output.wrapped(_measured_range(why), output.width(), "  "),
        *_near(why.near, why.near_predicted_s, why.chip, where),
    ]


def _measured_range(why: CollectiveWhy) -> str:
    asked = {"ranks": float(why.ranks), "nodes": float(why.nodes), "bytes": why.message_bytes}
    parts = [
        f"{name} {asked[name]:g} {'in' if low <= asked[name] <= high else 'OUTSIDE'} {low:g} to {high:g}"
        for name, low, high in why.ranges
    ]
    where = f" on {why.near.point.chip}" if why.near else ""
    return f"measured range{where}: {', '.join(parts) or 'none'}"


def _inputs(inputs: Iterable[Input]) -> list[str]:
    columns = (
        TextColumn("input"), TextColumn("value", right=True), TextColumn("+1 % moves", right=True),
        TextColumn("trust", rank=2), TextColumn("source", rank=1, shorten=Shorten.TAIL, least=16),
    )  # fmt: skip
    rows = [
        (i.name, f"{i.value:.4g} {i.unit}".removesuffix(" 1"), f"{i.moves:+.2f} %", i.trust, i.source)
        for i in inputs
    ]
    return [f"  {line}" for line in render(columns, rows, output.width() - 2)] if rows else []


def _near(near: Near | None, predicted_s: float | None, chip: str, where: str) -> list[str]:
    if near is None:
        return output.wrapped(
            f"nearest measured: none on this chip or its relatives among {where}", output.width(), "  "
        )
    point = near.point
    shape = " ".join(f"{name} {value:g}" for name, value in point.dims)
    far = "the same shape" if near.factor < 1.005 else f"dimensions within {near.factor:.3g} ×"
    if not near.same_path:
        far += ", another kernel path"
    elsewhere = "" if point.chip == chip else f" on its relative {point.chip}"
    whole = f", {point.kernels} kernels together" if point.kernels > 1 else ""
    path = " ".join(word for word in (point.path, point.library) if word)
    text = f"nearest measured: {units.seconds(point.seconds)}{elsewhere} ({path}: {shape}{whole}; {far})"
    if predicted_s is not None:
        error = predicted_s / point.seconds - 1
        text += f", predicted there {units.seconds(predicted_s)} ({error:+.1%})"
    text += f"; {point.file} row {point.row}, {where}"
    return output.wrapped(text, output.width(), "  ")


def _step(why: StepWhy, where: str) -> list[str]:
    rests = ", ".join(f"{share:.0%} {source}" for source, share in why.sources)
    lines = [
        f"step on {why.chip}: {units.seconds(why.seconds)}, 80 % interval {units.seconds(why.low_s)} to "
        f"{units.seconds(why.high_s)}; rests on {rests}"
    ]
    for note in why.notes:
        lines += output.wrapped(note, output.width(), "  ")
    lines.append(f"  {len(why.operations)} of {why.distinct} distinct operations, longest first")
    for number, operation in enumerate(why.operations, 1):
        lines += ["", *_operation(number, operation, where)]
    return lines


def _memory(why: MemoryWhy) -> list[str]:
    kind = "reserved" if why.reserved else "allocated"
    columns = (
        TextColumn("part"), TextColumn("bytes", right=True), TextColumn("share", right=True),
        TextColumn("formula", rank=1, shorten=Shorten.TAIL, least=24),
    )  # fmt: skip
    rows = [
        (part.name, units.binary_bytes(part.nbytes), f"{part.nbytes / why.nbytes:.1%}", part.formula)
        for part in why.parts
    ]
    return [
        f"peak of {kind} memory on {why.chip}: {units.binary_bytes(why.nbytes)}",
        *output.wrapped(f"formula: {why.formula}", output.width(), "  "),
        *(f"  {line}" for line in render(columns, rows, output.width() - 2)),
        *(line for note in why.notes for line in output.wrapped(note, output.width(), "  ")),
    ]


def _operation(number: int, operation: OpWhy, where: str) -> list[str]:
    head = (
        f"{number}. {operation.name}  {operation.shapes}: {operation.count:,.0f} × "
        f"{units.seconds(operation.seconds / operation.count)} = {units.seconds(operation.seconds)}, "
        f"{operation.share:.1%} of the time on the card"
    )
    lines = output.wrapped(head, output.width())
    return [*lines, *(f"  {line}" for line in _why(operation.why, where))] if operation.why else lines
