"""Handles of asynchronous collectives: waiting for one is recorded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._C._distributed_c10d import Work
from torch.utils._pytree import tree_map_only

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program import marks

ON_THE_HOST = -1
"""The number of a collective of host tensors: it is not recorded, and done when it is called."""


class VirtualWork(Work):
    """One collective under way; ``wait`` makes the current stream wait for it.

    Attributes:
        number: the recording's number of the collective; -1 where it never needs waiting for.
        arrive: what brings in values from another rank, when waited for.
    """

    def __init__(self, tensors: list[Any], number: int, arrive: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.number = number
        self.arrive = arrive
        self._tensors: Any = tensors

    def wait(self, timeout: Any = None) -> bool:
        """Make the current stream wait, once."""
        finish(self.number)
        self.let_go()
        arrive, self.arrive = self.arrive, None
        if arrive is not None:
            arrive()
        return True

    def let_go(self) -> None:
        """Keep nothing alive any more: a collective holds its tensors until it is waited for."""
        self._tensors = tree_map_only(torch.Tensor, weakref.ref, self._tensors)

    def get_future(self) -> Any:
        """What DDP's reducer reads; whoever asks holds it."""
        future: Any = torch.futures.Future()
        future.set_result(self.result())
        return future

    def is_completed(self) -> bool:
        return True

    def is_success(self) -> bool:
        return True

    def synchronize(self) -> None:
        self.wait()

    def result(self) -> Any:
        return tree_map_only(weakref.ref, lambda kept: kept(), self._tensors)


_alive: dict[int, VirtualWork] = {}


def started(tensors: list[Any], number: int, async_op: bool, arrive: Callable[[], None] | None = None) -> Any:
    """A boxed handle for the dispatcher; asynchronous ones are outstanding until somebody waits."""
    work = VirtualWork(tensors, number, arrive)
    if async_op:
        _alive[number] = work
    else:
        work.let_go()
    boxed = Work.boxed(work)
    _handles[id(boxed)] = work  # C++ holds the handle without its Python half
    if len(_handles) > _KEPT:
        _handles.pop(next(iter(_handles)))
    return boxed


_KEPT = 4096
_handles: dict[int, VirtualWork] = {}


def finish(number: int) -> None:
    """Record that the current stream waits for a collective."""
    work = _alive.pop(number, None)
    if work is not None:
        work.let_go()
        VirtualTensor.state.recorder.emit(marks.WAIT_COLLECTIVE, work=number)


def finish_all() -> None:
    """Wait for what C++ code started and waits for unseen (DDP's buckets), before an optimizer step."""
    for number in list(_alive):
        finish(number)


def forget_all() -> None:
    """At the start of a recording."""
    _alive.clear()
    _handles.clear()
