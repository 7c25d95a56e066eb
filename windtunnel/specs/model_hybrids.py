"""Configurations whose layers differ: Gated DeltaNet hybrids, Nemotron-H, DeepSeek-V4."""

from __future__ import annotations

from windtunnel.errors import WindtunnelError
from windtunnel.specs.model import Layer
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_keys import Config
from windtunnel.specs.model_mixers import Attention, Compressed, GatedDelta, Indexer, Mamba, QueryNorm

QWEN_TURNED = 0.25
"""Share of a head that Qwen3-Next and Qwen3.5 turn (``partial_rotary_factor`` of their configurations)."""


def gated_delta_hybrid(config: Config) -> tuple[Layer, ...]:
    """Qwen3-Next and Qwen3.5: one layer in ``full_attention_interval`` attends, the others recur."""
    attention = Attention(
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        query_norm=QueryNorm.HEAD,
        gated=True,
        rotary_dims=config.rotary_dims(QWEN_TURNED),
    )
    delta = GatedDelta(
        key_heads=config.size("linear_num_key_heads"),
        value_heads=config.size("linear_num_value_heads"),
        key_dim=config.size("linear_key_head_dim"),
        value_dim=config.size("linear_value_head_dim"),
        convolution=config.size("linear_conv_kernel_dim"),
    )
    ffn: Dense | Moe
    if config.has("num_experts"):
        ffn = Moe(
            experts=config.size("num_experts"),
            top_k=config.size("num_experts_per_tok"),
            width=config.size("moe_intermediate_size"),
            shared_width=config.size("shared_expert_intermediate_size"),
            shared_gate=True,
        )
    else:
        ffn = Dense(width=config.size("intermediate_size"))
    every = config.size("full_attention_interval", 4)
    kinds = config.words("layer_types") or [
        "linear_attention" if (i + 1) % every else "full_attention" for i in range(config.num_layers)
    ]
    return tuple(Layer(mixer=delta if kind == "linear_attention" else attention, ffn=ffn) for kind in kinds)


def nemotron_h(config: Config) -> tuple[Layer, ...]:
    """Nemotron-H and Nemotron-3: each layer is one of Mamba-2, attention, MLP or MoE."""
    kinds = config.words("layers_block_type") or [
        _PATTERN_LETTERS.get(letter, letter) for letter in config.text("hybrid_override_pattern")
    ]
    if not kinds:
        raise WindtunnelError(
            "E304",
            "`hybrid_override_pattern` is missing in the model configuration",
            hint='add "hybrid_override_pattern": "M-M*-..." (M Mamba, * attention, - MLP, E experts)',
        )
    return tuple(_one_block(config, kind) for kind in kinds)


_PATTERN_LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}


def _one_block(config: Config, kind: str) -> Layer:
    if kind == "linear_attention":
        mamba = Mamba(
            heads=config.size("mamba_num_heads"),
            head_dim=config.size("mamba_head_dim"),
            state=config.size("ssm_state_size"),
            groups=config.size("n_groups"),
            convolution=config.size("conv_kernel", 4),
        )
        return Layer(mixer=mamba, ffn=None)
    if kind == "full_attention":
        attention = Attention(heads=config.heads, kv_heads=config.kv_heads, head_dim=config.head_dim)
        return Layer(mixer=attention, ffn=None)
    if kind == "moe":
        moe = Moe(
            experts=config.size("n_routed_experts"),
            top_k=config.size("num_experts_per_tok"),
            width=config.size("moe_intermediate_size"),
            gated=False,
            shared_width=config.size("moe_shared_expert_intermediate_size", 0),
            latent=config.size("moe_latent_size", 0),
        )
        return Layer(mixer=None, ffn=moe)
    return Layer(mixer=None, ffn=Dense(width=config.size("intermediate_size"), gated=False))


def deepseek_v4(config: Config) -> tuple[Layer, ...]:
    """DeepSeek-V4: a window, and beyond it entries compressed 128-fold, or 4-fold with an indexer."""
    indexer = Indexer(
        heads=config.size("index_n_heads"),
        head_dim=config.size("index_head_dim"),
        top_k=config.size("index_topk"),
    )
    width = config.size("moe_intermediate_size")
    moe = Moe(
        experts=config.size("n_routed_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=width,
        shared_width=width * config.size("n_shared_experts", 1),
    )
    ratios = config.numbers("compress_ratios")[: config.num_layers] or _v4_ratios(config)
    return tuple(Layer(mixer=_compressed(config, ratio, indexer), ffn=moe) for ratio in ratios)


def _compressed(config: Config, ratio: int, indexer: Indexer) -> Compressed:
    return Compressed(
        heads=config.heads,
        head_dim=config.head_dim,
        query_rank=config.size("q_lora_rank"),
        output_rank=config.size("o_lora_rank"),
        output_groups=config.size("o_groups"),
        window=config.size("sliding_window"),
        ratio=ratio,
        indexer=indexer if ratio == 4 else None,
    )


def _v4_ratios(config: Config) -> list[int]:
    ratios = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128, "sliding_attention": 0}
    kinds = config.words("layer_types")
    if kinds:
        return [ratios.get(kind, 0) for kind in kinds]
    # the library's default: two heavily compressed layers, then the two kinds in turn, heavy first
    return [4 if i > 2 and i % 2 else 128 for i in range(config.num_layers)]
