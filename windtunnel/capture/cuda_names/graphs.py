"""``torch.cuda.CUDAGraph``, ``graph`` and their relatives: the card's graphs under CUDA names."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.cuda.graphs

from windtunnel.capture.cuda_names.patching import Patches
from windtunnel.capture.cuda_names.pretence import Pretence
from windtunnel.capture.graphs import CardGraph, is_capturing


@contextlib.contextmanager
def graph(
    cuda_graph: CardGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
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
        patches.set(owner, "CUDAGraph", CardGraph)
        for name, answer in answers.items():
            patches.set(owner, name, answer)
    patches.set(torch.cuda.graphs, "_cuda_isCurrentStreamCapturing", is_capturing)
    patches.set(torch._C, "_cuda_isCurrentStreamCapturing", is_capturing)
