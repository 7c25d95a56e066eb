"""For which layers of experts an engine ships tiles that somebody searched for; its Triton kernels else go by a rule.

The tables (``parameters/tuned_experts.toml``) are the names of the files in the engines' packages: a layer is known by
the experts of a rank and their width there.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np

from windtunnel.cost.kernel_time import Floats

OLD = "-2025"
"""What the names of engines of 2025 end in, whose rules were others than those of today."""

_FILE = Path(__file__).parent / "parameters" / "tuned_experts.toml"


def is_tuned(
    library: str, precision: str, variant: str, chip: str, experts: Floats, width: Floats
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Layers (``experts`` of the rank, ``width`` of one on it) whose tiles ``triton@engine`` ships for the chip."""
    kernel, _, engine = library.removesuffix(OLD).partition("@")
    path = f"{precision}/{variant}" if variant else precision
    known = _tables().get((engine, path, chip), frozenset()) if kernel == "triton" else frozenset()
    layers = np.broadcast_arrays(experts, width)
    return np.array(
        [layer in known for layer in zip(*(column.tolist() for column in layers))], dtype=np.bool_
    )


@cache
def _tables() -> dict[tuple[str, str, str], frozenset[tuple[float, float]]]:
    found = {}
    for engine, paths in tomllib.loads(_FILE.read_text(encoding="utf-8")).items():
        for path, chips in paths.items():
            for chip, layers in chips.items():
                pairs = (layer.split("x") for layer in layers)
                found[engine, path, chip] = frozenset(
                    (float(experts), float(width)) for experts, width in pairs
                )
    return found
