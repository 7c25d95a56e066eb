"""What Megatron Bridge's performance recipes set where its tables of 25.09 and 25.11 do not say.

Read from NVIDIA-NeMo/Megatron-Bridge: `scripts/performance/configs/*.yaml` and `run_script.py` at v0.1.0 (25.09),
`scripts/performance/configs/*/workload_base_configs.py` at v0.2.0 (25.11). Tables of later releases state it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from windtunnel.recipes.layout import LAYERS, GraphScope

FIRST, SECOND = 25.09, 25.11
_WHOLE_LAYERS = LAYERS | {GraphScope.EXPERTS}
"""`enable_cuda_graph` at v0.1.0: each layer is captured whole, experts as well, since tokens are dropped and padded."""
_STEP = frozenset({GraphScope.STEP})
_ROUTER = frozenset({GraphScope.ROUTER})
_ATTENTION_AND_ROUTER = _ROUTER | {GraphScope.ATTENTION}


@dataclass(frozen=True, slots=True)
class _Entry:
    """Recipes of one release; ``model`` and ``precision`` are patterns of what rows call them, ``chip`` of how the
    catalogue's name begins."""

    release: float
    model: str
    chip: str
    precision: str
    graphs: frozenset[GraphScope] = frozenset()
    overlap_experts: bool = False


# the first that matches
_ENTRIES = (
    _Entry(FIRST, "llama3_8b", r"b200$", "", _WHOLE_LAYERS),
    _Entry(FIRST, "llama3_8b", r"gb200", r"bf16|block|mx", _WHOLE_LAYERS),
    _Entry(FIRST, "llama3_70b", r"b200$", "bf16", _WHOLE_LAYERS),
    _Entry(FIRST, "qwen3_30b", r"g?b200", "", _WHOLE_LAYERS),
    _Entry(FIRST, "qwen3_235b", r"gb200", "", _WHOLE_LAYERS),
    _Entry(FIRST, "deepseek", "h100", "", overlap_experts=True),
    _Entry(SECOND, "llama3_8b", r"b200$", "fp4"),
    _Entry(SECOND, "llama3_8b", r"g?b[23]00", "", _STEP),
    _Entry(SECOND, "llama3_70b", r"gb[23]00", "fp4", _STEP),
    _Entry(SECOND, "llama3_70b", r"b200$", "bf16", _STEP),
    _Entry(SECOND, "llama3.1_405b", r"gb[23]00", "fp4", _STEP),
    _Entry(SECOND, "gpt.oss", "gb300", "bf16", _ATTENTION_AND_ROUTER),
    _Entry(SECOND, "qwen3_235b", "gb300", "", _ROUTER),
    _Entry(SECOND, "qwen3_235b", "gb200", "", _ATTENTION_AND_ROUTER),
    _Entry(SECOND, "qwen3_235b", "b200$|h100", "", overlap_experts=True),
    _Entry(SECOND, "qwen3_30b", "gb200", "bf16|cs", _ATTENTION_AND_ROUTER),
    _Entry(SECOND, "qwen3_30b", r"g?b[23]00", "", _ROUTER),
    _Entry(SECOND, "qwen3_30b", "h100", "bf16", _ROUTER, overlap_experts=True),
    _Entry(SECOND, "qwen3_30b", "h100", "", overlap_experts=True),
    _Entry(SECOND, "deepseek", "gb300", "", _ATTENTION_AND_ROUTER),
    _Entry(SECOND, "deepseek", "gb200", "", _ROUTER),
    _Entry(SECOND, "deepseek", "h100", "", overlap_experts=True),
)


def graphs(release: float, model: str, chip: str, precision: str) -> frozenset[GraphScope]:
    """What the recipe captures; nothing where there is none. Names as the row has them, in lower case."""
    entry = _entry(release, model, chip, precision)
    return entry.graphs if entry else frozenset()


def overlaps_experts(release: float, model: str, chip: str, precision: str) -> bool:
    """Whether the recipe exchanges tokens beside another micro-batch's compute."""
    entry = _entry(release, model, chip, precision)
    return entry is not None and entry.overlap_experts


def _entry(release: float, model: str, chip: str, precision: str) -> _Entry | None:
    for entry in _ENTRIES:
        if (
            entry.release == release
            and re.search(entry.model, model)
            and re.match(entry.chip, chip)
            and re.search(entry.precision, precision)
        ):
            return entry
    return None
