"""Enters a world: what ``torchrun`` would set, and the virtual process group behind it."""

from __future__ import annotations

import functools
import os
import warnings
from typing import TYPE_CHECKING

from windtunnel.capture.distributed import (
    collectives,
    groups,
    objects,
    peers,
    reduce_ops,
    reducer,
    shards,
    work,
)

if TYPE_CHECKING:
    from windtunnel.capture.state import State


def enter(state: State, world_size: int, rank: int, cards_per_node: int) -> None:
    """Set the environment of one rank and catch its collectives."""
    node = rank // cards_per_node
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(rank % cards_per_node),
        LOCAL_WORLD_SIZE=str(cards_per_node),
        GROUP_RANK=str(node),
        GROUP_WORLD_SIZE=str(-(-world_size // cards_per_node)),
        ROLE_RANK=str(rank),
        ROLE_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29500",
        TORCHELASTIC_RUN_ID="windtunnel",
        TORCHELASTIC_RESTART_COUNT="0",
    )
    _install_once()
    work.forget_all()
    for overload, handler in collectives.handlers().items():
        state.dispatch.handlers[id(overload)] = handler


@functools.cache
def _install_once() -> None:
    groups.install()
    objects.install()
    reduce_ops.install()
    peers.install()
    reducer.install()
    shards.install()
    with warnings.catch_warnings(action="ignore"):  # that PyTorch's own kernels are replaced
        collectives.install_for_host_tensors()


def before_optimizer() -> None:
    """DDP's C++ reducer waits for its buckets unseen: they are done before the optimizer steps."""
    work.finish_all()
