"""What the host issues, what graphs take off it, and how tokens travel between experts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.marks import GRAPH_END, GRAPH_LAUNCH, HOST_DELAY, ITEM
from windtunnel.program.program import Program
from windtunnel.recipes.architecture import Architecture, DenseFfn, GroupedQuery, LayerShape, MoeFfn
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layers.attention import SOFTMAX_HEADS, unfused_core
from windtunnel.recipes.layers.ends import head
from windtunnel.recipes.layout import (
    LAYERS,
    AttentionKernel,
    Dispatcher,
    GraphScope,
    Layout,
    LossKernel,
    Precision,
    Sharding,
)
from windtunnel.recipes.training import training_step
from windtunnel.specs.model import Norm
from windtunnel.specs.targets import cluster_of

LAYER = LayerShape(
    mixer=GroupedQuery(heads=16, kv_heads=4, head_dim=128),
    ffn=MoeFfn(experts=64, top_k=4, width=768),
)
MODEL = Architecture(hidden=2048, vocabulary=32000, layers=(LAYER,) * 4)
LAYOUT = Layout(cards=8, global_batch=8, sequence=1024, expert=8, counts_on_host=True, expert_calls=True)


def forward(layout: Layout) -> Program:
    return training_step(MODEL, layout).program(0, Part.FORWARD, 1)


def named(program: Program) -> Counter[str]:
    return Counter(program.specs[program.sites[event, 0]].name for event in program.events.tolist())


def step_s(layout: Layout) -> float:
    cluster = cluster_of("h100-sxm", layout.cards)
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster))
    return predictor.predict(training_step(MODEL, layout)).step_time_s.value


def test_the_host_waits_for_counts_once_a_layer_unless_the_step_is_captured() -> None:
    assert named(forward(LAYOUT))[ITEM] == 4
    assert named(forward(LAYOUT))[HOST_DELAY] == 8
    assert not named(forward(replace(LAYOUT, counts_on_host=False)))[ITEM]
    whole = named(forward(replace(LAYOUT, graphs=frozenset({GraphScope.STEP}))))
    assert (whole[ITEM], whole[HOST_DELAY], whole[GRAPH_LAUNCH], whole[GRAPH_END]) == (0, 0, 1, 1)


def test_captured_parts_are_launched_once_each() -> None:
    found = named(forward(replace(LAYOUT, graphs=LAYERS)))
    assert found[GRAPH_LAUNCH] == found[GRAPH_END] == 4  # attention with norm and router, of four layers


def test_small_steps_are_bound_by_the_host_and_graphs_free_them() -> None:
    eager, parts = step_s(LAYOUT), step_s(replace(LAYOUT, graphs=LAYERS))
    whole = step_s(replace(LAYOUT, graphs=frozenset({GraphScope.STEP})))
    assert whole < parts < eager
    assert whole < 0.6 * eager


def test_waiting_for_counts_costs_time() -> None:
    assert step_s(LAYOUT) > step_s(replace(LAYOUT, counts_on_host=False))


def test_an_all_to_all_sends_every_copy_and_sorts_twice() -> None:
    copies = named(forward(replace(LAYOUT, dispatcher=Dispatcher.ALL_TO_ALL)))
    assert copies["c10d.alltoall_base_"] == 4 * 3  # tokens and weights there, tokens back
    assert not named(forward(LAYOUT))["c10d.alltoall_base_"]


def test_experts_split_over_tensor_ranks_gather_and_scatter_their_tokens() -> None:
    split = replace(LAYOUT, cards=16, tensor=2, expert_tensor=2)
    whole = replace(split, expert_tensor=1)
    more = named(forward(split))
    less = named(forward(whole))
    assert more["c10d._allgather_base_"] == less["c10d._allgather_base_"] + 4
    assert more["c10d._reduce_scatter_base_"] == less["c10d._reduce_scatter_base_"] + 4


def test_losses_in_pieces_move_more_bytes() -> None:
    def passes(loss: LossKernel) -> float:
        pieces = head(MODEL, replace(LAYOUT, loss=loss), norm=Norm.RMS)
        specs = (*pieces[-1].forward, *pieces[-1].backward)
        return sum(t.nbytes for spec in specs for t in (*spec.inputs, *spec.outputs))

    assert passes(LossKernel.FUSED) < passes(LossKernel.COMPILED) < passes(LossKernel.IN_PIECES)


def test_heads_that_do_not_fill_a_block_fall_back_to_single_operations() -> None:
    full = unfused_core("float16", 1, 256, SOFTMAX_HEADS, 64, 64)
    odd = unfused_core("float16", 1, 256, SOFTMAX_HEADS // 2, 64, 64)
    assert len(odd.forward) == len(full.forward) + 4
    assert len(odd.backward) == len(full.backward) + 4


def test_packed_sequences_attend_to_themselves() -> None:
    whole = replace(LAYOUT, sequence=4096, attention=AttentionKernel.FLASH)
    packed = replace(whole, segment=256)
    recipe, short = training_step(MODEL, whole), training_step(MODEL, packed)
    flops = [
        sum(work.flops for work in r.program(0, Part.FORWARD, 1).works if "attention" in str(work.family))
        for r in (recipe, short)
    ]
    assert flops[1] < 0.1 * flops[0]


def test_megatrons_fsdp_copies_nothing() -> None:
    sharded = replace(LAYOUT, sharding=Sharding.FSDP, expert=1)
    copies = named(training_step(MODEL, sharded).program(0, Part.FORWARD, 0))
    none = named(training_step(MODEL, replace(sharded, zero_copy=True)).program(0, Part.FORWARD, 0))
    assert sum(copies.values()) > sum(none.values())
    assert copies["c10d._allgather_base_"] == none["c10d._allgather_base_"]


def test_overlapped_sums_leave_beside_their_product_but_for_the_last_share() -> None:
    dense = replace(MODEL, layers=(replace(LAYER, ffn=DenseFfn(width=8192)),) * 2)
    apart = Layout(cards=4, global_batch=2, sequence=4096, tensor=4)
    beside = replace(apart, overlap_tensor=True)
    programs = [training_step(dense, lay).program(0, Part.FORWARD, 1) for lay in (apart, beside)]
    whole, cut = (named(program) for program in programs)
    assert cut["aten.mm.default"] == whole["aten.mm.default"]
    assert cut["c10d._reduce_scatter_base_"] - whole["c10d._reduce_scatter_base_"] == 2 * 2
    assert cut["c10d._allgather_base_"] == whole["c10d._allgather_base_"]
    sent = []
    for program in programs:
        specs = [program.specs[program.sites[event, 0]] for event in program.events.tolist()]
        sent.append(sum(spec.inputs[0].nbytes for spec in specs if "_reduce_scatter" in spec.name))
    assert sent[1] == sent[0]  # a share of three in four and one of one in four


def test_what_eight_bit_products_gather_has_eight_bits() -> None:
    dense = replace(MODEL, layers=(replace(LAYER, ffn=DenseFfn(width=8192)),) * 2)
    layout = Layout(cards=4, global_batch=2, sequence=4096, tensor=4, precision=Precision.FP8)
    program = training_step(dense, layout).program(0, Part.FORWARD, 1)
    gathers = {spec.inputs[0].dtype for spec in program.specs if "_allgather" in spec.name}
    assert gathers == {"float8_e4m3fn", "bfloat16"}  # the output's product stays in 16 bits


def test_adapters_on_every_projection_add_products() -> None:
    dense = replace(MODEL, layers=(replace(LAYER, ffn=DenseFfn(width=8192)),))
    some = Layout(cards=1, global_batch=1, sequence=512, adapter_rank=16)
    few, all_of_them = (
        named(training_step(dense, lay).program(0, Part.FORWARD, 0))
        for lay in (some, replace(some, adapts_all=True))
    )
    assert all_of_them["aten.mm.default"] == few["aten.mm.default"] + 4
