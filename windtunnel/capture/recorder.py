"""Writes the recorded program: interned specs, the order of events, notices, steps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch

import windtunnel
from windtunnel.capture import custom
from windtunnel.capture.context import Context
from windtunnel.capture.meta import Meta
from windtunnel.capture.storage import Ledger
from windtunnel.program import kernels, marks
from windtunnel.program.count import work_of
from windtunnel.program.op import Attribute, OpSpec
from windtunnel.program.program import (
    Category,
    Notice,
    NoticeKind,
    Origin,
    Outcome,
    ProcessGroup,
    Program,
    StepMark,
)
from windtunnel.program.work import Work


class Recorder:
    """Collects what happens, in order.

    Attributes:
        events: spec numbers of operations, and negative numbers of allocations and frees.
        contexts: for each operation in ``events``, its context number.
        paused: while True nothing is recorded (values still flow).
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.events: list[int] = []
        self.contexts: list[int] = []
        self.specs: list[OpSpec] = []
        self.streams: list[str] = ["default"]
        self.groups: list[ProcessGroup] = []
        self.steps: list[StepMark] = []
        self.ledger = Ledger(self.events)
        self.paused = False
        self._spec_numbers: dict[OpSpec, int] = {}
        self._notices: Counter[tuple[NoticeKind, str, str]] = Counter()
        self._started = time.perf_counter()
        self._nothing = self.spec_number(OpSpec(marks.NOTHING))

    def spec_number(self, spec: OpSpec) -> int:
        """The interned number of a spec."""
        number = self._spec_numbers.get(spec)
        if number is None:
            number = self._spec_numbers[spec] = len(self.specs)
            self.specs.append(spec)
        return number

    def op(self, number: int) -> None:
        """An operation with this spec number happens now."""
        if not self.paused:
            self.contexts.append(self.context.number())
            self.events.append(number)

    def reserve(self) -> int:
        """Keep the place of an operation that is not known yet; unless ``fill`` follows it counts as nothing.

        The operation must stand before the allocations of its results, and those may run out of memory.
        """
        if self.paused:
            return -1
        self.contexts.append(self.context.number())
        self.events.append(self._nothing)
        return len(self.events) - 1

    def fill(self, place: int, spec: OpSpec) -> int:
        """Put the spec at a reserved place; returns its number."""
        number = self.spec_number(spec)
        if place >= 0:
            self.events[place] = number
        return number

    def forget(self, begin: int) -> None:
        """Operations from ``events[begin]`` on count as nothing; what they allocated stays."""
        self.events[begin:] = [self._nothing if event >= 0 else event for event in self.events[begin:]]

    def emit(
        self,
        name: str,
        inputs: Iterable[Meta] = (),
        outputs: Iterable[Meta] = (),
        **attributes: Attribute,
    ) -> int:
        """Record an operation that PyTorch did not dispatch: a virtual kernel or a mark."""
        spec = OpSpec(
            name,
            tuple(meta.spec for meta in inputs),
            tuple(meta.spec for meta in outputs),
            tuple(attributes.items()),
        )
        number = self.spec_number(spec)
        self.op(number)
        return number

    def replay(self, begin: int, end: int, op_begin: int) -> None:
        """Record the operations of ``events[begin:end]`` once more (a captured graph is launched).

        ``op_begin`` is the number of operations before ``begin``. Their memory was allocated at capture.
        """
        ops = [event for event in self.events[begin:end] if event >= 0]
        self.contexts.extend(self.contexts[op_begin : op_begin + len(ops)])
        self.events.extend(ops)

    def notice(self, kind: NoticeKind, what: str) -> None:
        """Something done on the user's behalf, at the current line."""
        self._notices[kind, what, str(self.context.current_line())] += 1

    def notices(self) -> list[Notice]:
        """What was done on the user's behalf, in order of first appearance."""
        return [Notice(kind, what, line, n) for (kind, what, line), n in self._notices.items()]

    def work_of(self, spec: OpSpec) -> Work:
        """The work of an operation: as registered by the user, or as counted."""
        name = spec.attribute("kernel") if spec.base_name == kernels.CUSTOM else spec.base_name
        return custom.costs().get(str(name), work_of)(spec)

    def program(self, origin: Origin) -> Program:
        """Everything recorded so far as a program."""
        events = np.array(self.events, dtype=np.int64)
        contexts = np.array(self.contexts, dtype=np.int64)
        places = np.array(self.context.places or [(0, 0, 0, 0)], dtype=np.int64)
        is_op = events >= 0
        pairs = events[is_op] * max(len(places), 1) + contexts
        unique, inverse = np.unique(pairs, return_inverse=True)
        sites = np.empty((len(unique), 5), dtype=np.int64)
        sites[:, 0] = unique // len(places)
        sites[:, 1:] = places[unique % len(places)]
        events[is_op] = inverse
        return Program(
            origin=origin,
            specs=list(self.specs),
            works=[self.work_of(spec) for spec in self.specs],
            sites=sites,
            events=events,
            storage_bytes=np.array(self.ledger.sizes, dtype=np.int64),
            storage_category=self._categories(),
            scopes=list(self.context.scopes),
            lines=list(self.context.lines),
            streams=list(self.streams),
            groups=list(self.groups),
            steps=list(self.steps),
            notices=self.notices(),
        )

    def origin(
        self,
        *,
        script: str,
        argv: tuple[str, ...],
        chip: str,
        mode: str,
        outcome: Outcome,
        outcome_detail: str = "",
        routing: str = "",
        parameters: int = 0,
        allow_tf32: bool | None = None,
        world_size: int = 1,
        rank: int = 0,
    ) -> Origin:
        """The origin of this recording."""
        return Origin(
            script=script,
            argv=argv,
            chip=chip,
            mode=mode,
            torch_version=str(torch.__version__),
            windtunnel_version=windtunnel.__version__,
            recorded_s=time.perf_counter() - self._started,
            outcome=outcome,
            outcome_detail=outcome_detail,
            routing=routing,
            parameters=parameters,
            allow_tf32=allow_tf32,
            world_size=world_size,
            rank=rank,
        )

    def _categories(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        categories = np.full(len(self.ledger.sizes), Category.OTHER, dtype=np.int64)
        for number, category in self.ledger.categories.items():
            categories[number] = category
        return categories
