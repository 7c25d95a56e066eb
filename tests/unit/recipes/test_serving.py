"""What a serving step launches: which kernel writes the format that the next product reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.program import kernels
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec
from windtunnel.recipes.architecture import GroupedQuery
from windtunnel.recipes.layers.cached import Batch, softmax_core
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving import forward_step
from windtunnel.recipes.serving_layout import Imbalance, ServingLayout
from windtunnel.specs.model_catalogue import shipped_model

EIGHT_BIT = "float8_e4m3fn"


def step(model: str, precision: Precision, batch: Batch) -> list[OpSpec]:
    program = forward_step(shipped_model(model), ServingLayout(precision=precision, graphs=False), [batch])
    return [program.specs[program.site(event).spec] for event in program.events.tolist()]


def casts(ops: list[OpSpec]) -> list[OpSpec]:
    return [
        op
        for op in ops
        if op.name == kernels.FUSED and op.outputs[0].dtype == EIGHT_BIT != op.inputs[0].dtype
    ]


def test_norms_and_activations_write_what_products_with_one_scale_read() -> None:
    ops = step("llama3-8b", Precision.FP8, Batch(sequences=64, context=512))
    norms = [op for op in ops if op.name == kernels.FUSED_ADD_RMS_NORM]
    assert {op.outputs[0].dtype for op in norms} == {EIGHT_BIT}
    assert {op.outputs[0].dtype for op in ops if op.name == kernels.SWIGLU} == {EIGHT_BIT}
    assert len(casts(ops)) == 32  # attention's output, once a layer


def test_blocks_of_scales_are_cast_apart() -> None:
    ops = step("llama3-8b", Precision.FP8_BLOCK, Batch(sequences=64, context=512))
    assert len(casts(ops)) == 4 * 32
    assert EIGHT_BIT not in {op.outputs[0].dtype for op in ops if op.name == kernels.SWIGLU}


@pytest.mark.parametrize(
    ("batch", "written"), [(Batch(sequences=64, context=512), 1), (Batch(sequences=1, new=512), 0)]
)
def test_experts_activations_write_blocks_where_the_layout_is_masked(batch: Batch, written: int) -> None:
    ops = step("qwen3-30b-a3b", Precision.FP8_BLOCK, batch)
    activations = [op for op in ops if op.name == kernels.SWIGLU]
    assert activations
    assert sum(op.outputs[0].dtype == EIGHT_BIT for op in activations) == written * len(activations)


def test_small_kernels_between_products_are_launched() -> None:
    """Norms of queries and keys, gates of outputs and of shared experts, decay and beta: as vLLM's models have them."""
    ops = step("qwen3.5-35b-a3b", Precision.BF16, Batch(sequences=4, context=512))
    narrow = [spec.inputs[1].shape[-1] for spec in ops if spec.name.startswith("aten.mm")]
    assert narrow.count(1) == 40  # a gate of the shared expert in every layer
    assert narrow.count(2 * 32) == 30  # decay and beta of every delta layer
    norms = [spec.inputs[0].shape[-1] for spec in ops if spec.name == kernels.RMS_NORM]
    assert norms.count(256) == 10  # queries and keys of every attention layer
    joined = [spec for spec in ops if spec.name == kernels.FUSED and spec.attribute("ops", 0) == 6]
    assert len(joined) == 40 + 10
    deepseek = step("deepseek-v3-671b", Precision.FP8_BLOCK, Batch(sequences=4, context=512))
    added = [
        spec for spec in deepseek if spec.name == kernels.FUSED and spec.inputs == (spec.outputs[0],) * 2
    ]
    assert len(added) == 58


GQA = GroupedQuery(heads=40, kv_heads=8, head_dim=128)


def test_tokens_see_their_own_stretch_only() -> None:
    chunked = replace(GQA, chunk=8192)

    def pairs(new: int, context: int, shape: GroupedQuery) -> float:
        batch = Batch(sequences=2, new=new, context=context)
        *_, core = softmax_core(shape, 1, batch, "bfloat16", "bfloat16")
        return work_of(core).flops

    assert pairs(512, 1024, chunked) == pairs(512, 1024, GQA)  # all in the first stretch
    assert pairs(1, 8000, chunked) == pairs(1, 8000, GQA)
    # beyond it, a token stands in the middle of its stretch on average
    assert pairs(1, 100_000, chunked) == pytest.approx(pairs(1, 4096, GQA), rel=0.01)
    assert pairs(1, 100_000, chunked) == pairs(1, 200_000, chunked)
    # a long prompt is so many stretches, each a triangle
    assert pairs(32_768, 0, chunked) == pytest.approx(4 * pairs(8192, 0, GQA), rel=0.01)
    assert pairs(2048, 65_536, chunked) < 0.2 * pairs(2048, 65_536, GQA)


def test_the_cache_is_written_for_every_new_token() -> None:
    chunked = replace(GQA, chunk=1024)
    write, _ = softmax_core(chunked, 1, Batch(sequences=1, new=4096), "bfloat16", "bfloat16")
    assert write.outputs[0].shape[0] == 4096


def test_experts_of_prompts_sum_what_came_to_the_rank() -> None:
    """Gathered rows become the tokens that all ranks sent here, not this rank's own: combine sends those back."""
    layout = ServingLayout(data=32, expert=32, precision=Precision.FP8_BLOCK, graphs=False, drawn=False)
    program = forward_step(shipped_model("deepseek-v3-671b"), layout, [Batch(sequences=1, new=4096)])
    found = {spec.name: spec for spec in program.specs}
    came = found[kernels.MOE_UNPERMUTE].outputs[0].shape[0]
    # four of eight groups are 16 of 32 ranks, of which eight choices reach 6.45
    assert came == pytest.approx(4096 * 16 * (1 - (15 / 16) ** 8), abs=1)
    assert found[kernels.MOE_PERMUTE].inputs[0].shape[0] == came
    uneven = forward_step(
        shipped_model("deepseek-v3-671b"),
        replace(layout, imbalance=Imbalance(1.25, 1.25, 1.25)),
        [Batch(sequences=1, new=4096)],
    )
    more = next(spec for spec in uneven.specs if spec.name == kernels.MOE_UNPERMUTE)
    assert more.outputs[0].shape[0] == pytest.approx(1.25 * came, abs=1)
