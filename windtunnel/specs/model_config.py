"""From a configuration as checkpoints carry it (``config.json``) to a ``ModelSpec``.

Keys are those of the published configurations. A key that a configuration leaves out takes its model type's
own default where that default is a switch; a missing size is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import cast

from windtunnel.errors import WindtunnelError
from windtunnel.specs.model import Layer, ModelSpec, Norm
from windtunnel.specs.model_ffn import Dense, Moe
from windtunnel.specs.model_hybrids import deepseek_v4, gated_delta_hybrid, nemotron_h
from windtunnel.specs.model_keys import Config
from windtunnel.specs.model_mixers import Attention, Indexer, Latent, QueryNorm
from windtunnel.specs.model_vision import vision_tower


def model_from_config(config: Mapping[str, object], name: str = "") -> ModelSpec:
    """The model that a configuration describes.

    Raises:
        WindtunnelError: E303, the model type is not known; E304, a size is missing or no positive number.
    """
    inner = config.get("text_config", config)
    text = Config(cast("Mapping[str, object]", inner), name)
    family = text.text("model_type", str(config.get("model_type", "")))
    builder = _BUILDERS.get(family.removesuffix("_text"))
    if builder is None:
        raise _unknown(family, name)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", family in _TIED))
    return ModelSpec(
        name=name,
        family=family,
        hidden=text.hidden,
        vocabulary=text.size("vocab_size"),
        layers=builder(text),
        tied=bool(tied),
        norm=_norm(family),
        norms_per_layer={"gptj": 1, "grok-1": 4}.get(family),
        positions=text.size("n_positions", 0) if family in ("gpt", "mpt") else 0,
        head_bias=family == "gptj",
        streams=text.size("hc_mult", 1) if family == "deepseek_v4" else 1,
        prediction_layers=text.size("num_nextn_predict_layers", text.size("mtp_num_hidden_layers", 0)),
        vision=vision_tower(config, text.hidden),
        context=text.size("max_position_embeddings", 0),
    )


def _norm(family: str) -> Norm:
    if family in _LAYER_NORM:
        return Norm.LAYER
    return Norm.CENTRED if family.startswith(("qwen3_next", "qwen3_5")) else Norm.RMS


def known_families() -> list[str]:
    """The model types that can be read."""
    return sorted(_BUILDERS)


def _unknown(family: str, name: str) -> WindtunnelError:
    what = f"model type `{family}` is not known" if family else "the configuration has no `model_type`"
    return WindtunnelError(
        "E303",
        f"{what}{f' ({name})' if name else ''}",
        hint=f"known types: {', '.join(known_families())}",
        values={"model_type": family},
    )


def _dense(config: Config, mixer: Attention) -> tuple[Layer, ...]:
    ffn = Dense(width=config.size("intermediate_size"), bias=config.flag("mlp_bias", False))
    return (Layer(mixer=mixer, ffn=ffn),) * config.num_layers


def _attention(
    config: Config,
    bias: bool | None = None,
    output_bias: bool | None = None,
    query_norm: QueryNorm = QueryNorm.NONE,
    window: int | None = None,
    sinks: bool = False,
) -> Attention:
    asked = config.flag("attention_bias", False)
    return Attention(
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        bias=asked if bias is None else bias,
        output_bias=asked if output_bias is None else output_bias,
        query_norm=query_norm,
        window=config.size("sliding_window", 0) if window is None else window,
        sinks=sinks,
    )


def _llama(config: Config) -> tuple[Layer, ...]:
    return _dense(config, _attention(config, window=0))


def _mistral(config: Config) -> tuple[Layer, ...]:
    return _dense(config, _attention(config, bias=False, output_bias=False))


def _qwen2(config: Config) -> tuple[Layer, ...]:
    return _dense(config, _attention(config, bias=True, output_bias=False, window=0))


def _qwen3(config: Config) -> tuple[Layer, ...]:
    return _dense(config, _attention(config, query_norm=QueryNorm.HEAD, window=0))


def _qwen3_moe(config: Config) -> tuple[Layer, ...]:
    mixer = _attention(config, query_norm=QueryNorm.HEAD, window=0)
    moe = Moe(
        experts=config.size("num_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=config.size("moe_intermediate_size"),
    )
    step, dense = config.size("decoder_sparse_step", 1), set(config.numbers("mlp_only_layers"))
    sparse = [i not in dense and (i + 1) % step == 0 for i in range(config.num_layers)]
    width = 0 if all(sparse) else config.size("intermediate_size")
    return tuple(Layer(mixer=mixer, ffn=moe if chosen else Dense(width=width)) for chosen in sparse)


def _mixtral(config: Config) -> tuple[Layer, ...]:
    moe = Moe(
        experts=config.size("num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=config.size("intermediate_size"),
        weights_fp32=True,
    )
    return (Layer(mixer=_attention(config, bias=False, output_bias=False), ffn=moe),) * config.num_layers


def _minimax_m2(config: Config) -> tuple[Layer, ...]:
    mixer = _attention(config, bias=False, output_bias=False, query_norm=QueryNorm.FULL, window=0)
    moe = Moe(
        experts=config.size("num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=config.size("intermediate_size"),
    )
    return (Layer(mixer=mixer, ffn=moe),) * config.num_layers


def _gpt_oss(config: Config) -> tuple[Layer, ...]:
    moe = Moe(
        experts=config.size("num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=config.size("intermediate_size"),
        bias=True,
        router_bias=True,
    )
    window = config.size("sliding_window", 128)
    types = config.words("layer_types") or [
        "sliding_attention" if i % 2 == 0 else "full_attention" for i in range(config.num_layers)
    ]
    seen = [window if kind == "sliding_attention" else 0 for kind in types]
    return tuple(
        Layer(mixer=_attention(config, bias=True, output_bias=True, window=w, sinks=True), ffn=moe)
        for w in seen
    )


WHOLE_EVERY = 4
"""Of Llama 4's layers, those without positions, which see everything (``no_rope_layer_interval``)."""


def _llama4(config: Config) -> tuple[Layer, ...]:
    """Layers with chunked attention keep the whole cache, as serving engines do; every fourth sees all."""
    step = config.size("interleave_moe_layer_step", 1)
    width = config.size("intermediate_size")
    moe = Moe(
        experts=config.size("num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=width,
        shared_width=width,
    )
    whole = _attention(config, window=0)
    mixer = replace(whole, chunk=config.size("attention_chunk_size", 0))
    dense = Dense(width=config.size("intermediate_size_mlp"))
    return tuple(
        Layer(
            mixer=mixer if (i + 1) % WHOLE_EVERY else whole,
            ffn=dense if (i + 1) % step else moe,
        )
        for i in range(config.num_layers)
    )


def _deepseek(config: Config) -> tuple[Layer, ...]:
    """DeepSeek-V2, V3, Kimi-K2, and GLM-5 and V3.2 with their indexers."""
    indexer = None
    if config.has("index_n_heads"):
        indexer = Indexer(
            heads=config.size("index_n_heads"),
            head_dim=config.size("index_head_dim"),
            top_k=config.size("index_topk"),
        )
    mixer = Latent(
        heads=config.heads,
        query_rank=config.size("q_lora_rank", 0),
        kv_rank=config.size("kv_lora_rank"),
        nope_dim=config.size("qk_nope_head_dim"),
        rope_dim=config.size("qk_rope_head_dim"),
        value_dim=config.size("v_head_dim"),
        indexer=indexer,
    )
    width = config.size("moe_intermediate_size")
    groups = config.size("n_group", 0)
    moe = Moe(
        experts=config.size("n_routed_experts"),
        top_k=config.size("num_experts_per_tok"),
        width=width,
        shared_width=width * config.size("n_shared_experts", 0),
        router_fp32=True,
        weights_fp32=True,
        groups=groups if groups > 1 else 0,
        groups_chosen=config.size("topk_group", 0) if groups > 1 else 0,
    )
    first = config.size("first_k_dense_replace", 0)
    dense = Dense(width=config.size("intermediate_size")) if first else moe
    return tuple(Layer(mixer=mixer, ffn=dense if i < first else moe) for i in range(config.num_layers))


def _gpt(config: Config) -> tuple[Layer, ...]:
    """GPT-2 and GPT-3 as Megatron-LM builds them: biases everywhere."""
    ffn = Dense(width=config.size("intermediate_size"), gated=False, bias=True)
    return (Layer(mixer=_attention(config, bias=True, output_bias=True), ffn=ffn),) * config.num_layers


def _plain(config: Config) -> tuple[Layer, ...]:
    """MPT, Falcon, Nemotron: no biases, no gate."""
    ffn = Dense(width=config.size("intermediate_size"), gated=False)
    return (Layer(mixer=_attention(config, bias=False, output_bias=False), ffn=ffn),) * config.num_layers


def _gptj(config: Config) -> tuple[Layer, ...]:
    ffn = Dense(width=config.size("intermediate_size"), gated=False, bias=True)
    return (Layer(mixer=_attention(config, bias=False, output_bias=False), ffn=ffn),) * config.num_layers


_BUILDERS: Mapping[str, Callable[[Config], tuple[Layer, ...]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen2_5_vl": _qwen2,
    "qwen3": _qwen3,
    "qwen3_vl": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "qwen3_vl_moe": _qwen3_moe,
    "qwen3_next": gated_delta_hybrid,
    "qwen3_5": gated_delta_hybrid,
    "qwen3_5_moe": gated_delta_hybrid,
    "mixtral": _mixtral,
    "grok-1": _mixtral,
    "minimax_m2": _minimax_m2,
    "gpt_oss": _gpt_oss,
    "llama4": _llama4,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "deepseek_v32": _deepseek,
    "kimi_k2": _deepseek,
    "glm_moe_dsa": _deepseek,
    "deepseek_v4": deepseek_v4,
    "nemotron_h": nemotron_h,
    "gpt": _gpt,
    "gptj": _gptj,
    "mpt": _plain,
    "falcon": _plain,
    "nemotron": _plain,
}
_TIED = frozenset({"gpt", "mpt", "falcon"})
_LAYER_NORM = frozenset({"gpt", "gptj", "falcon", "nemotron"})
