"""What each layer keeps in the cache, in vLLM's terms, for one tensor-parallel rank.

vLLM asks the layers it has built; none are built here, so the configuration answers.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from vllm.distributed.utils import get_pp_indices
from vllm.model_executor.models import ModelRegistry
from vllm.platforms import current_platform
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
from vllm.v1.attention.backends.flash_attn import FlashAttentionBackend
from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, MLAAttentionSpec, SlidingWindowSpec

BLOCK = 16


def stage_bounds(config: Any) -> list[int]:
    """First layer of every pipeline stage as vLLM divides them, and the number of layers."""
    layers, size = (
        config.model_config.hf_text_config.num_hidden_layers,
        config.parallel_config.pipeline_parallel_size,
    )
    return [*(get_pp_indices(layers, stage, size)[0] for stage in range(size)), layers]


def layer_specs(config: Any) -> list[dict[str, Any]]:
    """Cache specifications by layer name for vLLM's ``config``, one dictionary a pipeline stage."""
    if config.model_config.is_hybrid:
        # the usual hook reads the block size off built layers; this is the part of it that reads sizes
        current_platform._align_hybrid_block_size(config, FlashAttentionBackend)
    text = config.model_config.hf_text_config
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    extra = _drafting_layers(config)
    names = [f"model.layers.{index}.{kind}" for index, kind in enumerate(kinds)]
    stages = [
        {name: _spec(kind, config) for name, kind in zip(names[start:end], kinds[start:end], strict=True)}
        for start, end in pairwise(stage_bounds(config))
    ]
    stages[-1] |= {f"mtp.layers.{index}.attn": _spec("full_attention", config) for index in range(extra)}
    return stages


def _drafting_layers(config: Any) -> int:
    """Layers that draft tokens keep a cache of their own."""
    return 1 if config.speculative_config and config.speculative_config.method == "mtp" else 0


def _spec(kind: str, config: Any) -> Any:
    model, cache = config.model_config, config.cache_config
    text, ways = model.hf_text_config, config.parallel_config.tensor_parallel_size
    auto = cache.cache_dtype == "auto"
    dtype = model.dtype if auto else STR_DTYPE_TO_TORCH_DTYPE[cache.cache_dtype]
    block = cache.block_size or BLOCK
    if kind == "linear_attention":
        return _state(config)
    if getattr(text, "kv_lora_rank", None):
        width = text.kv_lora_rank + text.qk_rope_head_dim
        return MLAAttentionSpec(block_size=block, num_kv_heads=1, head_size=width, dtype=dtype)
    heads = max(1, model.get_total_num_kv_heads() // ways)
    if kind == "sliding_attention":
        return SlidingWindowSpec(
            block_size=block, num_kv_heads=heads, head_size=model.get_head_size(), dtype=dtype,
            sliding_window=text.sliding_window,
        )  # fmt: skip
    return FullAttentionSpec(
        block_size=block, num_kv_heads=heads, head_size=model.get_head_size(), dtype=dtype
    )


def _state(config: Any) -> Any:
    """The recurrent state of a sequence, by the model class's own sizes."""
    model, cache = config.model_config, config.cache_config
    built, _ = ModelRegistry.resolve_model_cls(model.architecture, model_config=model)
    return MambaSpec(
        block_size=cache.mamba_block_size or model.max_model_len,
        shapes=built.get_mamba_state_shape_from_config(config),
        dtypes=built.get_mamba_state_dtype_from_config(config),
        page_size_padded=cache.mamba_page_size_padded,
        mamba_cache_mode=cache.mamba_cache_mode or "none",
        num_speculative_blocks=config.speculative_config.num_speculative_tokens
        if config.speculative_config
        else 0,
    )
