"""Windtunnel: a virtual accelerator and cluster for PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windtunnel.api import chip, load, predict, save
    from windtunnel.errors import AnswerIsNo, WindtunnelError

__version__ = "0.1.0"
__all__ = ["AnswerIsNo", "WindtunnelError", "__version__", "chip", "load", "predict", "save"]

_HOMES = {
    "chip": "windtunnel.api",
    "load": "windtunnel.api",
    "predict": "windtunnel.api",
    "save": "windtunnel.api",
    "AnswerIsNo": "windtunnel.errors",
    "WindtunnelError": "windtunnel.errors",
}


def __getattr__(name: str) -> object:
    """Public names are imported when first used, so that ``import windtunnel`` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module `windtunnel` has no attribute `{name}`")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
