"""A recorded program: what one rank did, in order, columnar and interned. No PyTorch, no prices.

One list of integers, ``events``, holds the order of everything; all else is looked up by number:

    events[i] >= 0             site number: an operation (device kernel, view, collective or mark) was issued
    events[i] = -(2 * s + 1)   storage ``s`` was allocated on the device (by the operation before it)
    events[i] = -(2 * s + 2)   storage ``s`` was freed

A site is an operation at a place: (spec, stream, scope, line, phase). Storages are numbered in the order of
their allocation; ``storage_bytes[s]`` is the size asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from windtunnel.program.op import OpSpec
from windtunnel.program.work import Work

SCHEMA_VERSION = 1


class Phase(IntEnum):
    """What the script was doing when an operation was issued."""

    OTHER = 0
    FORWARD = 1
    BACKWARD = 2
    OPTIMIZER = 3
    RECOMPUTE = 4  # forward code run again inside backward (activation checkpointing)


class Category(IntEnum):
    """What a storage holds, for memory by category."""

    OTHER = 0
    PARAMETER = 1
    GRADIENT = 2
    OPTIMIZER_STATE = 3
    ACTIVATION = 4
    INPUT = 5
    KV_CACHE = 6
    TEMPORARY = 7
    COMMUNICATION = 8


class StepKind(StrEnum):
    """What ends a step, and so what ``step_time_s`` means."""

    TRAIN = "train"  # up to and including optimizer.step()
    PREFILL = "prefill"  # an outermost forward with more than one token per sequence
    DECODE = "decode"  # an outermost forward with one token per sequence
    FORWARD = "forward"  # an outermost forward of a model without a cache
    SCRIPT = "script"  # no step found: everything


class NoticeKind(StrEnum):
    """What a run did on the user's behalf; all of it is listed at the end."""

    PRETENDED = "pretended"  # a CUDA name answered by a card that is none
    ASSUMED = "assumed"  # a value that does not exist in shadow mode was answered by policy
    DRAWN = "drawn"  # router indices drawn from --routing
    UNPRICED = "unpriced"  # no cost model: priced from bytes
    FALLBACK = "fallback"  # the chip takes a slower path for this
    SKIPPED = "skipped"  # left out of the recording


class Site(NamedTuple):
    """An operation at a place in the program; each field is an index into the program's tables."""

    spec: int
    stream: int
    scope: int
    line: int
    phase: int


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of the user's code. ``line`` 0: no frame of the user was on the stack."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class StepMark:
    """One complete step: ``events[begin:end]``.

    ``tokens``: tokens of this rank (ids embedded); ``samples``: leading dimension of the model's input;
    0 where unknown. ``model`` is the class name of the outermost module.
    """

    kind: StepKind
    begin: int
    end: int
    tokens: int = 0
    samples: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something pretended, assumed or skipped: what, where and how often."""

    kind: NoticeKind
    what: str
    line: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The ranks of one communicator, in group order, and the backend asked for."""

    ranks: tuple[int, ...]
    backend: str = ""
    label: str = ""


class Outcome(StrEnum):
    """How the recording ended."""

    COMPLETE = "complete"
    OUT_OF_MEMORY = "out_of_memory"
    SCRIPT_ERROR = "script_error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a program came from."""

    script: str
    argv: tuple[str, ...] = ()
    chip: str = ""  # the chip whose rules (attention paths, memory) held while recording
    world_size: int = 1
    rank: int = 0
    mode: str = "shadow"
    torch_version: str = ""
    windtunnel_version: str = ""
    recorded_s: float = 0.0  # host seconds that recording took
    outcome: Outcome = Outcome.COMPLETE
    outcome_detail: str = ""
    routing: str = ""
    # one number per figure that the script's own model reveals; 0 where unknown
    parameters: int = 0
    model_flops_per_token: float = 0.0
    allow_tf32: bool | None = None  # whether FP32 products may run in TF32, where the script said so


@dataclass(slots=True, kw_only=True)
class Program:
    """Everything one rank did. Arrays are int64 unless said otherwise.

    Attributes:
        sites: shape (sites, 5), columns as in ``Site``.
        events: shape (events,), see the module docstring.
        storage_bytes: shape (storages,). storage_category: shape (storages,), values of ``Category``.
        streams: label of each stream; 0 is the default stream.
        scopes: module path of each scope, ``""`` for outside any module.
    """

    origin: Origin
    specs: list[OpSpec]
    works: list[Work]
    sites: npt.NDArray[np.int64]
    events: npt.NDArray[np.int64]
    storage_bytes: npt.NDArray[np.int64]
    storage_category: npt.NDArray[np.int64]
    scopes: list[str]
    lines: list[SourceLine]
    streams: list[str] = field(default_factory=lambda: ["default"])
    groups: list[ProcessGroup] = field(default_factory=list)
    steps: list[StepMark] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    @property
    def num_ops(self) -> int:
        """Operations issued: views and marks included, allocations not."""
        return int((self.events >= 0).sum())

    def site(self, number: int) -> Site:
        """The site as names."""
        return Site(*(int(value) for value in self.sites[number]))

    def last_step(self) -> StepMark:
        """The last complete step, or the whole recording when there is none."""
        if self.steps:
            return self.steps[-1]
        return StepMark(StepKind.SCRIPT, 0, len(self.events))


def allocation_event(storage: int) -> int:
    """The event number of the allocation of ``storage``."""
    return -(2 * storage + 1)


def free_event(storage: int) -> int:
    """The event number of the freeing of ``storage``."""
    return -(2 * storage + 2)


def storage_of(event: int) -> tuple[int, bool]:
    """Storage number of a negative event, and whether it is a free."""
    return (-event - 1) >> 1, bool((-event - 1) & 1)
