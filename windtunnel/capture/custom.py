"""Operators of the user's own: shapes, costs and answers for what PyTorch and Windtunnel cannot know."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from windtunnel.errors import WindtunnelError
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Work

Shape = Callable[..., Any]
Cost = Callable[[OpSpec], Work]


@dataclass(frozen=True, slots=True)
class CustomOp:
    """What was registered for one operator."""

    shape: Shape | None
    cost: Cost | None


_registered: dict[str, CustomOp] = {}


def register_op(name: str, *, shape: Shape | None = None, cost: Cost | None = None) -> None:
    """Tell the card about an operator or Triton kernel.

    Args:
        name: ``namespace::op`` of a C++ or Python custom operator, or the name of a Triton kernel.
        shape: takes the operator's arguments with tensors on the meta device and returns its results there.
            Not needed where the operator has a fake kernel, nor for Triton kernels.
        cost: takes the recorded ``OpSpec`` (shapes, dtypes, attributes) and returns its ``Work``. Without
            one, the operator is priced from the bytes of its arguments, marked assumed and listed.

    Example:
        ``register_op("mylib::topk", shape=lambda x, k: x.new_empty(x.shape[0], k))``
    """
    _registered[name.replace("::", ".")] = CustomOp(shape, cost)


def shape_of(name: str) -> Shape | None:
    """The shape function registered for ``namespace.op``."""
    found = _registered.get(name)
    return None if found is None else found.shape


def body_of(name: str) -> Callable[..., Any] | None:
    """What a card runs for ``namespace.op`` where that is Python (``torch.library.custom_op``).

    None for operators of C++, and for those that were registered here: they are taken as one kernel.
    """
    definitions = getattr(sys.modules.get("torch._library.custom_ops"), "OPDEFS", {})
    definition = definitions.get(name.replace(".", "::", 1))
    if definition is None or name in _registered:
        return None
    kernels: dict[str | None, Callable[..., Any]] = definition._backend_fns
    return kernels.get("cuda") or kernels.get(None)


def costs() -> dict[str, Cost]:
    """Every registered cost, by ``namespace.op`` or kernel name."""
    return {name: op.cost for name, op in _registered.items() if op.cost is not None}


def no_shape(name: str, why: str) -> WindtunnelError:
    """The error for an operator whose results nobody described."""
    return WindtunnelError(
        "E420",
        f"`{name}` has no shape function, so the card cannot say what it returns",
        hint="describe it once, anywhere in the script: "
        f'`windtunnel.register_op("{name}", shape=lambda *args: args[0].new_empty(args[0].shape))`',
        values={"reason": why.splitlines()[0][:120]},
    )


def assume(answer: bool | int | float) -> AbstractContextManager[None]:
    """Inside the block every data-less value that the script reads is ``answer``.

    For branches that depend on data: ``with windtunnel.assume(False): if x.isnan().any(): ...``. On a real
    card, or without one, it does nothing.
    """
    from windtunnel.capture.tensor import VirtualTensor

    return VirtualTensor.state.policy.assume(answer)
