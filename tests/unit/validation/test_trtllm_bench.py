"""What TensorRT-LLM's benchmark chooses, and how its engines count memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.program.count import work_of
from windtunnel.program.work import Family
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.memory import CardMemory, card_memory, weight_bytes
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_mixers import Attention
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.trtllm_bench import (
    SEQUENCES_MAX,
    TOKENS_MAX,
    as_checkpointed,
    by_pytorch,
    step_limits,
    without_windows,
)

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


def test_the_pytorch_backend_keeps_mixtures_apart_and_pads_to_its_graphs() -> None:
    options = DeploymentOptions(tensor_parallel_size=4, stack=Stack.TRTLLM)
    dense, mixture = (by_pytorch(shipped_model(name), options) for name in ("llama3-70b", "mixtral-8x7b"))
    assert (dense.tensor_parallel_size, dense.data_parallel_size) == (4, 1)
    assert (mixture.tensor_parallel_size, mixture.data_parallel_size) == (1, 4)
    assert {512, 1024, 8192} <= set(dense.cudagraph_capture_sizes)


def test_decodes_are_padded_to_the_next_graph_of_the_engine() -> None:
    cluster, small = cluster_of("h100-sxm", 1), shipped_model("llama3-8b")
    own, theirs = (
        deploy(small, cluster, DeploymentOptions(tensor_parallel_size=1, cudagraph_capture_sizes=sizes)).step
        for sizes in ((), (512, 1024))
    )
    assert own.decode_s(520, 520) < 0.8 * theirs.decode_s(520, 520)
    assert theirs.decode_s(520, 520) == pytest.approx(theirs.decode_s(1000, 1000), rel=0.2)
    assert theirs.decode_s(512, 512) == pytest.approx(own.decode_s(512, 512))


def test_four_bit_checkpoints_are_priced_in_the_formats_that_they_have() -> None:
    asked = DeploymentOptions(tensor_parallel_size=1, precision=Precision.NVFP4, stack=Stack.TRTLLM)
    for name, rows in (("b200", True), ("h100-sxm", False)):
        found = as_checkpointed(shipped_model("gpt-oss-20b"), chip(name), asked)
        assert (found.precision, found.narrow_experts, found.eight_bit_rows) == (Precision.BF16, True, rows)
        step = deploy(shipped_model("gpt-oss-20b"), cluster_of(name, 1), found).step
        products = {
            (work.precision, work.variant)
            for shape in step.model.layers[:1]
            for spec in step._ops(replace(step.model, layers=(shape,)), Batch(sequences=64))
            if (work := work_of(spec)).family is Family.GROUPED_GEMM
        }
        assert products == ({("fp8", "w4a8")} if rows else {("bf16", "int4_wo")})
    latent = as_checkpointed(shipped_model("deepseek-v3-671b"), chip("b200"), asked)
    assert latent.wide_inputs
    assert latent.precision is Precision.NVFP4
    assert as_checkpointed(LARGE, chip("b200"), asked) == asked


def test_weights_of_four_bits_take_a_quarter_of_the_room() -> None:
    model = shipped_model("gpt-oss-20b")
    wide = weight_bytes(model, ServingLayout(precision=Precision.BF16))
    narrow = weight_bytes(model, ServingLayout(precision=Precision.BF16, narrow_experts=True))
    assert 11e9 < narrow < 15e9  # the checkpoint has 13.8 GB
    assert narrow < 0.4 * wide
