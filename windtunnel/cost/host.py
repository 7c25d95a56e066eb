"""Host time to dispatch one eager operation: Python, dispatcher, checks, allocation and the launch itself.

PyTorch spends several microseconds of host time on an eager operation, more with autograd bookkeeping inside
composite operations; a view costs about a microsecond. The dispatch part belongs to the host's processor and
to PyTorch, the launch part to the chip's driver (``Chip.launch_s``, measured).

    host = dispatch(kind) + kernels × launch
"""

from __future__ import annotations

from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip

VIEW_S = 1.2e-6
"""Metadata operations: no kernel, no allocation."""

DISPATCH_S = 4.0e-6
"""Dispatcher, TensorIterator or library set-up, output allocation. Together with a launch of 2 to 4 µs this
is the 5 to 10 µs an operation that eager PyTorch is known for on server processors (PyTorch performance
tuning guide and public launch-bound profiles): a convention, not a fit."""

LIBRARY_S = 3.0e-6
"""Added where a library chooses an algorithm: matrix products, convolutions, attention."""

HOST_COPY_S = 8.0e-6
"""Staging and bookkeeping of a copy between host and device."""

_LIBRARY = frozenset(
    {
        Family.GEMM, Family.GROUPED_GEMM, Family.CONVOLUTION, Family.ATTENTION, Family.ATTENTION_BACKWARD,
        Family.DECODE_ATTENTION, Family.DELTANET, Family.FFT, Family.LINALG, Family.SORT, Family.OPTIMIZER,
    }
)  # fmt: skip


def host_time_s(work: Work, chip: Chip) -> float:
    """Host seconds to issue ``work`` eagerly on the host of ``chip``; marks cost nothing here."""
    if work.family is Family.HOST:
        return 0.0
    if work.family is Family.VIEW or work.kernels == 0:
        return VIEW_S
    launches = work.kernels * chip.launch_s.value
    if work.family is Family.HOST_COPY:
        return HOST_COPY_S + launches
    return DISPATCH_S + (LIBRARY_S if work.family in _LIBRARY else 0.0) + launches
