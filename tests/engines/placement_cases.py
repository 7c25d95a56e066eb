"""Loads whose placement the engines' balancers are asked for: recorded ones, and seeded ones of other shapes."""

from __future__ import annotations

import random
from typing import Any

from windtunnel.serving.expert_load import recording

LAYERS = 58


def placements() -> list[dict[str, Any]]:
    """All cases, in the form that ``placement_oracle.py`` reads."""
    prompts, decoding = recording("prompts", 4096), recording("decode", 2000)
    recorded = [
        _case(loads, ranks, redundant, 8)
        for loads in (prompts, decoding)
        for ranks, redundant in ((8, 8), (16, 16), (16, 32), (32, 32), (72, 32), (144, 32))
    ]
    draw = random.Random(5)
    steep = [[draw.paretovariate(1.2) for _ in range(64)] for _ in range(LAYERS)]
    return [*recorded, _case(prompts, 16, 32, 0), _case(steep, 16, 16, 0), _case(steep, 16, 16, 4)]


def _case(loads: list[list[float]], ranks: int, redundant: int, groups: int) -> dict[str, Any]:
    return {"loads": loads, "ranks": ranks, "per_node": 8, "redundant": redundant, "groups": groups}
