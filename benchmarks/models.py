"""The benchmark's model: transformers' own Qwen3.5-397B-A17B, text part, in full."""

from __future__ import annotations

from typing import Any

import torch


def qwen35_397b(device: str) -> Any:
    """The model in bfloat16 on ``device``; 396.3 B parameters."""
    from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as modeling
    from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig

    config = Qwen3_5MoeTextConfig(
        hidden_size=4096,
        num_hidden_layers=60,
        num_attention_heads=32,
        num_key_value_heads=2,
        head_dim=256,
        linear_num_key_heads=16,
        linear_num_value_heads=64,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        num_experts=512,
        num_experts_per_tok=10,
        moe_intermediate_size=1024,
        shared_expert_intermediate_size=1024,
        vocab_size=248320,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        return modeling.Qwen3_5MoeForCausalLM(config)
