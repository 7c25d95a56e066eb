"""CUDA graphs: what is captured is recorded once more at each replay, as one launch without host cost.

Values: operations whose results have values (all in values mode, small integers in shadow mode) run again
at replay and refill the captured results, so static inputs written before a replay count.
What capture itself costs is not modelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.cuda.graphs
from torch.utils._pytree import tree_leaves

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
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
    """Stands for the dispatcher during capture and keeps the calls whose results have values."""

    def __init__(self, dispatcher: Dispatcher, calls: list[_Call]) -> None:
        self._dispatcher = dispatcher
        self._calls = calls

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = self._dispatcher(func, args, kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, VirtualTensor)]
        if any(result.host_values is not None for result in results):
            self._calls.append(_Call(func, args, kwargs, results))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatcher, name)


class CUDAGraph:
    """``torch.cuda.CUDAGraph`` on the card."""

    def __init__(self, keep_graph: bool = False) -> None:
        self._begin = self._end = self._op_begin = 0
        self._calls: list[_Call] = []
        self._captured = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        state = _state()
        self._calls = []
        _capturing.append(state.dispatch)
        state.dispatch = _Listening(state.dispatch, self._calls)  # type: ignore[assignment]
        self._begin, self._op_begin = len(state.recorder.events), len(state.recorder.contexts)

    def capture_end(self) -> None:
        state = _state()
        if not _capturing:
            raise RuntimeError("capture_end() called without capture_begin()")
        state.dispatch = _capturing.pop()
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


_capturing: list[Dispatcher] = []


def _state() -> State:
    return VirtualTensor.state


def is_capturing() -> bool:
    """Whether a capture is under way."""
    return bool(_capturing)


@contextlib.contextmanager
def graph(
    cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """``with torch.cuda.graph(g):``"""
    cuda_graph.capture_begin(pool, capture_error_mode)
    try:
        yield
    finally:
        cuda_graph.capture_end()


def make_graphed_callables(callables: Any, sample_args: Any, num_warmup_iters: int = 3, **_: Any) -> Any:
    """The callables themselves: run operation by operation, which is listed."""
    return callables


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the names in ``torch.cuda`` and ``torch.cuda.graphs``."""
    ungraphed = "torch.cuda.make_graphed_callables (runs ungraphed)"
    answers: dict[str, Callable[..., Any]] = {
        "graph": pretence.function("torch.cuda.graph", graph),
        "make_graphed_callables": pretence.function(ungraphed, make_graphed_callables),
        "graph_pool_handle": pretence.function("torch.cuda.graph_pool_handle", lambda: (0, 0)),
        "is_current_stream_capturing": is_capturing,
    }
    for owner in (torch.cuda, torch.cuda.graphs):
        patches.set(owner, "CUDAGraph", CUDAGraph)
        for name, answer in answers.items():
            patches.set(owner, name, answer)
    patches.set(torch.cuda.graphs, "_cuda_isCurrentStreamCapturing", is_capturing)
    patches.set(torch._C, "_cuda_isCurrentStreamCapturing", is_capturing)
