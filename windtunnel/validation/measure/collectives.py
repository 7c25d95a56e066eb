"""Collectives between the processes of torchrun: every rank takes part, the first one's clock counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from windtunnel.validation.measure.cases import Grid, Row
from windtunnel.validation.measure.timer import Timer, Work

INSIDE, BETWEEN = "collective_aiconfigurator_nccl", "collective_nccl_published"
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast")
REPEATS_MAX = 64
# PyTorch 2.13 renames both and warns about the old names
_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_BACKENDS = {"cuda": "nccl", "musa": "mccl", "cpu": "gloo"}
_GLOO = ("all_reduce", "broadcast")  # what gloo offers of these


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run as torchrun numbers them."""

    rank: int
    local_rank: int
    world: int
    local_world: int

    @classmethod
    def of_environment(cls) -> Ranks:
        """From torchrun's variables; one process without them."""
        read = [int(os.environ.get(name, default)) for name, default in _VARIABLES]
        return cls(*read)


_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"))


@dataclass(frozen=True, slots=True)
class CollectiveCase:
    """One row to be measured; ``make`` prepares the buffers. Sizes are those of nccl-tests."""

    table: str
    row: Row
    make: Callable[[], Work]


def start(ranks: Ranks, device: torch.device) -> None:
    """Join the other processes."""
    if not dist.is_initialized():
        dist.init_process_group(_BACKENDS[device.type], rank=ranks.rank, world_size=ranks.world)


def collective_cases(
    grid: Grid, gpu: str, ranks: Ranks, device: torch.device, network: str
) -> Iterator[CollectiveCase]:
    """All kinds by all sizes."""
    for kind in KINDS if device.type != "cpu" else _GLOO:
        for nbytes in grid.pick((1 << 16, 1 << 22), tuple(1 << power for power in range(10, 31, 2))):
            several = ranks.world > ranks.local_world
            row: Row = {
                "collective": kind, "dtype": "half", "num_gpus": str(ranks.world), "message_bytes": str(nbytes),
            }  # fmt: skip
            if several:
                row |= {
                    "gpu": gpu, "gpus_per_node": str(ranks.local_world), "inter_node_network": network,
                    "algorithm": "",
                }  # fmt: skip
            else:
                row |= {"gpu_system": gpu, "nccl_version": torch.__version__}
            make = _maker(kind, nbytes, ranks.world, device)
            yield CollectiveCase(BETWEEN if several else INSIDE, row, make)


def _maker(kind: str, nbytes: int, world: int, device: torch.device) -> Callable[[], Work]:
    def make() -> Work:
        elements = nbytes // 2 // world * world
        whole = torch.zeros(elements, device=device, dtype=torch.float16)
        part = torch.zeros(elements // world, device=device, dtype=torch.float16)
        other = torch.zeros_like(whole) if kind == "alltoall" else whole
        return {
            "all_reduce": lambda: dist.all_reduce(whole),
            "all_gather": lambda: _GATHER(whole, part),
            "reduce_scatter": lambda: _SCATTER(part, whole),
            "alltoall": lambda: dist.all_to_all_single(other, whole),
            "broadcast": lambda: dist.broadcast(whole, 0),
        }[kind]

    return make


def collective_s(case: CollectiveCase, timer: Timer) -> float:
    """Seconds of one collective, one after another. All ranks repeat equally often: the first decides."""
    work = case.make()
    work()
    timer.synchronize()
    repeats = max(1, min(REPEATS_MAX, int(timer.least_s / max(timer.once_s(work), 1e-6))))
    told = torch.tensor([repeats], device=timer.device)
    dist.broadcast(told, 0)
    repeats = int(told.item())

    def calls(count: int) -> float:
        def many() -> None:
            for _ in range(count):
                work()

        return timer.once_s(many)

    # a long and a short trial, subtracted: without what the first call waits for
    less = sorted((calls(2 * repeats) - calls(repeats)) / repeats for _ in range(timer.trials))
    return max(less[len(less) // 2], 1e-9)
