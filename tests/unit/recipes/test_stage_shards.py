"""FSDP2 within a pipeline, and context parallelism by gathering: what is exchanged, when, and what it takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.network.collective import kind_of, message_bytes
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.program import Category, Phase, Program
from windtunnel.recipes.fit.training import fullest_stages
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.gathered_keys import BLOCK, computed_share
from windtunnel.recipes.layout import EagerCode, Layout, Sharding
from windtunnel.recipes.memory.training import stage_program
from windtunnel.recipes.training import Part, Unit, training_program, training_step
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.schedule import Schedule, order

MODEL = replace(shipped_model("llama3-8b"), layers=shipped_model("llama3-8b").layers[:8])
LAYOUT = Layout(
    cards=8, global_batch=16, sequence=2048, pipeline=2, sharding=Sharding.FSDP, fused=False,
    eager=EagerCode.TORCHTITAN, ends_apart=True,
)  # fmt: skip
CONTEXT = replace(LAYOUT, pipeline=1, global_batch=4, context=2)


def step(layout: Layout, stage: int = 0) -> Program:
    plan = order(Schedule(layout.schedule), layout.pipeline, layout.micro_batches, layout.chunks)
    units = [Unit(Part(str(one.kind)), one.micro_batch, one.virtual) for one in plan.stages[stage]]
    return training_program(training_step(architecture_of(MODEL), layout), stage, units)


def collectives(program: Program) -> dict[tuple[str, Phase], tuple[int, float]]:
    found: dict[tuple[str, Phase], tuple[int, float]] = {}
    for event in program.events.tolist():
        site = program.site(event)
        spec = program.specs[site.spec]
        if spec.name.startswith(COLLECTIVE_PREFIX) and message_bytes(spec) > 4096:
            key = str(kind_of(spec.name)), Phase(site.phase)
            count, total = found.get(key, (0, 0.0))
            found[key] = count + 1, total + message_bytes(spec)
    return found


def names(program: Program) -> Counter[str]:
    return Counter(program.specs[program.site(event).spec].name for event in program.events.tolist())


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
def test_a_stage_gathers_once_and_reduces_after_its_last_backward(schedule: str) -> None:
    one = collectives(step(replace(LAYOUT, schedule=schedule)))
    more = collectives(step(replace(LAYOUT, schedule=schedule, global_batch=32)))
    gathered, reduced = ("all_gather", Phase.FORWARD), ("reduce_scatter", Phase.OTHER)
    assert one[gathered] == more[gathered]
    assert one[reduced] == more[reduced]
    assert one[gathered][0] == one[reduced][0] == 1 + 4  # the embedding, and half of the layers
    assert one[reduced][1] == 2 * one[gathered][1]  # in FP32
    assert ("reduce_scatter", Phase.BACKWARD) not in one
    sent = 2 * 2048 * MODEL.hidden
    for way in ("send", "recv"):
        assert one[way, Phase.OTHER] == (4, 4 * sent)
        assert more[way, Phase.OTHER] == (8, 8 * sent)


def test_several_chunks_are_gathered_ahead() -> None:
    found = collectives(step(replace(LAYOUT, chunks=2, schedule="interleaved")))
    assert found["all_gather", Phase.OTHER][0] == 1 + 4
    assert ("all_gather", Phase.FORWARD) not in found


def test_whole_gradients_are_added_up_in_the_type_that_reduces() -> None:
    layers = 1 + 4
    four = names(step(LAYOUT))
    assert four["aten.add_.Tensor"] == 3 * layers  # of four micro-batches the first is kept
    narrow = names(step(replace(LAYOUT, reduce_in_fp32=False)))
    assert narrow["aten.add_.Tensor"] == 3 * layers
    assert four["aten._to_copy.default"] - narrow["aten._to_copy.default"] == layers


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_holds_whole_gradients_until_it_reduces(stage: int) -> None:
    """In FP32, up to the first reduction; the embedding's beside its shard: the loop that reduces still has it."""
    program = stage_program(MODEL, LAYOUT, 8, stage)
    found = lifetimes_of(program)
    sizes, categories = program.storage_bytes, program.storage_category
    whole = sum(MODEL.layer_parameters(layer) for layer in MODEL.layers[:4])
    whole += MODEL.vocabulary * MODEL.hidden + (MODEL.hidden if stage else 0)
    shard = 0 if stage else MODEL.vocabulary * MODEL.hidden // LAYOUT.shards
    gradients = categories == int(Category.GRADIENT)
    live = most = 0
    for storage, freeing in zip(found.storage.tolist(), found.freeing.tolist(), strict=True):
        if gradients[storage]:
            live += -int(sizes[storage]) if freeing else int(sizes[storage])
            most = max(most, live)
    assert most == pytest.approx(4 * (whole + shard), rel=0.001)


def test_each_micro_batch_is_received_into_memory_of_its_own() -> None:
    """And stays there: PyTorch's stages allocate these buffers once."""
    kept = {}
    for batch in (16, 32):
        program = stage_program(MODEL, replace(LAYOUT, global_batch=batch), 8, 1)
        made = [
            program.specs[program.site(event).spec].name for event in program.events.tolist() if event >= 0
        ]
        kept[batch] = made.count("aten.empty_strided")
    assert kept[32] - kept[16] == 4


def test_reductions_after_the_last_backward_are_exposed() -> None:
    cluster = cluster_of("h100-sxm", 64)
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster))
    wide = replace(LAYOUT, cards=64, global_batch=128)

    def exposed(layout: Layout) -> float:
        return predictor.predict(training_step(architecture_of(MODEL), layout)).parts.exposed_comm_s

    beside = replace(wide, zero_copy=True)  # another library's: beside the last backward
    assert exposed(wide) > exposed(beside)


def test_context_parallel_ranks_gather_keys_and_values_whole() -> None:
    found = collectives(step(CONTEXT))
    layers, whole = len(MODEL.layers), 2 * 2048 * 8 * 128
    alone = collectives(step(replace(CONTEXT, context=1, global_batch=8)))
    gathered = found["all_gather", Phase.FORWARD][1] - alone["all_gather", Phase.FORWARD][1]
    assert gathered == 2 * layers * whole
    scattered = found["reduce_scatter", Phase.BACKWARD][1] - alone["reduce_scatter", Phase.BACKWARD][1]
    assert scattered == 2 * layers * whole
    assert not any(kind == "send" for kind, _ in found)
    ring = collectives(step(replace(CONTEXT, fused=True)))
    assert ring["send", Phase.FORWARD][0] == layers


def test_every_context_parallel_rank_has_the_same_share_of_the_mask() -> None:
    assert computed_share(8192, 0, 0, True) == pytest.approx(0.5, rel=0.02)
    assert computed_share(8192, 0, 0, False) == 1.0
    assert computed_share(8192, 1024, 0, True) == pytest.approx(computed_share(1024, 0, 0, True) / 8)
    assert computed_share(8192, 0, 8192, True) == computed_share(8192, 0, 0, True)
    assert computed_share(8192, 0, BLOCK, True) == pytest.approx(2 * BLOCK / 8192, rel=0.01)


def test_stages_of_uneven_chunks_are_all_looked_at() -> None:
    whole = shipped_model("llama3-8b")
    even = replace(LAYOUT, pipeline=4, chunks=4, global_batch=8, schedule="interleaved")
    assert len(fullest_stages(whole, even)) == 1
    assert len(fullest_stages(whole, replace(even, chunks=2, first_layers_fewer=4, last_layers_fewer=4))) > 1


def test_experts_that_one_rank_has_for_itself_are_cast_copied_and_divided() -> None:
    model = shipped_model("deepseek-v3-671b")
    model = replace(model, layers=model.layers[3:5])
    asked = replace(CONTEXT, context=1, cards=8, global_batch=8, expert=8)
    here, elsewhere = (
        names(training_step(architecture_of(model), replace(asked, eager=code)).program(0, Part.FORWARD, 0))
        for code in (EagerCode.TORCHTITAN, EagerCode.TRANSFORMERS)
    )
    assert here["aten.copy_.default"] - elsewhere["aten.copy_.default"] == len(model.layers)
    back = names(training_step(architecture_of(model), asked).program(0, Part.BACKWARD, 0))
    assert back["aten.div.Tensor"] == len(model.layers)
    shared = names(
        training_step(architecture_of(model), replace(asked, expert=4)).program(0, Part.BACKWARD, 0)
    )
    assert shared["aten.div.Tensor"] == 0
