"""Recipes against closed forms: parameters, FLOPs, what splitting and recomputing do, bytes on the wire."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.recipes.architectures import DEEPSEEK_V3, LLAMA_8B, LLAMA_70B, QWEN35_397B, SMALL, VISION
from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import Collective, kind_of, message_bytes
from windtunnel.program.count import is_counted
from windtunnel.program.program import Phase, Program, StepKind
from windtunnel.program.work import Family
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.recipes.serving import forward_step
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.recipes.training import TrainingRecipe, Unit, training_program, training_step

ONE = Layout(cards=1, global_batch=1, sequence=4096)


def flops(program: Program, phase: Phase | None = None) -> float:
    sites = [program.site(number) for number in program.events.tolist()]
    return sum(program.works[s.spec].flops for s in sites if phase is None or s.phase == phase)


def collectives(program: Program) -> Counter[Collective]:
    found: Counter[Collective] = Counter()
    for number in program.events.tolist():
        spec = program.specs[program.site(number).spec]
        if spec.name.startswith("c10d."):
            found[kind_of(spec.name)] += message_bytes(spec)
    return found


def micro_batch_flops(recipe: TrainingRecipe) -> float:
    """Forward and backward of one micro-batch through all chunks, on one rank of each stage."""
    return sum(
        flops(recipe.program(chunk.virtual, part, 0))
        for chunk in recipe.chunks
        for part in (Part.FORWARD, Part.BACKWARD)
    )


def expected_flops(model: Architecture, layout: Layout, products: float) -> float:
    """6 FLOPs a parameter and token; attention: 2 products forward, 5 backward, of s^2 h d."""
    tokens = layout.micro_batch * layout.sequence
    attention = 0.0
    for shape in model.layers:
        mixer = shape.mixer
        width = mixer.heads * mixer.head_dim  # type: ignore[union-attr]
        attention += (2 + 5) * 2 * tokens * layout.sequence * width
    return 6 * products * tokens + attention


@pytest.mark.parametrize(("model", "billions"), [(LLAMA_8B, 8.03), (LLAMA_70B, 70.55), (DEEPSEEK_V3, 671.0)])
def test_parameters_are_those_published(model: Architecture, billions: float) -> None:
    recipe = training_step(model, ONE)
    assert recipe.parameters(0) == pytest.approx(billions * 1e9, rel=0.002)


def test_qwen35_parameters() -> None:
    """396.3 B in transformers' own model."""
    assert training_step(QWEN35_397B, ONE).parameters(0) == pytest.approx(396.3e9, rel=0.005)


@pytest.mark.parametrize("model", [LLAMA_8B, SMALL])
def test_flops_are_six_a_parameter_and_attention(model: Architecture) -> None:
    recipe = training_step(model, ONE)
    embedding = model.vocabulary * model.hidden
    products = recipe.parameters(0) - embedding
    assert micro_batch_flops(recipe) == pytest.approx(expected_flops(model, ONE, products), rel=1e-3)


layouts = st.builds(
    lambda tensor, context, data, micro: Layout(
        cards=tensor * context * data,
        tensor=tensor,
        context=context,
        micro_batch=micro,
        global_batch=micro * data,
        sequence=4096,
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.just(1),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
)


@settings(max_examples=20, deadline=None)
@given(layouts)
def test_tensor_parallel_ranks_share_the_work(layout: Layout) -> None:
    whole = micro_batch_flops(
        training_step(SMALL, replace(ONE, micro_batch=layout.micro_batch, global_batch=8))
    )
    part = micro_batch_flops(training_step(SMALL, layout))
    assert part * layout.tensor == pytest.approx(whole, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]))
def test_pipeline_chunks_sum_to_the_model(stages: int, chunks: int) -> None:
    if stages * chunks > 4:
        return
    layout = replace(ONE, cards=stages, pipeline=stages, chunks=chunks, global_batch=4)
    whole = training_step(SMALL, replace(ONE, global_batch=4))
    recipe = training_step(SMALL, layout)
    assert micro_batch_flops(recipe) == pytest.approx(micro_batch_flops(whole))
    assert sum(recipe.parameters(stage) for stage in range(stages)) == whole.parameters(0)


def test_full_recomputation_runs_the_layers_forward_again() -> None:
    plain, again = (
        training_step(LLAMA_8B, replace(ONE, recompute=r)).program(0, Part.BACKWARD, 0)
        for r in (Recompute.NONE, Recompute.FULL)
    )
    forward = flops(training_step(LLAMA_8B, ONE).program(0, Part.FORWARD, 0))
    head = 2 * 4096 * 4096 * 128256
    assert flops(again, Phase.RECOMPUTE) == pytest.approx(forward - head, rel=1e-6)
    assert flops(again) - flops(again, Phase.RECOMPUTE) == flops(plain)
    core = training_step(LLAMA_8B, replace(ONE, recompute=Recompute.SELECTIVE)).program(0, Part.BACKWARD, 0)
    assert flops(core, Phase.RECOMPUTE) == pytest.approx(32 * 4 * 4096.0 * 4096 * 4096)


def test_context_parallel_computes_half_the_square() -> None:
    """Zigzag over 4 ranks: one causal block and three rectangles of half the keys, counted as computed."""
    layout = replace(ONE, cards=4, context=4)
    program = training_step(SMALL, layout).program(0, Part.FORWARD, 0)
    attention = sum(
        program.works[program.site(n).spec].flops
        for n in program.events.tolist()
        if program.works[program.site(n).spec].family is Family.ATTENTION
    )
    block = 4 * 1024.0 * 1024 * 1024 * 4  # layers x q x k x width x 2 products x 2
    assert attention == pytest.approx(4 * block / 4 * (1 + 3 * 0.5))


def test_sequence_parallel_bytes_are_megatrons() -> None:
    """Per layer: 2 gathers + 2 scatters forward, 4 + 2 backward (inputs gathered again), of all tokens."""
    layout = replace(ONE, cards=8, tensor=8)
    recipe = training_step(SMALL, layout)
    size = 4096 * 1024 * 2
    forward = collectives(recipe.program(0, Part.FORWARD, 0))
    assert forward[Collective.ALL_GATHER] == (2 * 4 + 1) * size  # and the output product
    assert forward[Collective.REDUCE_SCATTER] == (2 * 4 + 1) * size  # and the embedding
    backward = collectives(recipe.program(0, Part.BACKWARD, 0))
    assert backward[Collective.ALL_GATHER] == (4 * 4 + 2) * size
    assert backward[Collective.REDUCE_SCATTER] == (2 * 4 + 1) * size


@pytest.mark.parametrize("sharding", list(Sharding))
def test_gradients_are_exchanged_once_a_step(sharding: Sharding) -> None:
    layout = replace(ONE, cards=8, global_batch=32, sharding=sharding, reduce_in_fp32=True)
    recipe = training_step(SMALL, layout)
    programs = [recipe.program(0, part, m) for m in range(4) for part in (Part.FORWARD, Part.BACKWARD)]
    total: Counter[Collective] = Counter()
    for program in programs:
        total += collectives(program)
    parameters = recipe.parameters(0)
    if sharding is Sharding.DDP:
        assert total == {Collective.ALL_REDUCE: pytest.approx(4 * parameters, rel=1e-3)}
    elif sharding is Sharding.ZERO1:
        assert total[Collective.REDUCE_SCATTER] == pytest.approx(4 * parameters, rel=1e-3)
        assert total[Collective.ALL_GATHER] == pytest.approx(2 * parameters, rel=1e-3)
    else:
        assert total[Collective.REDUCE_SCATTER] == pytest.approx(4 * 4 * parameters, rel=1e-3)
        ends = 2 * 32000 * 1024 + 1024  # kept by the root module after forward
        gathered = 4 * 2 * (2 * parameters - ends)
        assert total[Collective.ALL_GATHER] == pytest.approx(gathered, rel=1e-3)


@pytest.mark.parametrize("precision", [Precision.FP8, Precision.FP8_BLOCK, Precision.MXFP8])
def test_eight_bit_products_leave_the_ends_alone(precision: Precision) -> None:
    program = training_step(SMALL, replace(ONE, precision=precision)).program(0, Part.FORWARD, 0)
    by_precision: Counter[str] = Counter()
    for number in program.events.tolist():
        work = program.works[program.site(number).spec]
        if work.family is Family.GEMM:
            by_precision[work.precision] += work.flops
    assert by_precision["bf16"] == 2 * 4096 * 1024 * 32000
    assert by_precision["fp8"] > by_precision["bf16"]


def test_every_operation_is_counted() -> None:
    big = Layout(cards=64, tensor=2, pipeline=2, expert=8, global_batch=64, sequence=4096)
    models = [DEEPSEEK_V3, QWEN35_397B, replace(SMALL, vision=VISION)]
    for model in models:
        recipe = training_step(model, replace(big, expert=1) if model is models[2] else big)
        programs = [recipe.program(0, part, m) for part in Part for m in (0, 15)] + [recipe.optimizer(0)]
        names = {spec.name for program in programs for spec in program.specs}
        assert {name for name in names if not is_counted(name)} == set()
        families = {work.family for program in programs for work in program.works}
        assert Family.UNKNOWN not in families


def test_a_vision_tower_adds_its_own_work() -> None:
    plain, seeing = SMALL, replace(SMALL, vision=VISION)
    more = micro_batch_flops(training_step(seeing, ONE)) - micro_batch_flops(training_step(plain, ONE))
    block = 1152 * (4 * 1152 + 2 * 4304)
    merger = 1024 // 4 * (4608 * 4608 + 4608 * 1024)
    products = 1024 * (2 * block + 1536 * 1152) + merger
    attention = 2 * 7 * 2 * 1024.0 * 1024 * 1152
    pictures = 2 * 1024 * 1536 * 1152  # nobody wants their gradient
    assert more == pytest.approx(6 * products - pictures + attention, rel=1e-6)


def test_one_rank_written_in_order_is_its_parts() -> None:
    recipe = training_step(SMALL, replace(ONE, global_batch=3))
    order = [Unit(part, m, 0) for m in range(3) for part in (Part.FORWARD, Part.BACKWARD)]
    program = training_program(recipe, 0, order)
    assert flops(program) == pytest.approx(3 * micro_batch_flops(recipe))
    assert program.last_step().kind is StepKind.TRAIN
    assert program.last_step().tokens == 3 * 4096


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": 3},
        {"cards": 8, "tensor": 2, "global_batch": 6},
        {"cards": 8, "global_batch": 8, "expert": 3},
        {"cards": 8, "global_batch": 8, "fsdp_shard": 3},
        {"micro_batch": 0},
    ],
)
def test_layouts_that_do_not_multiply_up_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(WindtunnelError) as caught:
        replace(ONE, **change)
    assert caught.value.code == "E205"


def test_more_chunks_than_layers_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        training_step(SMALL, replace(ONE, cards=8, pipeline=8, global_batch=8))
    assert caught.value.code == "E206"


def test_serving_decode_reads_every_weight_once() -> None:
    program = forward_step(LLAMA_8B, ServingLayout(), [Batch(sequences=1, context=1)])
    read = sum(program.works[program.site(n).spec].bytes_read for n in program.events.tolist())
    weights = 2 * (8.03e9 - 128256 * 4096)
    assert read == pytest.approx(weights, rel=0.01)
    assert program.last_step().kind is StepKind.DECODE


def test_serving_prefill_is_the_training_forward() -> None:
    program = forward_step(SMALL, ServingLayout(), [Batch(sequences=1, new=4096)])
    forward = flops(training_step(SMALL, ONE).program(0, Part.FORWARD, 0))
    head = 2 * 4095 * 1024 * 32000  # logits of the last token only
    assert flops(program) == pytest.approx(forward - head)
    assert program.last_step().kind is StepKind.PREFILL


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 64), st.integers(1, 8192), st.sampled_from([1, 2, 4, 8]))
def test_serving_splits_share_the_work(sequences: int, context: int, ways: int) -> None:
    batch = [Batch(sequences=sequences, context=context)]
    whole = flops(forward_step(SMALL, ServingLayout(), batch))
    part = flops(forward_step(SMALL, ServingLayout(tensor=ways), batch))
    assert part * ways == pytest.approx(whole, rel=1e-9)


def test_wide_expert_parallel_exchanges_tokens_and_narrow_does_not() -> None:
    batch = [Batch(sequences=32, context=1024)]
    wide = collectives(forward_step(DEEPSEEK_V3, ServingLayout(data=32, expert=32), batch))
    narrow = collectives(forward_step(DEEPSEEK_V3, ServingLayout(tensor=8, expert=8), batch))
    assert set(wide) == {Collective.DISPATCH, Collective.COMBINE}
    assert set(narrow) == {Collective.ALL_REDUCE, Collective.ALL_GATHER}


def test_serving_layouts_that_do_not_divide_are_refused() -> None:
    with pytest.raises(WindtunnelError, match="expert parallel 6"):
        ServingLayout(tensor=8, expert=6)
    with pytest.raises(WindtunnelError, match="without tokens"):
        forward_step(SMALL, ServingLayout(), [])
