"""A small Qwen3-VL: every part of the large one (vision tower, deepstack, interleaved rotary), 1 M parameters."""

from __future__ import annotations

from typing import Any

import torch

from windtunnel.workloads.digits_vqa import data


def build(width: int = 128, layers: int = 4) -> torch.nn.Module:
    """The model with random weights from PyTorch's generator; FP32, on the CPU."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration  # takes seconds to import

    text: dict[str, Any] = {
        "vocab_size": data.VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [width // 16, width // 32, width // 32],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": False,
        "pad_token_id": None,
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": width // 2,
        "intermediate_size": width,
        "num_heads": 4,
        "in_channels": data.CHANNELS,
        "patch_size": data.PATCH,
        "temporal_patch_size": data.FRAMES,
        "spatial_merge_size": data.MERGE,
        "out_hidden_size": width,
        "num_position_embeddings": data.GRID[1] * data.GRID[2],
        "deepstack_visual_indexes": [0, 1],
    }
    config = Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=data.IMAGE,
        vision_start_token_id=data.VISION_START,
        vision_end_token_id=data.VISION_END,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    model: torch.nn.Module = Qwen3VLForConditionalGeneration(config)
    return model


def call(model: torch.nn.Module, batch: data.Batch) -> Any:
    """Loss and logits of a batch."""
    return model(
        input_ids=batch.ids,
        labels=batch.labels,
        pixel_values=batch.pixels,
        image_grid_thw=batch.grid,
        mm_token_type_ids=batch.kinds,
        use_cache=False,
    )
