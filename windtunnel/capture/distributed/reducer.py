"""What DistributedDataParallel's C++ reducer cannot do here: look for unused parameters, static graphs.

Both copy a map of used parameters through pinned memory that only C++ backends can give. The map is a small
all-reduce; without the search every parameter must get a gradient, or PyTorch says so at the next step.
"""

from __future__ import annotations

import functools
from typing import Any

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind


def install() -> None:
    """Take both options off, and say so."""
    from torch.nn.parallel import DistributedDataParallel

    wrapped: Any = DistributedDataParallel
    start = wrapped.__init__

    @functools.wraps(start)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        for option in ("find_unused_parameters", "static_graph"):
            if kwargs.get(option):
                kwargs[option] = False
                VirtualTensor.state.recorder.notice(
                    NoticeKind.SKIPPED,
                    f"{option}=True of DistributedDataParallel: its small all-reduce is left out",
                )
        start(self, *args, **kwargs)

    wrapped.__init__ = init
    wrapped._set_static_graph = lambda self: None
