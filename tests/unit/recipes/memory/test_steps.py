"""Steps written buffer by buffer: what is left behind, what counting says, and what the allocator makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.memory.replay import memory_result
from windtunnel.memory.settings import AllocatorSettings
from windtunnel.program.program import Category, Program
from windtunnel.recipes.fit.replayed import replayed_memory
from windtunnel.recipes.fit.training import Optimizer, training_memory
from windtunnel.recipes.layout import EagerCode, Layout, Recompute, Sharding
from windtunnel.recipes.memory.training import sharded_program, stage_program
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_catalogue import shipped_model

CHIP = chip("h100-sxm")
LLAMA = replace(shipped_model("llama3-8b"), layers=shipped_model("llama3-8b").layers[:4])
DEEPSEEK = replace(shipped_model("deepseek-v3-671b"), layers=shipped_model("deepseek-v3-671b").layers[2:5])
QWEN = replace(shipped_model("qwen3.5-397b-a17b"), layers=shipped_model("qwen3.5-397b-a17b").layers[:4])
MODELS = {"llama": LLAMA, "deepseek": DEEPSEEK, "qwen": QWEN}


def layout(**changes: object) -> Layout:
    return Layout(
        **({"cards": 8, "global_batch": 8, "sequence": 2048, "sharding": Sharding.FSDP} | changes)  # type: ignore[arg-type]
    )


def left(program: Program) -> dict[Category, int]:
    """Bytes never freed, by category."""
    found = lifetimes_of(program)
    alive = found.died >= len(program.events)
    chosen = program.storage_category[alive]
    sizes = program.storage_bytes[alive]
    return {Category(int(c)): int(sizes[chosen == c].sum()) for c in set(chosen.tolist())}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("recompute", [Recompute.NONE, Recompute.SELECTIVE_OPS, Recompute.FULL])
def test_a_sharded_step_leaves_parameters_and_state_and_nothing_else(
    name: str, fused: bool, recompute: Recompute
) -> None:
    for eager in EagerCode:
        asked = layout(fused=fused, recompute=recompute, eager=eager, ends_apart=True)
        found = left(sharded_program(MODELS[name], asked, Optimizer.ADAMW.state_bytes))
        parameters = MODELS[name].parameters
        shards = found.pop(Category.PARAMETER)
        assert shards == pytest.approx(4 * parameters / 8, rel=0.01)
        assert found.pop(Category.OPTIMIZER_STATE) == 2 * shards
        assert not any(found.values())


@given(
    st.sampled_from(sorted(MODELS)),
    st.sampled_from([Recompute.NONE, Recompute.FULL]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.sampled_from([Sharding.FSDP, Sharding.ZERO1]),
)
@settings(deadline=None, max_examples=40)
def test_replaying_and_counting_agree_on_live_memory(
    name: str, recompute: Recompute, tensor: int, batch: int, fused: bool, sharding: Sharding
) -> None:
    asked = layout(
        recompute=recompute, tensor=tensor, micro_batch=batch, global_batch=16, fused=fused, sharding=sharding,
        ends_apart=True, eager=EagerCode.TRANSFORMERS,
    )  # fmt: skip
    replayed, counted = replayed_memory(CHIP, MODELS[name], asked), training_memory(MODELS[name], asked)
    assert replayed.allocated == pytest.approx(counted.allocated, rel=0.15)
    assert replayed.reserved >= replayed.allocated


def test_what_is_computed_again_is_not_kept() -> None:
    ways = (Recompute.NONE, Recompute.SELECTIVE_OPS, Recompute.FULL)
    kept = [replayed_memory(CHIP, LLAMA, layout(recompute=way, sequence=16384)).activations for way in ways]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 1.2 * kept[2] > 0


def test_pages_instead_of_segments_leave_less_unused() -> None:
    asked = layout(sequence=8192)
    fixed = replayed_memory(CHIP, LLAMA, asked)
    pages = replayed_memory(CHIP, LLAMA, asked, settings=AllocatorSettings(expandable_segments=True))
    assert fixed.allocated == pages.allocated
    assert pages.reserved < fixed.reserved


def test_the_first_stage_of_a_pipeline_holds_as_many_micro_batches_as_stages_follow() -> None:
    whole = shipped_model("llama3-8b")
    asked = layout(pipeline=4, global_batch=32, sharding=Sharding.ZERO1)
    kept = []
    for stage in range(4):
        result = memory_result(stage_program(whole, asked, 8, stage), CHIP)
        parts = dict(result.peak_by_category)
        kept.append(parts["activation"])
    assert kept[0] > kept[1] > kept[2]
    found = left(stage_program(whole, asked, 8, 1))
    layers = 2 * sum(whole.layer_parameters(layer) for layer in whole.layers[8:16])
    assert found[Category.PARAMETER] == layers
    assert found[Category.GRADIENT] == 2 * layers


def test_interleaved_chunks_run_in_the_order_of_their_schedule() -> None:
    """More micro-batches in flight than without chunks: (p - 1) / (p v) of them (arXiv 2205.05198, 4.2.3)."""
    whole = shipped_model("llama3-8b")
    asked = layout(pipeline=4, global_batch=32, sharding=Sharding.ZERO1)

    def activations(chunks: int) -> float:
        program = stage_program(whole, replace(asked, chunks=chunks), 8, 0)
        return dict(memory_result(program, CHIP).peak_by_category)["activation"]

    assert activations(2) / activations(1) == pytest.approx(1 + 3 / 8, rel=0.05)


def test_sharded_stages_keep_what_they_gathered_and_sum_whole_gradients() -> None:
    whole = shipped_model("llama3-8b")
    asked = layout(pipeline=2, global_batch=16)
    replayed, counted = replayed_memory(CHIP, whole, asked), training_memory(whole, asked)
    assert replayed.allocated == pytest.approx(counted.allocated, rel=0.1)


def test_pictures_take_memory() -> None:
    model = shipped_model("qwen3-vl-8b")
    assert model.vision is not None
    asked = layout(fused=False, eager=EagerCode.TRANSFORMERS, ends_apart=True)
    words = replayed_memory(CHIP, model, asked)
    pictures = replayed_memory(CHIP, model, asked, patches=4096)
    blocks = model.vision.layers * 4096 * model.vision.hidden * 2
    assert pictures.allocated - words.allocated > 10 * blocks
