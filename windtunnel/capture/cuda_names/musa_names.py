"""``torch.musa`` on a Moore Threads card: the names of torch_musa beyond the device module itself.

Mixed precision, graphs and submodules, and ``import torch_musa`` or ``torchada`` where they are not installed.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from windtunnel.capture.backend import BACKEND
from windtunnel.capture.cuda_names import graphs, namespace
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.capture.graphs import CardGraph, is_capturing
from windtunnel.capture.module import module as card


class GradScaler(torch.amp.GradScaler):
    """``torch.musa.amp.GradScaler``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(BACKEND, *args, **kwargs)


def install(patches: Patches, pretence: Pretence) -> None:
    """Add the names to ``torch.musa``; nothing on another vendor's card."""
    if pretence.native:
        return
    amp = types.ModuleType(f"torch.{BACKEND}.amp")
    amp.__dict__.update(GradScaler=GradScaler, autocast=functools.partial(torch.autocast, BACKEND))
    names: dict[str, Any] = {
        "amp": amp,
        "MUSAGraph": CardGraph,
        "graph": _graph,
        "make_graphed_callables": graphs.make_graphed_callables,
        "graph_pool_handle": lambda: (0, 0),
        "is_current_stream_capturing": is_capturing,
        "OutOfMemoryError": torch.OutOfMemoryError,
        "memory": _submodule("memory", namespace.MEMORY),
        "random": _submodule("random", namespace.RANDOM),
        "streams": _submodule("streams", ["Stream", "Event", "ExternalStream"]),
    }
    for name, value in names.items():
        patches.set(card, name, value)
    finder = _TorchMusa()
    sys.meta_path.append(finder)
    patches.later(lambda: sys.meta_path.remove(finder))


@contextmanager
def _graph(musa_graph: CardGraph, *args: Any, **kwargs: Any) -> Iterator[None]:
    with graphs.graph(musa_graph, *args, **kwargs):
        yield


def _submodule(name: str, members: Sequence[str]) -> types.ModuleType:
    module = types.ModuleType(f"torch.{BACKEND}.{name}")
    module.__dict__.update({member: getattr(card, member) for member in members})
    return module


class _TorchMusa:
    """Finds ``torch_musa`` and ``torchada`` after everything else: the card's names are there already."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name in ("torch_musa", "torchada"):
            return importlib.machinery.ModuleSpec(name, self)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        """The default module."""

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to define: ``torch.musa`` is registered."""
