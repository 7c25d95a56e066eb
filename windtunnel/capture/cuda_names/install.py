"""Puts all redirections in place for one session, and takes them away again."""

from __future__ import annotations

from types import TracebackType

from windtunnel.capture.cuda_names import (
    amp,
    around,
    backends,
    data_parallel,
    graphs,
    kernels,
    movement,
    musa_names,
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
    musa_names,
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
