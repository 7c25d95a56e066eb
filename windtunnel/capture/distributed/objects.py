"""Collectives of Python objects: those of ranks that do not run equal one's own."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import NoticeKind


def install() -> None:
    """Replace the object collectives in ``torch.distributed``."""
    for module in (dist, c10d):
        target: Any = module
        target.all_gather_object = _all_gather
        target.gather_object = _gather
        target.broadcast_object_list = _broadcast
        target.scatter_object_list = _scatter


def _note(what: str) -> None:
    VirtualTensor.state.recorder.notice(
        NoticeKind.ASSUMED, f"{what}: objects of other ranks were taken to equal this rank's"
    )


def _all_gather(object_list: list[Any], obj: Any, group: Any = None) -> None:
    _note("all_gather_object")
    object_list[:] = [obj] * len(object_list)


def _gather(obj: Any, object_gather_list: Any = None, dst: Any = None, group: Any = None, **_: Any) -> None:
    _note("gather_object")
    if object_gather_list is not None:
        object_gather_list[:] = [obj] * len(object_gather_list)


def _broadcast(object_list: list[Any], src: Any = None, group: Any = None, **_: Any) -> None:
    _note("broadcast_object_list")


def _scatter(output: list[Any], inputs: Any = None, src: Any = None, group: Any = None, **_: Any) -> None:
    _note("scatter_object_list")
    if inputs:
        output[0] = inputs[dist.get_rank(group)]
