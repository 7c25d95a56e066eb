"""Collectives of Python objects: they travel among recorded ranks; those of others equal one's own."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from windtunnel.capture.distributed import rendezvous
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


def _group(group: Any) -> Any:
    return group if group is not None else c10d._get_default_group()


def _root(group: Any, rank: int | None, group_rank: int | None) -> int:
    """The root's number in the world."""
    return int(rank or 0) if group_rank is None else rendezvous.ranks_of(_group(group))[group_rank]


def _everybodys(what: str, obj: Any, group: Any) -> list[Any] | None:
    """What each rank of the group has; None where they are not all recorded, and one's own is all there is."""
    meeting = rendezvous.current()
    if meeting is not None and meeting.everybody:
        return meeting.all(_group(group), what, obj)
    if meeting is not None:
        meeting.pass_by(_group(group))
    _note(what)
    return None


def _of_root(what: str, objects: Any, group: Any, root: int) -> Any:
    """What the root has, or ``NOBODY_THERE``."""
    meeting = rendezvous.current()
    found = rendezvous.NOBODY_THERE if meeting is None else meeting.root(_group(group), root, what, objects)
    if found is rendezvous.NOBODY_THERE:
        _note(what)
    return found


def _all_gather(object_list: list[Any], obj: Any, group: Any = None) -> None:
    found = _everybodys("all_gather_object", obj, group)
    object_list[:] = found if found is not None else [obj] * len(object_list)


def _gather(obj: Any, object_gather_list: Any = None, dst: Any = None, group: Any = None, **_: Any) -> None:
    found = _everybodys("gather_object", obj, group)
    if object_gather_list is not None:
        object_gather_list[:] = found if found is not None else [obj] * len(object_gather_list)


def _broadcast(
    object_list: list[Any], src: Any = None, group: Any = None, device: Any = None, group_src: Any = None
) -> None:
    found = _of_root("broadcast_object_list", list(object_list), group, _root(group, src, group_src))
    if found is not rendezvous.NOBODY_THERE:
        object_list[:] = found


def _scatter(
    output: list[Any], inputs: Any = None, src: Any = None, group: Any = None, group_src: Any = None
) -> None:
    found = _of_root("scatter_object_list", inputs, group, _root(group, src, group_src))
    given = inputs if found is rendezvous.NOBODY_THERE else found
    if given:
        output[0] = given[dist.get_rank(group)]
