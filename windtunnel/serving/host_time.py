"""What the host takes to issue the kernels of a step that no captured graph holds.

An engine's Python does more for an operation than PyTorch's own dispatch (``cost/host.py``): checks, views, metadata of
attention, custom operators, small tensors that recipes do not write down. Three models whose steps of few tokens were
published with captured graphs and without them say how much more, and one on Moore Threads cards; steps with prompts
are issued kernel by kernel where the engine captures none. The longer of host and card counts: issue runs ahead of
execution.
"""

from __future__ import annotations

from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.kernel_library import Stack
from windtunnel.specs.schema import Chip, Vendor

ENGINE_HOST = 4.8
"""An engine's host time over that of the operations recipes write down: geometric mean of DeepSeek-V3 (a prompt of one
token 82.6 ms, with a graph 23.1; sgl-project/sglang pull request 12160, October 2025: 4.8 on an H20's host, 6.1 on an
H200's, the card is not stated), Qwen3-4B (129 tokens 16.6 ms, with a graph 5.7; wejoncy/sfllm pull request 46,
September 2026: 5.6) and Llama 3 8B (a decoded token 8.2 ms with FlashInfer, 9.3 with Triton, with graphs 7.4 and 7.1;
sgl-project/sglang pull request 1401, September 2024: 3.4 and 3.8)."""

MUSA_HOST = 9.6
"""The same of vLLM-MUSA on an S5000's host: one prompt of 2,500 tokens (Qwen3.5-35B-A3B in BF16, TP 4) brings its first
token after 117.8 ms (MooreThreads/vllm-musa pull request 199, August 2026), 8 of which are the front end's, where the
card is busy for 76. One run, and an upper bound: prompts of 4,110 tokens follow each other every 97 ms (pull request
157, July 2026). SGLang's host there was not published and is taken to be as slow."""

_ALWAYS = float("inf")
PROMPT_GRAPHS = {Stack.VLLM: _ALWAYS, Stack.SGLANG: 2048, Stack.TRTLLM: 0}
"""Most tokens of a step with prompts that a captured graph holds, on NVIDIA: SGLang 0.5.23's (``breakable``),
TensorRT-LLM's PyTorch backend unless it compiles. vLLM captures 512 and issues compiled code above, a few kernels a
layer, which cards take longer for. Elsewhere none: SGLang leaves it out, vLLM-MUSA's recipes capture decoding only
(``FULL_DECODE_ONLY``) and compile nothing."""


def engine_host(chip: Chip) -> float:
    """An engine's host time over that of the operations recipes write down, on the hosts of ``chip``."""
    return MUSA_HOST if chip.vendor is Vendor.MOORE_THREADS else ENGINE_HOST


def host_source(chip: Chip) -> str:
    """What that factor rests on, in words."""
    if chip.vendor is Vendor.MOORE_THREADS:
        return "by one published run of vLLM-MUSA, an upper bound"
    return "by three models published with captured graphs and without, 3.4 to 6.1 times PyTorch's own"


def captured_prompts(stack: Stack, chip: Chip, layout: ServingLayout, built_engine: bool) -> float:
    """Tokens of a step with prompts up to which the host issues no kernels.

    Args:
        built_engine: TensorRT-LLM's engines built ahead, whose kernels C++ issues.
    """
    if built_engine:
        return _ALWAYS
    if not layout.graphs or chip.vendor is not Vendor.NVIDIA:
        return 0
    if stack is Stack.SGLANG and layout.expert > 1 and layout.data > 1:
        return 0  # DeepEP's exchange of prompts reads its sizes on the host
    return PROMPT_GRAPHS[stack]
