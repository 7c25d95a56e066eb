"""Does a program contradict itself? Run on everything that comes from a file, before anything uses it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import Category, Phase, Program, Site
from windtunnel.program.work import Work

_MOST = 1e30  # more work than any card can do: sums stay finite


class Inconsistent(Exception):
    """What is wrong, in words that finish the sentence "the file contradicts itself: ..."."""


def check_program(program: Program) -> None:
    """Raise ``Inconsistent`` unless every index, size and number of a program makes sense."""
    if len(program.works) != len(program.specs):
        raise Inconsistent("operations and their work differ in number")
    for spec in program.specs:
        _check_spec(spec)
    for work in program.works:
        _check_work(work)
    _check_sites(program)
    _check_events(program)
    _check_steps(program)


def _check_sites(program: Program) -> None:
    sites = program.sites
    if sites.ndim != 2 or sites.shape[1] != len(Site._fields):
        raise Inconsistent("sites do not have five columns")
    sizes = (len(program.specs), len(program.streams), len(program.scopes), len(program.lines), len(Phase))
    for column, (name, size) in enumerate(zip(Site._fields, sizes)):
        _in_range(sites[:, column], 0, size, f"{name} of a site")


def _check_events(program: Program) -> None:
    storages = len(program.storage_bytes)
    _in_range(program.events, -2 * storages, len(program.sites), "an event")
    if len(program.storage_category) != storages:
        raise Inconsistent("storages and their categories differ in number")
    _in_range(program.storage_category, 0, len(Category), "a storage's category")
    _in_range(program.storage_bytes, 0, 1 << 60, "a storage's size")


def _check_steps(program: Program) -> None:
    for step in program.steps:
        if not 0 <= step.begin <= step.end <= len(program.events):
            raise Inconsistent("a step lies outside the events")
        if step.tokens < 0 or step.samples < 0:
            raise Inconsistent("a step has a negative number of tokens")
    for group in program.groups:
        if not group.ranks or min(group.ranks) < 0:
            raise Inconsistent("a process group has no ranks")


def _check_spec(spec: OpSpec) -> None:
    if not spec.name:
        raise Inconsistent("an operation has no name")
    for tensor in (*spec.inputs, *spec.outputs):
        _check_tensor(tensor)


def _check_tensor(tensor: TensorSpec) -> None:
    if any(size < 0 for size in tensor.shape):
        raise Inconsistent("a tensor has a negative size")
    if tensor.stride and len(tensor.stride) != len(tensor.shape):
        raise Inconsistent("a tensor has strides for other dimensions than its own")


def _check_work(work: Work) -> None:
    numbers = (work.flops, work.vector_flops, work.bytes_read, work.bytes_written, float(work.kernels))
    if not all(0 <= number <= _MOST for number in (*numbers, *(size for _, size in work.dims))):
        raise Inconsistent("an operation's work is not a number of zero or more")


def _in_range(values: npt.NDArray[np.int64], low: int, high: int, what: str) -> None:
    if values.size and not (low <= int(values.min()) and int(values.max()) < high):
        raise Inconsistent(f"{what} is out of range")
