"""Module hooks that dynamo may trace: inside a compiled region they do nothing.

Kept apart from the rest of ``capture``, which dynamo must not trace at all: a hook that it cannot trace
would break every graph at every module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules import module as nn_module


def install(
    enter: Callable[[torch.nn.Module, Any], None], leave: Callable[[torch.nn.Module], None]
) -> list[Any]:
    """Call ``enter`` and ``leave`` around every module call; returns handles to remove."""

    def before(module: torch.nn.Module, args: Any) -> None:
        if not _is_traced():
            enter(module, args)

    def after(module: torch.nn.Module, args: Any, output: Any) -> None:
        if not _is_traced():
            leave(module)

    return [
        nn_module.register_module_forward_pre_hook(before),
        nn_module.register_module_forward_hook(after, always_call=True),
    ]


def _is_traced() -> bool:
    """By dynamo, or by ``torch.jit.trace``, which makes tensors of sizes."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
