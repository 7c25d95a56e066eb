"""Offers the virtual kernels under the names that people import, by a folder at the front of ``sys.path``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGES = Path(__file__).parent / "packages"
NAMES = ("flash_attn", "fla", "causal_conv1d", "deep_gemm", "apex")


def install() -> tuple[str, ...]:
    """Put the folder on the path; returns the names now offered (those really installed are left alone)."""
    offered = tuple(name for name in NAMES if importlib.util.find_spec(name) is None)
    if offered and str(PACKAGES) not in sys.path:
        # behind what is installed: a real package of the same name wins
        sys.path.append(str(PACKAGES))
        importlib.invalidate_caches()
    return offered


def remove() -> None:
    """Take the folder off the path and forget what was imported from it."""
    if str(PACKAGES) in sys.path:
        sys.path.remove(str(PACKAGES))
    for name in list(sys.modules):
        if name.split(".")[0] in NAMES:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if origin.startswith(str(PACKAGES)):
                del sys.modules[name]
