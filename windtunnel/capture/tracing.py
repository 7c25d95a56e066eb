"""``torch.jit.trace`` records what a script does with sizes; what the card does with them is not part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_torch_c: Any = torch._C
_state, _set_state = _torch_c._get_tracing_state, _torch_c._set_tracing_state


def untraced(function: Callable[..., Any], *args: Any) -> Any:
    """``function(*args)``, with sizes as plain integers."""
    trace = _state()
    if trace is None:
        return function(*args)
    _set_state(None)
    try:
        return function(*args)
    finally:
        _set_state(trace)
