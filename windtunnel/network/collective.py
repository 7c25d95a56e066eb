"""What collectives there are, how their size is counted, and which one a recorded operation is.

Sizes follow nccl-tests: the whole buffer of one rank. All-gather: its output. Reduce-scatter: its input.
All-to-all: what one rank sends, its own share included. All-reduce, broadcast, send: the message.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.op import OpSpec


class Collective(StrEnum):
    """Kinds of communication that have a time model."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"
    REDUCE = "reduce"
    GATHER = "gather"
    SCATTER = "scatter"
    SEND = "send"
    RECV = "recv"
    COPY = "copy"  # the driver's copy from one card to another: no library
    BARRIER = "barrier"
    DISPATCH = "dispatch"  # DeepEP: tokens to the ranks of their experts
    COMBINE = "combine"  # DeepEP: expert outputs back, summed


POINT_TO_POINT = frozenset({Collective.SEND, Collective.RECV})
ONE_PAIR = POINT_TO_POINT | {Collective.COPY}

_ALIASES = {
    "allreduce": Collective.ALL_REDUCE,
    "allgather": Collective.ALL_GATHER,
    "reducescatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALL_TO_ALL,
    "broadcast": Collective.BROADCAST,
    "reduce": Collective.REDUCE,
    "gather": Collective.GATHER,
    "scatter": Collective.SCATTER,
    "send": Collective.SEND,
    "isend": Collective.SEND,
    "recv": Collective.RECV,
    "irecv": Collective.RECV,
    "recvanysource": Collective.RECV,
    "barrier": Collective.BARRIER,
    "dispatch": Collective.DISPATCH,
    "combine": Collective.COMBINE,
}
_DECORATIONS = ("coalesced", "single", "intotensor", "tensor", "base")


@lru_cache(maxsize=1024)
def kind_of(name: str) -> Collective:
    """``c10d._allgather_base_.default`` or ``c10d.all_gather_into_tensor`` → the kind.

    Raises KeyError for a name that is no collective.
    """
    word = name.removeprefix(COLLECTIVE_PREFIX).split(".")[0].lower().replace("_", "")
    for decoration in _DECORATIONS:
        word = word.removesuffix(decoration)
    return _ALIASES[word]


def message_bytes(spec: OpSpec) -> int:
    """Size of a recorded collective in the convention of this module."""
    kind = kind_of(spec.name)
    sent = sum(tensor.nbytes for tensor in spec.inputs)
    received = sum(tensor.nbytes for tensor in spec.outputs)
    if kind in (Collective.ALL_GATHER, Collective.GATHER, Collective.RECV):
        return max(sent, received)
    if kind in (Collective.REDUCE_SCATTER, Collective.ALL_REDUCE, Collective.SCATTER):
        return max(sent, received)
    return sent or received


def bus_factor(kind: Collective, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth, as nccl-tests defines it (its PERFORMANCE page)."""
    if ranks <= 1:
        return 0.0
    if kind is Collective.ALL_REDUCE:
        return 2 * (ranks - 1) / ranks
    if kind in (
        Collective.ALL_GATHER,
        Collective.REDUCE_SCATTER,
        Collective.ALL_TO_ALL,
        Collective.GATHER,
        Collective.SCATTER,
    ):
        return (ranks - 1) / ranks
    return 1.0
