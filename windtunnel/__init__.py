"""Windtunnel: a virtual accelerator and cluster for PyTorch.

Public names are imported when first used, so that ``import windtunnel`` stays light; their types are in
``__init__.pyi``.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "chip": "windtunnel.api",
    "load": "windtunnel.api",
    "predict": "windtunnel.api",
    "record": "windtunnel.api",
    "save": "windtunnel.api",
    "AnswerIsNo": "windtunnel.errors",
    "WindtunnelError": "windtunnel.errors",
    "assume": "windtunnel.capture.custom",
    "register_op": "windtunnel.capture.custom",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `windtunnel` has no attribute `{name}`")
    value: object = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
