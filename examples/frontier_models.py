"""A published model in full size, from transformers, unmodified: a prompt read and one token decoded on one card.

    windtunnel run --on mtt-s5000 --oom continue examples/frontier_models.py deepseek-v3
    windtunnel run --on mtt-s5000 --oom continue examples/frontier_models.py glm-5 --tokens 4096

On one card they do not fit, and the run says by how much. Dimensions: the models' published configurations.
"""

from __future__ import annotations

import argparse

import torch
from transformers import AutoConfig, AutoModelForCausalLM

LATENT = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_routed_experts": 256,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
}
MODELS: dict[str, dict[str, object]] = {
    "deepseek-v3": {
        "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128,
        "num_key_value_heads": 128, "intermediate_size": 18432, "vocab_size": 129280, "q_lora_rank": 1536,
        "qk_nope_head_dim": 128, "v_head_dim": 128, **LATENT,
    },
    "glm-5": {
        "model_type": "glm_moe_dsa", "hidden_size": 6144, "num_hidden_layers": 78, "num_attention_heads": 64,
        "num_key_value_heads": 64, "intermediate_size": 12288, "vocab_size": 154880, "q_lora_rank": 2048,
        "qk_nope_head_dim": 192, "v_head_dim": 256, "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048,
        **LATENT,
    },
    "qwen3-235b": {
        "model_type": "qwen3_moe", "hidden_size": 4096, "num_hidden_layers": 94, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1536,
    },
    "mixtral-8x22b": {
        "model_type": "mixtral", "hidden_size": 6144, "num_hidden_layers": 56, "num_attention_heads": 48,
        "num_key_value_heads": 8, "intermediate_size": 16384, "vocab_size": 32768, "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
}  # fmt: skip


def main() -> None:
    """Build, read a prompt, decode one token."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    sizes = dict(MODELS[args.model])
    config = AutoConfig.for_model(str(sizes.pop("model_type")), **sizes)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(args.device):
        model = AutoModelForCausalLM.from_config(config).eval()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.1f} B parameters on {args.device}")
    prompt = torch.randint(0, config.vocab_size, (1, args.tokens), device=args.device)
    with torch.no_grad():
        read = model(prompt, use_cache=True)
        model(prompt[:, -1:], past_key_values=read.past_key_values, use_cache=True)


if __name__ == "__main__":
    main()
