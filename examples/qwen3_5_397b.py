"""Qwen3.5-397B-A17B in full, vision tower included, from transformers: a prompt with a picture, then one decode step.

    windtunnel run --on mtt-s5000 --oom continue examples/qwen3_5_397b.py
    windtunnel run --on mtt-s5000 --oom continue examples/qwen3_5_397b.py --text-tokens 16384

On one card it does not fit, and the run says by how much; `windtunnel serve` spreads it over several.
Dimensions: the model card of Qwen/Qwen3.5-397B-A17B.
"""

from __future__ import annotations

import argparse

import torch
from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeConfig
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeForConditionalGeneration

TEXT = {
    "hidden_size": 4096,
    "num_hidden_layers": 60,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 64,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "moe_intermediate_size": 1024,
    "shared_expert_intermediate_size": 1024,
    "vocab_size": 248320,
}
VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 2304,
    "out_hidden_size": 4096,
}
SIDE_PATCHES = 32  # a picture of 512 × 512 pixels: 32 × 32 patches, merged two by two into 256 tokens


def main() -> None:
    """Build, read a picture and a prompt, decode one token."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--text-tokens", type=int, default=2048)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    config = Qwen3_5MoeConfig(text_config=TEXT, vision_config=VISION)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(args.device):
        model = Qwen3_5MoeForConditionalGeneration(config).eval()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.1f} B parameters on {args.device}")
    patches = SIDE_PATCHES**2
    picture = torch.full((patches // 4,), config.image_token_id)
    words = torch.randint(0, 1000, (args.text_tokens,))
    frame = torch.tensor([config.vision_start_token_id]), torch.tensor([config.vision_end_token_id])
    ids = torch.cat((frame[0], picture, frame[1], words))[None].to(args.device)
    pixels = torch.randn(patches, 3 * VISION["temporal_patch_size"] * VISION["patch_size"] ** 2)
    grid = torch.tensor([[1, SIDE_PATCHES, SIDE_PATCHES]])
    kinds = (ids == config.image_token_id).int()
    with torch.no_grad():
        seen = model(
            input_ids=ids,
            pixel_values=pixels.to(args.device, torch.bfloat16),
            image_grid_thw=grid.to(args.device),
            mm_token_type_ids=kinds,
            use_cache=True,
        )
        model(input_ids=ids[:, -1:], past_key_values=seen.past_key_values, use_cache=True)
    print(f"{ids.shape[1]} tokens read, one decoded")


if __name__ == "__main__":
    main()
