"""What every line of a forward pass computed: the last floating result of each visit to a place.

A place is a module and the source line in it; a visit ends when operations of another place come between. Two
ways to compute the same model issue different operations but pass the same places in the same order, so that
their observations can be laid side by side.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch

from windtunnel.capture.state import State
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.program.program import Phase

MAX_ELEMENTS = 1 << 16
"""Of a larger tensor, elements at equal distances stand for all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One visit. ``visit`` counts those of the same module and line; ``values`` are FP32 on the host."""

    module: str
    line: str
    visit: int
    shape: tuple[int, ...]
    values: torch.Tensor


class Observer:
    """Stands in for the dispatcher of a state and keeps what forward operations give.

    Attributes:
        has_attention: whether a fused attention was among the operations.
    """

    def __init__(self, state: State) -> None:
        self.has_attention = False
        self._state = state
        self._dispatch = state.dispatch
        self._place: tuple[int, int] | None = None
        self._last: tuple[tuple[int, ...], torch.Tensor] | None = None
        self._visits: Counter[tuple[int, int]] = Counter()
        self._seen: list[Seen] = []
        state.dispatch = self  # type: ignore[assignment]

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = self._dispatch(func, args, kwargs)
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if isinstance(first, VirtualTensor) and first.dtype.is_floating_point:
            self._note(first)
        if "scaled_dot_product" in func.__name__:
            self.has_attention = True
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dispatch, name)

    def seen(self) -> list[Seen]:
        """Everything so far, in order."""
        self._close()
        return self._seen

    def _note(self, tensor: VirtualTensor) -> None:
        context = self._state.context
        _, scope, line, phase = context.places[context.number()]
        if phase is not Phase.FORWARD:
            return
        if (scope, line) != self._place:
            self._close()
            self._place = (scope, line)
        values = tensor.host_values
        if values is not None:  # copied at once: a later line may write into it
            self._last = tuple(values.shape), _sampled(values.detach())

    def _close(self) -> None:
        if self._place is not None and self._last is not None:
            context = self._state.context
            scope, line = self._place
            place = context.scopes[scope], str(context.lines[line])
            self._seen.append(Seen(*place, self._visits[self._place], *self._last))
            self._visits[self._place] += 1
        self._place = self._last = None


def _sampled(values: torch.Tensor) -> torch.Tensor:
    flat = values.reshape(-1)
    if flat.numel() > MAX_ELEMENTS:
        flat = flat[:: -(-flat.numel() // MAX_ELEMENTS)]
    return flat.float().clone()
