"""How a virtual kernel is registered: as an operator of the ``windtunnel`` namespace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

LIBRARY = torch.library.Library("windtunnel", "DEF")

_EVERYTHING = torch._C._dispatch_tls_local_include_set()
_NOTHING_EXCLUDED = torch._C._dispatch_tls_local_exclude_set()


def define(
    name: str,
    schema: str,
    shape: Callable[..., Any],
    reference: Callable[..., Any],
) -> Any:
    """Define ``windtunnel::<name>`` and return the operator.

    Args:
        schema: arguments and results, e.g. ``(Tensor q, bool causal) -> Tensor``.
        shape: results on the meta device. reference: results on the CPU.
    """
    LIBRARY.define(f"{name}{schema}")
    LIBRARY.impl(name, shape, "Meta")
    LIBRARY.impl(name, reference, "CPU")
    return getattr(torch.ops.windtunnel, name).default


def differentiate(
    name: str,
    backward: Callable[..., Any],
    setup_context: Callable[[Any, tuple[Any, ...], Any], None],
) -> None:
    """Give an operator its gradient."""
    torch.library.register_autograd(f"windtunnel::{name}", backward, setup_context=setup_context, lib=LIBRARY)


def reference_gradients(
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    tensors: Sequence[torch.Tensor | None],
    grads: Sequence[torch.Tensor],
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of a CPU reference by autograd, callable below autograd (inside a backward kernel)."""
    with (
        torch._C._ForceDispatchKeyGuard(_EVERYTHING, _NOTHING_EXCLUDED),
        torch.enable_grad(),
    ):
        leaves = [None if t is None else t.detach().requires_grad_(t.is_floating_point()) for t in tensors]
        out = function(*leaves)
        outputs = (out,) if isinstance(out, torch.Tensor) else out
        wanted = [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]
        found = iter(torch.autograd.grad(outputs, wanted, grads, allow_unused=True))
        return tuple(
            None if leaf is None or not leaf.requires_grad else _or_zero(next(found), leaf) for leaf in leaves
        )


def _or_zero(gradient: torch.Tensor | None, leaf: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(leaf) if gradient is None else gradient
