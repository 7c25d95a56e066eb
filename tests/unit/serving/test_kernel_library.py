"""Which library prices a kernel under which engine, and that it matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.program import kernels
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.program.work import Family
from windtunnel.recipes.architecture import GroupedQuery, Latent
from windtunnel.recipes.layers.cached import Batch, latent_core, softmax_core
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.piece import op, tensor
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack, library_of
from windtunnel.serving.prices import OpPrices
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of


def prompt() -> OpSpec:
    return softmax_core(
        GroupedQuery(heads=32, kv_heads=8, head_dim=128),
        1,
        Batch(sequences=4, new=4096),
        "bfloat16",
        "bfloat16",
    )[1]


def experts() -> OpSpec:
    f8 = "float8_e4m3fn"
    a, b = tensor(f8, 8192, 7168), tensor(f8, 8, 7168, 4096)
    scales = tensor("float32", 8192, 56), tensor("float32", 8, 56, 32)
    return op(kernels.SCALED_GROUPED_GEMM, (a, b, *scales), (tensor("bfloat16", 8192, 4096),), top_k=8)


@pytest.mark.parametrize(
    ("stack", "card", "library"),
    [
        (Stack.VLLM, "h100-sxm", "fa3@vllm"),
        (Stack.VLLM, "a100-80g", "fa2@vllm"),
        (Stack.SGLANG, "h20", "fa3@sglang"),
        (Stack.TRTLLM, "h100-sxm", "trtllm@trtllm"),
        (Stack.VLLM, "mtt-s5000", "mate"),
    ],
)
def test_prompts_run_the_engines_attention(stack: Stack, card: str, library: str) -> None:
    assert library_of(stack, work_of(prompt()), chip(card)) == library


def gated_delta(sequences: int, length: int, name: str = kernels.GATED_DELTA_CHUNK) -> OpSpec:
    """Qwen3.5-397B's eight value heads of one card of eight."""
    keys, values = (
        tensor("bfloat16", sequences, length, 2, 128),
        tensor("bfloat16", sequences, length, 8, 128),
    )
    gate = tensor("float32", sequences, length, 8)
    state = tensor("float32", sequences, 8, 128, 128)
    return op(name, (keys, keys, values, gate, gate, state), (values, state), chunk=64)


@pytest.mark.parametrize("stack", [Stack.VLLM, Stack.SGLANG])
def test_prompts_of_gated_deltanet_run_mates_program_on_moore_threads_alone(stack: Stack) -> None:
    work = work_of(gated_delta(4, 4096))
    assert library_of(stack, work, chip("mtt-s5000")) == "tilelang"
    assert library_of(stack, work, chip("h20")) == ""
    one = work_of(gated_delta(64, 1, kernels.GATED_DELTA_RECURRENT))
    assert library_of(stack, one, chip("mtt-s5000")) == ""


def test_mates_gated_deltanet_takes_what_its_rows_say() -> None:
    """Measured forward and backward, 32 heads of 4,096 tokens: 2.31 ms in TileLang, 13.92 ms in Triton. Forward is less
    than half of either; four sequences of eight heads are as many heads.
    """
    card = cluster_of("mtt-s5000", 8)
    spec = gated_delta(4, 4096)
    engine = OpPrices(card, ()).total([spec]).device
    assert 2.31e-3 / 4 < engine < 2.31e-3 / 2
    assert engine < 13.92e-3 / 4


def test_blocks_of_experts_run_deepgemm() -> None:
    work = work_of(experts())
    assert library_of(Stack.VLLM, work, chip("h800")) == "deepgemm"
    assert library_of(Stack.SGLANG, work, chip("h100-sxm")) == "deepgemm@sglang"


def test_the_library_changes_the_price() -> None:
    cluster = cluster_of("h100-sxm", 1)
    times = {stack: OpPrices(cluster, (), stack).total([experts()]).device for stack in Stack}
    assert times[Stack.VLLM] == pytest.approx(times[Stack.SGLANG], rel=0.2)
    default = OpPrices(cluster, ()).cost.kernel_time(work_of(experts())).seconds
    assert times[Stack.SGLANG] < 0.9 * default


def test_a_sum_fused_with_its_product_hides_under_it_or_it_under_the_sum() -> None:
    model, cluster = shipped_model("llama3-70b"), cluster_of("b200", 4)
    plain = DeploymentOptions(tensor_parallel_size=4, precision=Precision.NVFP4, stack=Stack.TRTLLM)
    apart, fused = (
        deploy(model, cluster, replace(plain, gemm_allreduce_plugin=on)).step.priced(
            Batch(sequences=1, new=2048)
        )
        for on in (False, True)
    )
    assert 0 < fused.network < 0.7 * apart.network
    assert apart.device - fused.device == pytest.approx(apart.network - fused.network, rel=0.3)
    assert fused.low < fused.device < fused.high


@pytest.mark.parametrize("card", ["mtt-s5000", "gb200"])
@pytest.mark.parametrize("stack", [Stack.VLLM, Stack.SGLANG])
def test_an_8_bit_latent_cache_is_read_and_not_widened(stack: Stack, card: str) -> None:
    """Half the bytes never take longer where MATE's FlashMLA or TensorRT-LLM's kernels read them."""
    seconds = []
    for cache in ("bfloat16", "float8_e4m3fn"):
        options = DeploymentOptions(precision=Precision.FP8_BLOCK, stack=stack, kv_cache_dtype=cache)
        found = deploy(shipped_model("deepseek-v3-671b"), cluster_of(card, 32), options)
        seconds.append(found.step.decode_s(64, 64 * 20_000))
    assert seconds[1] < seconds[0]


@pytest.mark.parametrize(
    ("stack", "card", "library"),
    [
        (Stack.VLLM, "b200", "trtllm@trtllm-mla"),
        (Stack.SGLANG, "gb300", "trtllm@trtllm-mla"),
        (Stack.TRTLLM, "gb200", "trtllm@trtllm-mla"),
        (Stack.VLLM, "h200", "fa3@vllm-mla"),
        (Stack.SGLANG, "h100-sxm", "fa3_absorbed@sglang-mla"),
        (Stack.SGLANG, "h800", "flashmla"),
    ],
)
def test_latent_decoding_on_blackwell_is_tensorrt_llms(stack: Stack, card: str, library: str) -> None:
    mixer = Latent(heads=128, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
    cores = latent_core(mixer, 1, Batch(sequences=64, context=4096), "bfloat16", "bfloat16")
    (core,) = (work for work in map(work_of, cores) if work.family is Family.DECODE_ATTENTION)
    assert library_of(stack, core, chip(card)) == library
