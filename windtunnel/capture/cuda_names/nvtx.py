"""NVTX ranges and the CUDA profiler's switches: accepted, and without effect on the recording."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.cuda.nvtx
import torch.cuda.profiler

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence


def install(patches: Patches, pretence: Pretence) -> None:
    """Replace the functions of ``torch.cuda.nvtx`` and ``torch.cuda.profiler``."""
    depth = [0]

    def range_push(message: str) -> int:
        depth[0] += 1
        return depth[0] - 1

    def range_pop() -> int:
        depth[0] = max(0, depth[0] - 1)
        return depth[0]

    answers: dict[str, Callable[..., Any]] = {
        "range_push": range_push,
        "range_pop": range_pop,
        "range_start": lambda message: 0,
        "range_end": lambda range_id: None,
        "mark": lambda message: None,
        "range": _range,
    }
    for name, answer in answers.items():
        patches.set(torch.cuda.nvtx, name, pretence.function(f"torch.cuda.nvtx.{name}", answer))
    for name in ("start", "stop"):
        switch = pretence.function(f"torch.cuda.profiler.{name}", lambda: 0)
        patches.set(torch.cuda.profiler, name, switch)
    patches.set(torch.cuda.profiler, "profile", contextlib.nullcontext)
    # emit_nvtx() asks the profiler built into PyTorch for NVTX, which a CPU build lacks
    patches.set(torch.autograd.profiler, "emit_nvtx", _emit_nvtx)


@contextlib.contextmanager
def _range(message: str, *args: Any, **kwargs: Any) -> Iterator[None]:
    yield


@functools.wraps(torch.autograd.profiler.emit_nvtx)
def _emit_nvtx(*args: Any, **kwargs: Any) -> Any:
    return contextlib.nullcontext()
