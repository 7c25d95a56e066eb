"""Which module an operation belongs to, from hooks on every module call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from windtunnel.capture import hooks
from windtunnel.capture.context import Context


class ModuleTracker:
    """Keeps ``Context.scope`` while modules are called, and tells when an outermost call begins and ends.

    Paths are those of ``named_modules`` of the outermost module, with its class name in front.
    """

    def __init__(
        self,
        context: Context,
        on_enter: Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any]], None],
        on_exit: Callable[[torch.nn.Module], None],
    ) -> None:
        self.context = context
        self._on_enter = on_enter
        self._on_exit = on_exit
        self._stack: list[tuple[int, int]] = []
        self._paths: dict[int, str] = {}
        self._known_roots: set[int] = set()
        self._handles: list[Any] = []

    def install(self) -> None:
        """Hook every module call of the process."""
        self._handles = hooks.install(self._enter, self._leave)

    def remove(self) -> None:
        """Undo ``install``."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _enter(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        context = self.context
        if not self._stack:
            in_backward = torch._C._current_graph_task_id() != -1
            if not in_backward:
                if id(module) not in self._known_roots:
                    self._name(module)
                self._on_enter(module, args, {})
        path = self._paths.get(id(module))
        if path is None:
            parent = context.scopes[context.scope]
            path = f"{parent}.{type(module).__name__}" if parent else type(module).__name__
            self._paths[id(module)] = path
        self._stack.append((id(module), context.scope))
        context.scope = context.scope_number(path)
        context.module_depth = len(self._stack)

    def _leave(self, module: torch.nn.Module) -> None:
        if not self._stack:
            return
        context = self.context
        while self._stack:  # a module that raised may have left without its hook
            number, context.scope = self._stack.pop()
            if number == id(module):
                break
        context.module_depth = len(self._stack)
        if not self._stack and torch._C._current_graph_task_id() == -1:
            self._on_exit(module)

    def _name(self, root: torch.nn.Module) -> None:
        self._known_roots.add(id(root))
        title = type(root).__name__
        for path, module in root.named_modules():
            self._paths.setdefault(id(module), f"{title}.{path}" if path else title)

    def reset_stack(self) -> None:
        """After an exception left the outermost module."""
        self._stack.clear()
        self.context.scope = self.context.module_depth = 0
