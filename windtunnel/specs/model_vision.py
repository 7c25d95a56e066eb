"""Vision towers of the Qwen-VL families from ``vision_config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from windtunnel.specs.model import Norm, VisionTower
from windtunnel.specs.model_keys import Config


def vision_tower(config: Mapping[str, object], hidden: int) -> VisionTower | None:
    """The tower, or None for a model without one that is known.

    Raises:
        WindtunnelError: E304, a size is missing.
    """
    family = str(config.get("model_type", ""))
    inner = config.get("vision_config")
    if not isinstance(inner, Mapping) or not family.startswith(("qwen2_5_vl", "qwen3_vl", "qwen3_5")):
        return None
    vision = Config(cast("Mapping[str, object]", inner), family)
    older = family.startswith("qwen2_5_vl")
    patch = vision.size("patch_size")
    channels = vision.size("in_channels", 3)
    return VisionTower(
        layers=vision.size("depth"),
        hidden=vision.size("hidden_size"),
        heads=vision.size("num_heads"),
        ffn=vision.size("intermediate_size"),
        patch_elements=channels * vision.size("temporal_patch_size") * patch * patch,
        merge=vision.size("spatial_merge_size") ** 2,
        output=vision.size("out_hidden_size", hidden),
        positions=0 if older else vision.size("num_position_embeddings"),
        deep_mergers=0 if older else len(vision.numbers("deepstack_visual_indexes")),
        gated=older,
        patch_bias=not older,
        norm=Norm.RMS if older else Norm.LAYER,
    )
