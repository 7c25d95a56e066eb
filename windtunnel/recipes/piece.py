"""Pieces of a layer: what one does forward and backward, as operations named as a recording would have them.

A layer is a tuple of pieces; forward runs them in order, backward in reverse. Operations carry a stream
(0 compute, 1.. communication by group) only through ``Op.work``: an operation with a work number is issued
asynchronously and waited for where ``wait`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from windtunnel.program.marks import COLLECTIVE_PREFIX, WAIT_COLLECTIVE
from windtunnel.program.op import Attribute, OpSpec, TensorSpec


class Keep(Enum):
    """How a piece takes part in recomputation that is short of whole layers."""

    ALWAYS = 0  # kept; where single operations are computed again, all but every second product is
    CORE = 1  # the attention core: computed again under selective recomputation
    UNCOUNTED = 2  # a product that is left out when every second one is counted, and always computed again


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a layer.

    ``backward`` is what it takes to pass gradients on, ``weight`` what only the parameters' gradients need
    (zero-bubble schedules run it later). ``parameters``: elements of this rank's parameters here;
    ``adapter_parameters``: of low-rank adapters beside them. ``graphed``: launched as part of a captured graph.
    ``summed``: sums over tensor-parallel ranks that complete the parameters' gradients, once before data ranks
    reduce them.
    """

    name: str
    forward: tuple[OpSpec, ...]
    backward: tuple[OpSpec, ...] = ()
    weight: tuple[OpSpec, ...] = ()
    keep: Keep = Keep.ALWAYS
    parameters: int = 0
    expert_parameters: int = 0
    adapter_parameters: int = 0
    graphed: bool = False
    summed: tuple[OpSpec, ...] = ()


def tensor(dtype: str, *shape: int) -> TensorSpec:
    """A contiguous tensor."""
    return TensorSpec(dtype, shape)


def op(
    name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], **attributes: Attribute
) -> OpSpec:
    """An operation; ``aten.mm`` becomes ``aten.mm.default`` as PyTorch prints it."""
    full = f"{name}.default" if name.count(".") == 1 and name.startswith("aten.") else name
    return OpSpec(full, inputs, outputs, tuple(attributes.items()))


def collective(
    name: str, group: int, sent: TensorSpec, received: TensorSpec, work: int = -1, **more: Attribute
) -> OpSpec:
    """A collective on ``group``; with a work number it is asynchronous and waited for by ``wait``."""
    return op(
        COLLECTIVE_PREFIX + name, (sent,), (received,), group=group, work=work, async_op=work >= 0, **more
    )


def wait(work: int) -> OpSpec:
    """The current stream waits for the collective ``work``."""
    return OpSpec(WAIT_COLLECTIVE, attributes=(("work", work),))
