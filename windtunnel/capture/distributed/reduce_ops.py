"""Which reduction a script asked for: PyTorch boxes it on the way to the dispatcher, unreadably."""

from __future__ import annotations

import functools
from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

_NAMES = (
    "all_reduce",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "reduce_scatter_single",
    "all_reduce_coalesced",
)
_current: list[Any] = []


def install() -> None:
    """Note the ``op`` argument of reducing collectives while they run."""
    for name in _NAMES:
        original = getattr(c10d, name, None)
        if original is not None:
            noted = _noting(original)
            setattr(c10d, name, noted)
            setattr(dist, name, noted)


def current() -> str:
    """The name of the reduction of the collective under way."""
    if not _current:
        return "SUM"
    operation = _current[-1]
    return str(getattr(operation, "op", operation)).rpartition(".")[2]


def _noting(original: Any) -> Any:
    @functools.wraps(original)
    def noted(*args: Any, **kwargs: Any) -> Any:
        positional = next((a for a in args if isinstance(a, (dist.ReduceOp, dist.ReduceOp.RedOpType))), None)
        _current.append(kwargs.get("op", positional or dist.ReduceOp.SUM))
        try:
            return original(*args, **kwargs)
        finally:
            _current.pop()

    return noted
