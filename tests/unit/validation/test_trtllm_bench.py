"""What TensorRT-LLM's benchmark chooses, and how its engines count memory."""

from __future__ import annotations

import pytest

from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving import ServingLayout
from windtunnel.serving.memory import CardMemory, card_memory
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_mixers import Attention
from windtunnel.validation.trtllm_bench import SEQUENCES_MAX, TOKENS_MAX, step_limits, without_windows

LAYOUT = ServingLayout(precision=Precision.FP8, cache="float8_e4m3fn")
LARGE, SMALL = shipped_model("llama3-70b"), shipped_model("llama3-8b")


def memory(fraction: float, of_free: bool) -> CardMemory:
    return card_memory(
        LARGE, LAYOUT, chip("h100-sxm"), utilization=fraction, batched_tokens=2048, sequences=64,
        block_tokens=32, of_free=of_free,
    )  # fmt: skip


def test_a_share_of_what_is_free_leaves_more_than_a_share_of_the_card_less_the_weights() -> None:
    share, free = memory(0.95, of_free=False), memory(0.95, of_free=True)
    assert share.weights == free.weights
    assert free.cache == pytest.approx(0.95 * (free.usable - free.weights - free.activations), rel=1e-6)
    # weights fill nine tenths of the card: what is left of it nearly doubles
    assert 1.3 * share.cache < free.cache < 2.5 * share.cache


def test_sequences_are_those_that_the_cache_holds_and_tokens_keep_them_busy() -> None:
    h100 = chip("h100-sxm")
    few, tokens = step_limits(LARGE, LAYOUT, h100, 0.95, 500, 2000)
    assert (few, tokens) == (64, 2048)  # the least that it takes
    many, tokens = step_limits(SMALL, LAYOUT, h100, 0.95, 128, 128)
    assert (many, tokens) == (SEQUENCES_MAX, 8192)  # a prompt token for each output token
    middle, _ = step_limits(SMALL, LAYOUT, h100, 0.95, 2048, 2048)
    held = 0.95 * (h100.memory_bytes.value - 9e9) / (65536 * 4096)
    assert held <= middle < held + 128  # rounded up, to the next 128 there
    assert step_limits(SMALL, LAYOUT, h100, 0.95, 20000, 100)[1] <= TOKENS_MAX


def test_built_engines_ignore_sliding_windows() -> None:
    mistral = shipped_model("mistral-7b")
    windows = {layer.mixer.window for layer in mistral.layers if isinstance(layer.mixer, Attention)}
    assert windows == {4096}
    built = without_windows(mistral)
    assert {layer.mixer.window for layer in built.layers if isinstance(layer.mixer, Attention)} == {0}
    assert len(built.layers) == len(mistral.layers)
