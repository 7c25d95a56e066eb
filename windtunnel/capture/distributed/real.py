"""Values mode: ranks that hold data exchange it for real, over gloo between their processes.

Every rank runs. A collective hands each rank everybody's host values; what comes of them (sums in the order of
ranks, concatenations, pieces) is computed here, so that all ranks hold the same bits.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError

TIMEOUT_S = 120.0
_state: list[Any] = []  # folder and own rank, while values are exchanged
_groups: dict[tuple[int, ...], Any] = {}
_REDUCTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "AVG": torch.add,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "PRODUCT": torch.mul,
    "BAND": torch.bitwise_and,
    "BOR": torch.bitwise_or,
    "BXOR": torch.bitwise_xor,
}


def use(folder: Path | None, rank: int = 0) -> None:
    """Exchange values with the other ranks of a run, whose folder this is; None to stop."""
    _groups.clear()
    _state[:] = [] if folder is None else [folder, rank]


def is_on() -> bool:
    """Whether every rank runs."""
    return bool(_state)


def everybody(ranks: Sequence[int], payload: object) -> list[Any]:
    """What every rank of a group brings, in the order of the group.

    Raises:
        WindtunnelError: E239, a rank of the group does not join.
    """
    folder, own = _state
    members = tuple(ranks)
    if len(members) == 1:
        return [payload]
    data = torch.frombuffer(bytearray(pickle.dumps(payload)), dtype=torch.uint8)
    try:
        group = _group(folder, members, members.index(own))
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in members]
        _wait(group.allgather([sizes], [torch.tensor([data.numel()])]))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: data.numel()] = data
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in members]
        _wait(group.allgather([parts], [padded]))
    except RuntimeError as error:
        line = str(VirtualTensor.state.context.current_line())
        raise WindtunnelError(
            "E239",
            f"rank {own} waits in a collective that another of the ranks {list(members)} never joins",
            hint="all ranks of a group must issue the same collectives in the same order",
            values={f"rank {own}": line, "said": str(error).splitlines()[0]},
        ) from None
    return [
        pickle.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)
    ]


def _wait(work: Any) -> None:
    work.wait(timedelta(seconds=TIMEOUT_S))


def _group(folder: Path, ranks: tuple[int, ...], own: int) -> Any:
    if ranks not in _groups:
        name = "-".join(map(str, ranks))
        module: Any = dist
        store = module.FileStore(str(folder / f"store-{name}"), len(ranks))
        _groups[ranks] = module.ProcessGroupGloo(store, own, len(ranks), timedelta(seconds=TIMEOUT_S))
    return _groups[ranks]


def answer(
    name: str,
    group: Any,
    outputs: list[torch.Tensor],
    inputs: list[torch.Tensor],
    given: dict[str, Any],
    reduction: str,
) -> None:
    """Write into ``outputs`` what the collective ``name`` makes of everybody's ``inputs``."""
    ranks = dist.get_process_group_ranks(group)
    own = ranks.index(_state[1])
    brought = everybody(ranks, (name, [_host(tensor) for tensor in inputs], given.get("input_split_sizes")))
    _check_same(ranks, brought)
    tensors = [part[1] for part in brought]
    if name.startswith(("allreduce", "all_reduce", "reduce_")) and "scatter" not in name:
        results = [_reduced([part[n] for part in tensors], reduction) for n in range(len(inputs))]
    elif "reduce_scatter" in name:
        results = _scattered(tensors, outputs, own, reduction)
    elif name.startswith(("allgather", "all_gather", "_allgather", "gather")):
        results = _gathered(tensors, outputs, len(inputs))
    elif name.startswith("broadcast"):
        results = tensors[int(given.get("root_rank", given.get("src", 0)))]
    elif name.startswith("scatter"):
        results = [tensors[int(given.get("root_rank", 0))][own]]
    elif name.startswith(("alltoall", "all_to_all")):
        results = _exchanged(tensors, [part[2] for part in brought], own, len(outputs))
    else:  # a barrier
        return
    for output, result in zip(outputs, results):
        _write(output, result)


def _host(tensor: torch.Tensor) -> torch.Tensor:
    values = tensor.host_values if isinstance(tensor, VirtualTensor) else tensor
    assert values is not None
    return values.detach().contiguous()


def _check_same(ranks: list[int], brought: list[Any]) -> None:
    """All bring the same collective, and where it must be so the same shapes."""
    first = brought[0]
    for rank, (name, tensors, _) in zip(ranks, brought):
        shapes = [tuple(t.shape) for t in tensors]
        same = shapes == [tuple(t.shape) for t in first[1]] or "to" in name or name.startswith("scatter")
        if name != first[0] or not same:
            raise WindtunnelError(
                "E212",
                "ranks disagree about a collective: kind or size differ",
                hint="check shapes, dtypes and the order of collectives on the ranks named",
                values={
                    f"rank {ranks[0]}": f"{first[0]} of {[tuple(t.shape) for t in first[1]]}",
                    f"rank {rank}": f"{name} of {shapes}",
                    "line": str(VirtualTensor.state.context.current_line()),
                },
            )


def _reduced(parts: list[torch.Tensor], reduction: str) -> torch.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = _REDUCTIONS.get(reduction, torch.add)(total, part)
    return total / len(parts) if reduction == "AVG" else total


def _scattered(
    tensors: list[list[torch.Tensor]], outputs: list[torch.Tensor], own: int, reduction: str
) -> list[torch.Tensor]:
    if len(tensors[0]) == len(outputs):  # one tensor in pieces along its first dimension
        whole = [_reduced([part[n] for part in tensors], reduction) for n in range(len(outputs))]
        return [t.reshape(len(tensors), -1)[own] for t in whole]
    return [_reduced([part[own] for part in tensors], reduction)]  # a list of pieces


def _gathered(
    tensors: list[list[torch.Tensor]], outputs: list[torch.Tensor], inputs: int
) -> list[torch.Tensor]:
    if len(outputs) == inputs:
        return [torch.cat([part[n].reshape(-1) for part in tensors]) for n in range(inputs)]
    return [part[n] for n in range(inputs) for part in tensors]


def _exchanged(
    tensors: list[list[torch.Tensor]], splits: list[Any], own: int, outputs: int
) -> list[torch.Tensor]:
    if len(tensors[0]) > 1 or outputs > 1:
        return [part[own] for part in tensors]
    pieces = [
        part[0].split(list(sizes)) if sizes else part[0].chunk(len(tensors))
        for part, sizes in zip(tensors, splits)
    ]
    return [torch.cat([piece[own].reshape(-1) for piece in pieces])]


def _write(output: torch.Tensor, result: torch.Tensor) -> None:
    target = output.host_values if isinstance(output, VirtualTensor) else output
    assert target is not None
    target.detach().copy_(result.reshape(target.shape))
