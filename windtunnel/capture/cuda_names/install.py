"""Puts all redirections in place for one session, and takes them away again."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from windtunnel.capture.cuda_names import (
    amp,
    around,
    backends,
    data_parallel,
    graphs,
    kernels,
    movement,
    namespace,
    nvtx,
    pinned_factories,
    spoken,
    streams,
    telemetry,
)
from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.capture.session import Session

_PARTS = (
    namespace,
    streams,
    telemetry,
    nvtx,
    graphs,
    backends,
    amp,
    around,
    movement,
    data_parallel,
    pinned_factories,
    kernels,
    spoken,
)


class CudaNames:
    """The redirections of one session. Install after ``Session.install``; also a context manager."""

    def __init__(self, session: Session) -> None:
        self.pretence = Pretence(session)
        self._patches = Patches()

    def install(self) -> CudaNames:
        """Redirect every name."""
        for part in _PARTS:
            part.install(self._patches, self.pretence)
        if not self.pretence.native:
            finder = _TorchMusa()
            sys.meta_path.append(finder)
            self._patches.later(lambda: sys.meta_path.remove(finder))
        return self

    def remove(self) -> None:
        """Put PyTorch's own names back."""
        self._patches.restore()

    def __enter__(self) -> CudaNames:
        return self.install()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()


class _TorchMusa:
    """Lets scripts ``import torch_musa`` or ``import torchada`` where they are not installed: the card's
    names are there already."""

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
