"""Point-to-point between recorded ranks: integers and objects travel, tensors without data need not.

Whoever this rank sends to or receives from does something else than this rank (another pipeline stage, the
next piece of a ring), so it is recorded too: see ``mailbox.py``. Without a mailbox nothing travels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from windtunnel.capture.distributed import real
from windtunnel.capture.distributed.mailbox import Mailbox, SenderStopped
from windtunnel.capture.steps import EnoughSteps
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind

_mailbox: list[Mailbox] = []


def use(mailbox: Mailbox | None) -> None:
    """The mailbox of this process, or none."""
    _mailbox[:] = [] if mailbox is None else [mailbox]
    if mailbox is not None:
        mailbox.where = lambda: str(VirtualTensor.state.context.current_line())


def install() -> None:
    """Objects go through the mailbox; batched operations are single ones, each with its own handle."""
    for module in (dist, c10d):
        target: Any = module
        target.send_object_list = _send_objects
        target.recv_object_list = _receive_objects
        target.batch_isend_irecv = _batch


def exchange(name: str, tensors: list[torch.Tensor], peer: int, tag: int) -> Callable[[], None] | None:
    """Send now, or answer what fills the tensors in when the receive is waited for."""
    if not _mailbox or peer < 0:  # a receive from anybody names nobody
        return None
    mailbox = _mailbox[0]
    mailbox.meet(peer)
    moved = [tensor for tensor in tensors if _travels(tensor)]
    if not moved:
        return None
    channel = f"tensor-{tag}"
    if name.startswith("send"):
        for tensor in moved:
            values = tensor.host_values if isinstance(tensor, VirtualTensor) else tensor
            mailbox.send(peer, channel, None if values is None else values.detach().clone())
        return None
    paths = [mailbox.expect(peer, channel) for _ in moved]

    def arrive() -> None:
        for tensor, path in zip(moved, paths, strict=True):
            _put(tensor, _take(mailbox, peer, path), peer)

    return arrive


def _travels(tensor: torch.Tensor) -> bool:
    if not isinstance(tensor, VirtualTensor):
        return True
    state = VirtualTensor.state
    if real.is_on():
        return True
    return not tensor.dtype.is_floating_point and state.keeps(tensor.dtype, tensor.numel())


def _take(mailbox: Mailbox, peer: int, path: Any) -> Any:
    try:
        return mailbox.receive(peer, path)
    except SenderStopped:
        raise EnoughSteps from None


def _put(tensor: torch.Tensor, values: torch.Tensor | None, peer: int) -> None:
    if values is not None and (values.shape != tensor.shape or values.dtype != tensor.dtype):
        mailbox = _mailbox[0]
        raise WindtunnelError(
            "E232",
            f"rank {mailbox.rank} receives {_said(tensor)} and rank {peer} sends {_said(values)}",
            hint="give both sides the same shape and dtype",
            values={f"rank {mailbox.rank}": mailbox.where()},
        )
    if not isinstance(tensor, VirtualTensor):
        if values is not None:
            tensor.copy_(values)
        return
    if values is None or tensor.elem is None:
        tensor.store.valued = False
        return
    tensor.elem.copy_(values)
    tensor.store.valued = True


def _said(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _send_objects(
    object_list: list[Any],
    dst: int | None = None,
    group: Any = None,
    device: Any = None,
    group_dst: int | None = None,
    use_batch: bool = False,
) -> None:
    if _mailbox:
        _mailbox[0].send(_global(group, dst, group_dst), "objects", object_list)
    else:
        _note("send_object_list: nobody receives the objects, the other rank is not recorded")


def _receive_objects(
    object_list: list[Any],
    src: int | None = None,
    group: Any = None,
    device: Any = None,
    group_src: int | None = None,
    use_batch: bool = False,
) -> int:
    sender = _global(group, src, group_src)
    if _mailbox:
        mailbox = _mailbox[0]
        object_list[:] = _take(mailbox, sender, mailbox.expect(sender, "objects"))
    else:
        _note("recv_object_list: the other rank is not recorded, the objects stay as they were")
    return sender


def _global(group: Any, rank: int | None, group_rank: int | None) -> int:
    if group_rank is not None:
        return dist.get_global_rank(group or c10d._get_default_group(), group_rank)
    return int(rank or 0)


def _batch(operations: list[Any]) -> list[Any]:
    handles = []
    for operation in operations:
        key = "group_dst" if operation.op is c10d.isend else "group_src"
        kwargs = {key: operation.group_peer}
        handle = operation.op(operation.tensor, group=operation.group, tag=operation.tag, **kwargs)
        if handle is not None:
            handles.append(handle)
    return handles


def _note(what: str) -> None:
    VirtualTensor.state.recorder.notice(NoticeKind.ASSUMED, what)
