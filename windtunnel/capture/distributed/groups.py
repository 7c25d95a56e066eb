"""Process groups: names asked for are remembered, a fake group answers, ranks go into the recording."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup
from torch.distributed import distributed_c10d as c10d

from windtunnel.capture.backend import BACKEND, DEVICE
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import ProcessGroup as RecordedGroup

BACKEND_NAME = "virtual"
_asked: dict[Any, str] = {}


def install() -> None:
    """Answer ``init_process_group`` and ``new_group`` for any backend name with a virtual group."""
    from torch.testing._internal.distributed.fake_pg import FakeStore, _create_fake_pg

    devices = ["cpu", "cuda", BACKEND]
    dist.Backend.register_backend(BACKEND_NAME, _create_fake_pg, extended_api=True, devices=devices)
    c10d_module: Any = c10d
    new_group_helper = c10d_module._new_process_group_helper
    init = dist.init_process_group

    def helper(size: int, rank: int, ranks: Any, backend: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["backend_options"] = None
        made = new_group_helper(size, rank, ranks, dist.Backend(BACKEND_NAME), *args, **kwargs)
        if made and made[0] is not None:
            _asked[made[0]] = str(backend)
        return made

    def init_process_group(
        backend: Any = None, init_method: Any = None, timeout: Any = None, **kwargs: Any
    ) -> None:
        given = {name: kwargs.get(name, -1) for name in ("world_size", "rank")}
        world, rank = _size_and_rank(**given)
        kwargs.update(world_size=world, rank=rank, store=FakeStore())
        for name in ("pg_options", "device_id"):
            kwargs.pop(name, None)
        init(backend=BACKEND_NAME, **kwargs)
        _asked[c10d_module._get_default_group()] = str(backend or "nccl")

    def get_backend(group: Any = None) -> str:
        return _asked.get(group or c10d_module._get_default_group(), "nccl")

    c10d_module._new_process_group_helper = helper
    targets: tuple[Any, ...] = (dist, c10d_module)
    for module in targets:
        module.init_process_group = init_process_group
        module.get_backend = get_backend
        module.is_nccl_available = module.is_mccl_available = lambda: True
        module.monitored_barrier = lambda *args, **kwargs: None
        if not hasattr(module, "set_timeout"):  # newer than this PyTorch; nothing here times out
            module.set_timeout = lambda timeout, group=None: None
    _rename_mesh_devices()
    _one_device_for_fsdp()
    _shards_draw_as_they_come()


def _rename_mesh_devices() -> None:
    """Meshes over ``cuda`` are meshes over this card: FSDP and DTensor compare them with tensors' devices."""
    from torch.distributed.device_mesh import DeviceMesh

    mesh: Any = DeviceMesh
    start = mesh.__init__

    @functools.wraps(start)
    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        start(self, BACKEND if device_type == "cuda" else device_type, *args, **kwargs)

    mesh.__init__ = init


def _one_device_for_fsdp() -> None:
    """FSDP's ``device_id`` of any number is the one device there is."""
    from torch.distributed.fsdp import _init_utils

    utils: Any = _init_utils
    ask = utils._get_device_from_device_id

    @functools.wraps(ask)
    def device_of(device_id: Any, *args: Any, **kwargs: Any) -> Any:
        found = ask(device_id, *args, **kwargs)
        return found if found is None or found.type == "cpu" else DEVICE

    utils._get_device_from_device_id = device_of


def _shards_draw_as_they_come() -> None:
    """DTensor moves the offset of a Philox generator, which the card's host-side generator does not have."""
    from torch.distributed.tensor import _random

    @contextlib.contextmanager
    def region(self: Any, spec: Any, generator: Any = None) -> Iterator[None]:
        yield

    tracker: Any = _random.OffsetBasedRNGTracker
    tracker._distribute_region = region


def _size_and_rank(world_size: int, rank: int) -> tuple[int, int]:
    there = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    world = world_size if world_size > 0 else there[0]
    own = rank if rank >= 0 else there[1]
    if (world, own) != there:
        raise WindtunnelError(
            "E242",
            f"the script asks for a world of {world} ranks as rank {own}, and runs as rank {there[1]} of {there[0]}",
            hint=f"run it on that many cards: --on CHIP:{world}, or take the numbers from the environment",
            values={"line": str(VirtualTensor.state.context.current_line())},
        )
    return there


def number_of(group: ProcessGroup) -> int:
    """The recording's number of a process group."""
    recorder = VirtualTensor.state.recorder
    recorded = RecordedGroup(
        tuple(dist.get_process_group_ranks(group)), get_backend_name(group), group.group_desc
    )
    if recorded not in recorder.groups:
        recorder.groups.append(recorded)
    return recorder.groups.index(recorded)


def get_backend_name(group: ProcessGroup) -> str:
    """The backend that the script asked for."""
    return _asked.get(group, "nccl")


def unboxed(group: Any) -> ProcessGroup:
    """The process group in a dispatcher argument."""
    return group if isinstance(group, ProcessGroup) else ProcessGroup.unbox(group)


def by_name(name: Any) -> ProcessGroup:
    """The process group that functional collectives name."""
    if isinstance(name, ProcessGroup):
        return name
    resolve: Any = torch._C._distributed_c10d._resolve_process_group
    return resolve(name)  # type: ignore[no-any-return]
