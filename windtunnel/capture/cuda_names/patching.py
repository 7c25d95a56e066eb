"""Replacing attributes of PyTorch's modules and classes, and putting them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ABSENT: Any = object()


class Patches:
    """Replaced attributes, in order; ``restore`` undoes them last first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module or class and remember what its own ``__dict__`` held."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._undo.append(lambda: _put_back(owner, name, before))

    def later(self, undo: Callable[[], None]) -> None:
        """Call ``undo`` on restoring."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Undo everything. Idempotent."""
        while self._undo:
            self._undo.pop()()


def _put_back(owner: Any, name: str, before: Any) -> None:
    if before is _ABSENT:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
