"""Collectives among ranks that are all recorded: what comes of everybody's values.

In values mode everything travels. In shadow mode what may hold values does: integers, and floats of a size that
all ranks know (``travels``). Each rank gets everybody's host values; sums in the order of ranks, concatenations
and pieces are made of them here, so that all ranks hold the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from windtunnel.capture.distributed import rendezvous
from windtunnel.capture.state import SMALL_FLOATS, Mode
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError

EXCHANGES = ("alltoall", "all_to_all")
EACH_ITS_OWN_SIZE = (*EXCHANGES, "scatter")
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


@dataclass(frozen=True, slots=True)
class Brought:
    """One rank's side of a collective: its tensors' shapes, and their values unless one has none."""

    shapes: tuple[tuple[int, ...], ...]
    values: list[torch.Tensor] | None
    splits: Sequence[int] | None


def is_on() -> bool:
    """Whether everything travels: values mode, in which every rank runs."""
    return rendezvous.everybody_is_recorded() and VirtualTensor.state.mode is Mode.VALUES


def travels(tensors: Sequence[torch.Tensor], *, is_exchange: bool = False) -> bool:
    """Whether a collective of these is answered with what the others bring.

    Every rank must say the same, so shapes and dtypes decide, not who holds values. ``is_exchange``: each rank
    brings a size of its own.
    """
    if is_on() or not tensors:
        return is_on()
    if any(not isinstance(tensor, VirtualTensor) for tensor in tensors):
        return True
    if not (tensors[0].is_floating_point() or tensors[0].is_complex()):
        return True
    return not is_exchange and sum(tensor.numel() for tensor in tensors) <= SMALL_FLOATS


def answer(
    name: str,
    group: Any,
    outputs: list[torch.Tensor],
    inputs: list[torch.Tensor],
    given: dict[str, Any],
    reduction: str,
) -> None:
    """Write into ``outputs`` what the collective ``name`` makes of everybody's ``inputs``.

    Where a rank has data-less inputs the outputs hold no values.

    Raises:
        WindtunnelError: E212, ranks disagree; E239, one never joins.
    """
    meeting = rendezvous.current()
    assert meeting is not None
    ranks = rendezvous.ranks_of(group)
    own = ranks.index(meeting.mailbox.rank)
    brought: list[Brought] = meeting.all(group, name, _own(inputs, given.get("input_split_sizes")))
    _check_same(ranks, name, brought)
    parts = [part.values for part in brought if part.values is not None]
    if len(parts) < len(ranks) and not name.startswith("scatter"):
        forget_values(outputs)
        return
    if name.startswith(("allreduce", "all_reduce", "reduce_")) and "scatter" not in name:
        results = [_reduced([part[n] for part in parts], reduction) for n in range(len(inputs))]
    elif "reduce_scatter" in name:
        results = _scattered(parts, outputs, own, reduction)
    elif name.startswith(("allgather", "all_gather", "_allgather", "gather")):
        results = _gathered(parts, outputs, len(inputs))
    elif name.startswith("broadcast"):
        results = parts[int(given.get("root_rank", given.get("src", 0)))]
    elif name.startswith("scatter"):
        pieces = brought[int(given.get("root_rank", 0))].values
        if pieces is None:
            forget_values(outputs)
            return
        results = [pieces[own]]
    elif name.startswith(EXCHANGES):
        results = _exchanged(parts, [part.splits for part in brought], own, len(outputs))
    else:
        return
    for output, result in zip(outputs, results):
        write(output, result)


def host_values(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """Contiguous copies of what the tensors hold; None where one is data-less."""
    found = [tensor.host_values if isinstance(tensor, VirtualTensor) else tensor for tensor in tensors]
    kept = [values.detach().contiguous() for values in found if values is not None]
    return kept if len(kept) == len(found) else None


def forget_values(tensors: Sequence[torch.Tensor]) -> None:
    """They are written from data-less ones."""
    for tensor in tensors:
        if isinstance(tensor, VirtualTensor):
            tensor.store.valued = False


def _own(inputs: Sequence[torch.Tensor], splits: Sequence[int] | None) -> Brought:
    return Brought(tuple(tuple(t.shape) for t in inputs), host_values(inputs), splits)


def _check_same(ranks: list[int], name: str, brought: Sequence[Brought]) -> None:
    """All bring the same shapes, where it must be so."""
    if name.startswith(EACH_ITS_OWN_SIZE):
        return
    for rank, part in zip(ranks, brought):
        if part.shapes != brought[0].shapes:
            raise WindtunnelError(
                "E212",
                f"ranks disagree about the size of {name}",
                hint="check shapes, dtypes and the order of collectives on the ranks named",
                values={
                    f"rank {ranks[0]}": f"{name} of {list(brought[0].shapes)}",
                    f"rank {rank}": f"{name} of {list(part.shapes)}",
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


def write(output: torch.Tensor, result: torch.Tensor) -> None:
    """Put values into a tensor, which holds them from now on if it may."""
    if isinstance(output, VirtualTensor) and output.host_values is None:
        hold_again(output)
    target = output.host_values if isinstance(output, VirtualTensor) else output
    if target is not None:
        target.detach().copy_(result.reshape(target.shape))


def hold_again(output: VirtualTensor) -> None:
    """A data-less tensor that is written whole holds values again, where they may be kept."""
    state = VirtualTensor.state
    whole = output.meta.offset == 0 and output.meta.storage_bytes == output.store.nbytes
    if whole and state.keeps(output.dtype, output.meta.numel):
        output.elem = torch.empty_strided(output.meta.shape, output.meta.stride, dtype=output.dtype)
        output.store.valued = True
