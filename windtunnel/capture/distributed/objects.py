"""Collectives of Python objects: those of ranks that do not run equal one's own."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from windtunnel.capture.distributed import real
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


def _ranks(group: Any) -> list[int]:
    return dist.get_process_group_ranks(group if group is not None else c10d._get_default_group())


def _root(group: Any, rank: int | None, group_rank: int | None) -> int:
    """Position of the root in its group."""
    return group_rank if group_rank is not None else _ranks(group).index(rank or 0)


def _all_gather(object_list: list[Any], obj: Any, group: Any = None) -> None:
    if real.is_on():
        object_list[:] = real.everybody(_ranks(group), obj)
        return
    _note("all_gather_object")
    object_list[:] = [obj] * len(object_list)


def _gather(obj: Any, object_gather_list: Any = None, dst: Any = None, group: Any = None, **_: Any) -> None:
    if real.is_on():
        brought = real.everybody(_ranks(group), obj)
        if object_gather_list is not None:
            object_gather_list[:] = brought
        return
    _note("gather_object")
    if object_gather_list is not None:
        object_gather_list[:] = [obj] * len(object_gather_list)


def _broadcast(
    object_list: list[Any], src: Any = None, group: Any = None, device: Any = None, group_src: Any = None
) -> None:
    if real.is_on():
        object_list[:] = real.everybody(_ranks(group), object_list)[_root(group, src, group_src)]
        return
    _note("broadcast_object_list")


def _scatter(
    output: list[Any], inputs: Any = None, src: Any = None, group: Any = None, group_src: Any = None
) -> None:
    if real.is_on():
        ranks = _ranks(group)
        output[0] = real.everybody(ranks, inputs)[_root(group, src, group_src)][ranks.index(dist.get_rank())]
        return
    _note("scatter_object_list")
    if inputs:
        output[0] = inputs[dist.get_rank(group)]
