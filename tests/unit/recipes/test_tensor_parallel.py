"""Tensor parallelism as DTensor and as Megatron-LM run it: what is exchanged, copied and computed again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.unit.recipes.architectures import DEEPSEEK_V3, LLAMA_8B
from windtunnel.network.collective import kind_of, message_bytes
from windtunnel.program.kernels import FUSED
from windtunnel.program.program import Program
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.groups import TENSOR
from windtunnel.recipes.layout import EagerCode, HostLoad, Layout, Precision, Recompute, Sharding
from windtunnel.recipes.training import training_step

LAYERS = 4
MODEL = replace(LLAMA_8B, layers=LLAMA_8B.layers[:LAYERS])
DTENSOR = Layout(
    cards=8,
    global_batch=8,
    micro_batch=2,
    sequence=2048,
    tensor=2,
    sharding=Sharding.FSDP,
    fused=False,
    eager=EagerCode.TORCHTITAN,
)
MEGATRON = replace(DTENSOR, sharding=Sharding.ZERO1)
COMPILED = replace(DTENSOR, fused=True, host=HostLoad.COMPILED)


def program(layout: Layout, part: Part, model: Architecture = MODEL) -> Program:
    return training_step(model, layout).program(0, part, 0)


def exchanged(layout: Layout, part: Part, model: Architecture = MODEL) -> Counter[str]:
    """Messages over the tensor-parallel ranks that are as large as activations, by kind."""
    found: Counter[str] = Counter()
    built = program(layout, part, model)
    for event in built.events.tolist():
        spec = built.specs[built.site(event).spec]
        if spec.name.startswith("c10d.") and spec.attribute("group") == TENSOR and message_bytes(spec) > 1e6:
            found[str(kind_of(spec.name))] += 1
    return found


def count(layout: Layout, part: Part, name: str, model: Architecture = MODEL) -> int:
    """Operations of one name in parts that only tensor parallelism has."""
    built = program(layout, part, model)
    sites = [built.site(event) for event in built.events.tolist()]
    tags = ("gather", "scatter", "copy", "embedding")
    return sum(
        built.specs[site.spec].name.startswith(name) and built.scopes[site.scope].endswith(tags)
        for site in sites
    )


def flops(built: Program) -> float:
    return sum(built.works[built.site(event).spec].flops for event in built.events.tolist())


def test_dtensor_gathers_once_a_module_and_megatron_again_for_the_weight_gradients() -> None:
    modules = 2 * LAYERS
    # the embedding's sums are scattered, the output product's input is gathered
    assert exchanged(DTENSOR, Part.FORWARD) == {"all_gather": modules + 1, "reduce_scatter": modules + 1}
    assert exchanged(DTENSOR, Part.BACKWARD) == {"all_gather": modules + 1, "reduce_scatter": modules + 1}
    assert exchanged(MEGATRON, Part.FORWARD) == exchanged(DTENSOR, Part.FORWARD)
    assert exchanged(MEGATRON, Part.BACKWARD)["all_gather"] == 2 * (modules + 1)


def test_without_sequence_parallelism_sums_are_all_reduced() -> None:
    whole = replace(DTENSOR, sequence_parallel=False)
    assert exchanged(whole, Part.FORWARD) == {"all_reduce": 2 * LAYERS + 1}
    assert exchanged(whole, Part.BACKWARD) == {"all_reduce": 2 * LAYERS + 1}


@pytest.mark.parametrize(("sequences", "gathers"), [(1, 0), (2, 2 * LAYERS + 1)])
def test_what_is_gathered_is_copied_only_where_there_are_several_sequences(
    sequences: int, gathers: int
) -> None:
    layout = replace(DTENSOR, micro_batch=sequences)
    scatters = 2 * LAYERS + 1
    assert count(layout, Part.FORWARD, "aten.cat") == gathers + scatters
    assert count(replace(MEGATRON, micro_batch=sequences), Part.FORWARD, "aten.cat") == 0


def test_latent_attention_gathers_once_and_does_its_down_products_whole() -> None:
    model = replace(DEEPSEEK_V3, layers=DEEPSEEK_V3.layers[:1])
    assert exchanged(DTENSOR, Part.FORWARD, model)["all_gather"] == 3  # attention, feed-forward, output
    assert flops(program(DTENSOR, Part.FORWARD, model)) > flops(program(MEGATRON, Part.FORWARD, model))


def test_compiled_layers_do_not_compute_the_last_product_again() -> None:
    full = replace(COMPILED, recompute=Recompute.FULL)
    again = flops(program(full, Part.BACKWARD)) - flops(program(COMPILED, Part.BACKWARD))
    ffn = MODEL.layers[0].ffn
    down = 2 * COMPILED.tokens * ffn.width * MODEL.hidden / COMPILED.tensor  # type: ignore[union-attr]
    eager = replace(DTENSOR, recompute=Recompute.FULL)
    whole = flops(program(eager, Part.BACKWARD)) - flops(program(DTENSOR, Part.BACKWARD))
    assert whole - again == pytest.approx(LAYERS * down, rel=1e-6)


def test_asynchronous_products_need_no_copies_and_add_their_shares_up() -> None:
    layout = replace(COMPILED, overlap_tensor=True)
    assert count(layout, Part.FORWARD, "aten.cat") == count(layout, Part.BACKWARD, "aten.cat") == 0
    built = program(layout, Part.FORWARD)
    names = [built.specs[built.site(event).spec].name for event in built.events.tolist()]
    assert names.count("aten.sum.dim_IntList") == 2 * LAYERS


def test_compiled_products_stay_apart_and_sums_of_several_are_not_pipelined() -> None:
    model = replace(COMPILED, eager=EagerCode.TORCHTITAN_2024, overlap_tensor=True)
    waited = exposed(model, Part.BACKWARD)
    # gradients of a module's input are sums of several products: scattered alone, every other exchange beside one
    assert waited == Counter({"reduce_scatter": 2 * LAYERS})
    assert not exposed(model, Part.FORWARD)
    joined = replace(model, eager=EagerCode.TORCHTITAN)  # queries, keys and values are one product there
    assert exposed(joined, Part.BACKWARD) == Counter({"reduce_scatter": LAYERS})


def test_row_wise_products_are_not_pipelined_with_gathers() -> None:
    layout = replace(COMPILED, overlap_tensor=True, precision=Precision.FP8_ROW)
    assert exposed(layout, Part.FORWARD) == Counter({"all_gather": 2 * LAYERS})


def exposed(layout: Layout, part: Part) -> Counter[str]:
    """Exchanges of activations among tensor-parallel ranks that nothing runs beside, the head's aside."""
    found: Counter[str] = Counter()
    built = program(layout, part)
    for event in built.events.tolist():
        site = built.site(event)
        spec = built.specs[site.spec]
        layer = built.scopes[site.scope] in ("qkv", "up", "attention out", "down")
        if layer and spec.name.startswith("c10d.") and spec.attribute("group") == TENSOR:
            small = message_bytes(spec) < 1e6
            last_share = spec.inputs[0].shape[0] < layout.tokens and kind_of(spec.name) == "reduce_scatter"
            if spec.attribute("work", -1) < 0 and not small and not last_share:
                found[str(kind_of(spec.name))] += 1
    return found


def test_row_wise_eight_bits_are_gathered_in_sixteen_and_cast_both_ways_apart() -> None:
    wise = {kind: replace(COMPILED, precision=kind) for kind in (Precision.FP8, Precision.FP8_ROW)}
    gathered = {kind: gathered_dtypes(layout) for kind, layout in wise.items()}
    assert gathered[Precision.FP8] == {"float8_e4m3fn"}
    assert gathered[Precision.FP8_ROW] == {"bfloat16"}
    casts = {kind: casts_of(layout) for kind, layout in wise.items()}
    assert casts[Precision.FP8_ROW] > casts[Precision.FP8]


def gathered_dtypes(layout: Layout) -> set[str]:
    built = program(layout, Part.FORWARD)
    return {
        spec.inputs[0].dtype
        for spec in built.specs
        if spec.name.endswith("_allgather_base_") and spec.attribute("group") == TENSOR
    }


def casts_of(layout: Layout) -> int:
    """Passes over activations that end in eight bits, backward."""
    built = program(layout, Part.BACKWARD)
    specs = [built.specs[built.site(event).spec] for event in built.events.tolist()]
    return sum(
        spec.name == FUSED
        and spec.outputs[0].dtype == "float8_e4m3fn"
        and spec.inputs[0].shape[0] == layout.tokens
        for spec in specs
    )


def test_megatron_of_2021_sums_after_both_gradients_drops_and_adds() -> None:
    layout = replace(
        MEGATRON,
        fused=True,
        sharding=Sharding.DDP,
        sequence_parallel=False,
        reduce_in_fp32=False,
        host=HostLoad.EAGER_2021,
    )
    backward = program(layout, Part.BACKWARD)
    names = [backward.specs[backward.site(event).spec].name for event in backward.events.tolist()]
    # four products a layer, the output's and the embedding's
    assert names.count("aten.add_.Tensor") == 4 * LAYERS + 2
    assert names.count("aten.native_dropout_backward.default") == 2 * LAYERS
    assert tensor_sums(backward) == {False}
    assert tensor_sums(program(replace(layout, host=HostLoad.FUSED), Part.BACKWARD)) == {True}


def tensor_sums(built: Program) -> set[object]:
    """Whether sums over the tensor-parallel ranks run beside other work."""
    sums = [
        spec for spec in built.specs if spec.name.endswith("allreduce_") and spec.attribute("group") == TENSOR
    ]
    return {spec.attribute("async_op") for spec in sums}
