"""What NVIDIA's published TensorRT-LLM runs ran with where their tables do not say.

``trtllm-bench`` chooses the most sequences and tokens of a step from the memory that weights leave free and the
lengths of the requests (``tensorrt_llm/bench/build/tuning.py`` of TensorRT-LLM 0.17 to 1.2): as many sequences as the
cache holds at full length, up to 4,096, and the tokens that keep so many busy, both rounded up. Built engines
(to 0.21) attend to everything before a token unless ``max_attention_window`` is given, whatever the checkpoint says.

From 0.19 the tables are of the PyTorch backend with the options listed in ``docs/source/performance/perf-overview.md``
(1.0): graphs of fifteen batch sizes, decodes padded to the next; mixtures on several cards with data-parallel
attention.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.memory import card_memory
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention, Latent
from windtunnel.specs.schema import Chip

SEQUENCES_MAX, TOKENS_MAX = 4096, 32768
SEQUENCES_MIN, TOKENS_MIN = 64, 2048
CAPTURED = (*(1 << n for n in range(9)), 384, *(1 << n for n in range(9, 14)))
"""Batch sizes with a captured graph: 1, 2, 4 to 256, 384, 512 to 8,192."""
_SEQUENCE_STEPS = ((256, 32), (1024, 128), (SEQUENCES_MAX + 1, 256))
_TOKEN_STEPS = ((4096, 256), (8192, 512), (TOKENS_MAX + 1, 1024))
"""Below which number counts are rounded up to which multiple."""


def step_limits(
    model: ModelSpec, layout: ServingLayout, chip: Chip, fraction: float, prompt: int, output: int
) -> tuple[int, int]:
    """Most sequences and most tokens of a step that ``trtllm-bench`` chooses.

    Args:
        fraction: of the free memory that the cache takes.
    """
    free = card_memory(
        model, layout, chip, utilization=fraction, batched_tokens=0, sequences=0, block_tokens=1, of_free=True
    )
    sequences = min(free.cache_tokens / (prompt + output), SEQUENCES_MAX)
    tokens = min(sequences * (1 + prompt / output), TOKENS_MAX)
    return (
        max(SEQUENCES_MIN, _rounded(sequences, _SEQUENCE_STEPS)),
        max(TOKENS_MIN, _rounded(tokens, _TOKEN_STEPS)),
    )


def as_checkpointed(model: ModelSpec, chip: Chip, options: DeploymentOptions) -> DeploymentOptions:
    """The options with what 4-bit checkpoints have in other formats.

    OpenAI's GPT-OSS has experts in MXFP4 and all else in 16 bit; Blackwell multiplies them with MXFP8 rows, cards
    before it with 16-bit ones (TensorRT-LLM's W4A8_MXFP4_MXFP8 and W4A16_MXFP4). NVIDIA's DeepSeek keeps the products
    in front of latent attention in 16 bit (``exclude_modules`` of ``hf_quant_config.json`` in its MLPerf 5.1 code).
    """
    if any(isinstance(layer.mixer, Attention) and layer.mixer.sinks for layer in model.layers):
        narrow = "fp4" in chip.peak_flops
        cache = "float8_e4m3fn" if narrow else "bfloat16"
        return replace(
            options,
            precision=Precision.BF16,
            kv_cache_dtype=cache,
            narrow_experts=True,
            eight_bit_rows=narrow,
        )
    latent = any(isinstance(layer.mixer, Latent) for layer in model.layers)
    return replace(options, wide_inputs=latent and options.precision is Precision.NVFP4)


def by_pytorch(model: ModelSpec, options: DeploymentOptions) -> DeploymentOptions:
    """The options with those that the tables of the PyTorch backend were made with."""
    options = replace(options, cudagraph_capture_sizes=CAPTURED)
    mixture = any(isinstance(layer.ffn, Moe) for layer in model.layers)
    if not mixture or options.data_parallel_size > 1:
        return options
    return replace(options, tensor_parallel_size=1, data_parallel_size=options.tensor_parallel_size)


def benchmarked(
    model: ModelSpec, chip: Chip, options: DeploymentOptions, prompt: int, output: int
) -> DeploymentOptions:
    """The options with the limits of a step that ``trtllm-bench`` chooses for requests of these lengths."""
    tensor, data = options.tensor_parallel_size, options.data_parallel_size
    layout = ServingLayout(
        tensor=tensor, data=data, expert=tensor * data if data > 1 else 1,
        precision=options.precision, cache=options.kv_cache_dtype, wide_inputs=options.wide_inputs,
        narrow_experts=options.narrow_experts, eight_bit_rows=options.eight_bit_rows,
    )  # fmt: skip
    sequences, tokens = step_limits(model, layout, chip, options.gpu_memory_utilization, prompt, output)
    return replace(options, max_num_seqs=sequences, max_num_batched_tokens=tokens)


def _rounded(count: float, steps: tuple[tuple[int, int], ...]) -> int:
    step = next(multiple for below, multiple in steps if count < below)
    return step * ceil(count / step)


def without_windows(model: ModelSpec) -> ModelSpec:
    """The model as a built engine runs it: every layer attends to all tokens before."""
    layers = tuple(
        replace(layer, mixer=replace(layer.mixer, window=0)) if isinstance(layer.mixer, Attention) else layer
        for layer in model.layers
    )
    return replace(model, layers=layers)
