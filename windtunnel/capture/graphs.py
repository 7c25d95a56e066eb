"""Graphs of kernels: what is captured is recorded once more at each replay, as one launch without host cost.

Values: operations whose results have values (all in values mode, small integers in shadow mode) run again
at replay and refill the captured results, so static inputs written before a replay count.
What capture itself costs is not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from windtunnel.capture.dispatch import Dispatcher
from windtunnel.capture.state import State
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program import marks


@dataclass(slots=True)
class _Call:
    """An operation to run again, and the results to refill."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[VirtualTensor]


class _Listening:
    """Stands for the dispatcher during capture and keeps the calls whose results have values.

    A capture computes nothing on a real card: what it wrote to is put back at its end.
    """

    def __init__(self, dispatcher: Dispatcher, calls: list[_Call]) -> None:
        self._dispatcher = dispatcher
        self._calls = calls
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def put_back(self) -> Dispatcher:
        """The values from before the capture again; answers the dispatcher that it stood for."""
        for values, before in self._before.values():
            values.copy_(before)
        return self._dispatcher

    def _keep(self, written: Any) -> None:
        values = written.host_values if isinstance(written, VirtualTensor) else None
        if values is not None and values.data_ptr() not in self._before:
            self._before[values.data_ptr()] = values, values.clone()

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for index, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[index] if index < len(args) else kwargs.get(argument.name)
                for written in tree_leaves(given):
                    self._keep(written)
        out = self._dispatcher(func, args, kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, VirtualTensor)]
        if any(result.host_values is not None for result in results):
            self._calls.append(_Call(func, args, kwargs, results))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher, name)


class CardGraph:
    """Kernels captured once and launched together, as ``torch.cuda.CUDAGraph`` does."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._begin = self._end = self._op_begin = 0
        self._calls: list[_Call] = []
        self._captured = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        state = _state()
        self._calls = []
        listening = _Listening(state.dispatch, self._calls)
        _capturing.append(listening)
        state.dispatch = listening  # type: ignore[assignment]
        self._begin, self._op_begin = len(state.recorder.events), len(state.recorder.contexts)

    def capture_end(self) -> None:
        state = _state()
        if not _capturing:
            raise RuntimeError("capture_end() called without capture_begin()")
        state.dispatch = _capturing.pop().put_back()
        self._end = len(state.recorder.events)
        self._captured = True

    def instantiate(self) -> None:
        """Nothing to prepare."""

    def replay(self) -> None:
        """Launch the captured kernels.

        Raises:
            RuntimeError: nothing was captured.
        """
        if not self._captured:
            raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
        state = _state()
        kernels = sum(event >= 0 for event in state.recorder.events[self._begin : self._end])
        state.recorder.emit(marks.GRAPH_LAUNCH, kernels=kernels)
        state.recorder.replay(self._begin, self._end, self._op_begin)
        state.recorder.emit(marks.GRAPH_END)
        self._compute(state)

    def reset(self) -> None:
        """Forget what was captured."""
        self._captured = False
        self._calls = []

    def pool(self) -> tuple[int, int]:
        return (0, id(self))

    def enable_debug_mode(self) -> None:
        """There is nothing to dump."""

    def debug_dump(self, debug_path: str) -> None:
        """There is nothing to dump."""

    def raw_cuda_graph(self) -> int:
        return id(self)

    def _compute(self, state: State) -> None:
        recorder = state.recorder
        paused, recorder.paused = recorder.paused, True
        try:
            for call in self._calls:
                again = state.dispatch(call.func, call.args, call.kwargs)
                fresh = [t for t in tree_leaves(again) if isinstance(t, VirtualTensor)]
                for captured, new in zip(call.results, fresh):
                    _refill(captured, new)
        finally:
            recorder.paused = paused


def _refill(captured: VirtualTensor, new: VirtualTensor) -> None:
    target, values = captured.elem, new.host_values
    if captured is new or target is None or values is None or target.data_ptr() == values.data_ptr():
        return
    target.copy_(values)


_capturing: list[_Listening] = []


def _state() -> State:
    return VirtualTensor.state


def is_capturing() -> bool:
    """Whether a capture is under way."""
    return bool(_capturing)


class NeutralGraph(CardGraph):
    """``torch.accelerator.Graph``: the same under its vendor-neutral name, itself the context of a capture."""

    def __init__(
        self, keep_graph: bool = False, *, pool: Any = None, capture_error_mode: str = "default"
    ) -> None:
        super().__init__(keep_graph)

    def __enter__(self) -> None:
        self.capture_begin()

    def __exit__(self, *_: Any) -> None:
        self.capture_end()
