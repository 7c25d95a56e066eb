"""Operators that shape inference alone cannot answer, one file per reason.

Each module has ``HANDLERS``: overload → function ``(state, info, args, kwargs) -> result``.
"""

from __future__ import annotations

from windtunnel.capture.dispatch import Dispatcher
from windtunnel.capture.handlers import (
    amp,
    attention,
    copies,
    drawing,
    filling,
    indexing,
    packing,
    reading,
    truth,
)


def install(dispatcher: Dispatcher) -> None:
    """Give a dispatcher all handlers."""
    for module in (amp, attention, copies, drawing, filling, indexing, packing, reading, truth):
        for overload, handler in module.HANDLERS.items():
            dispatcher.handlers[id(overload)] = handler
