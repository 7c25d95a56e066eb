"""Memory of a model under a layout: counts worked out by hand, laws, hints that hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.errors import WindtunnelError
from windtunnel.recipes.fit.activations import kept_bytes, whole_bytes
from windtunnel.recipes.fit.inference import Deployment, inference_memory
from windtunnel.recipes.fit.question import FitAnswer, FitQuestion, Mode
from windtunnel.recipes.fit.search import largest_batch, more_cards, smaller, surely_fits
from windtunnel.recipes.fit.sharding import layer_parameters, stages
from windtunnel.recipes.fit.training import Adapters, Optimizer, training_memory
from windtunnel.recipes.layout import AttentionKernel, Layout, Precision, Recompute, Sharding
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.units import GIB

LLAMA = shipped_model("llama3-8b")
GPT = shipped_model("gpt3-175b")
DEEPSEEK = shipped_model("deepseek-v3-671b")
QWEN = shipped_model("qwen3.5-397b-a17b")
CHIP = sample_chip()  # 80 GiB


def one_card(**changes: object) -> Layout:
    keywords: dict[str, object] = {"cards": 1, "global_batch": 1, "sequence": 2048, "sharding": Sharding.DDP}
    return Layout(**(keywords | changes))  # type: ignore[arg-type]


def test_bytes_of_a_parameter() -> None:
    """Megatron-LM's mixed precision: 2 + 4 + (4 master + 8 Adam); FSDP in FP32: 4 + 4 + 8."""
    parts = training_memory(LLAMA, one_card())
    assert parts.weights == 2 * LLAMA.parameters
    assert parts.gradients == 4 * LLAMA.parameters
    assert parts.optimizer == 12 * LLAMA.parameters
    sharded = training_memory(LLAMA, one_card(cards=8, global_batch=8, sharding=Sharding.FSDP))
    assert sharded.weights == pytest.approx(4 * LLAMA.parameters / 8, rel=1e-6)
    assert sharded.optimizer == pytest.approx(8 * LLAMA.parameters / 8, rel=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "per_parameter"),
    [(Optimizer.ADAMW, 12), (Optimizer.SGD, 4), (Optimizer.SGD_MOMENTUM, 8), (Optimizer.MUON, 8)],
)
def test_optimizer_state(optimizer: Optimizer, per_parameter: int) -> None:
    assert training_memory(LLAMA, one_card(), optimizer).optimizer == per_parameter * LLAMA.parameters


def test_the_distributed_optimizer_shares_only_the_optimizer() -> None:
    layout = one_card(cards=16, global_batch=16, sharding=Sharding.ZERO1)
    parts = training_memory(LLAMA, layout)
    assert parts.weights == 2 * LLAMA.parameters
    assert parts.optimizer == pytest.approx(12 * LLAMA.parameters / 16, rel=1e-6)


def test_a_gpt_layer_keeps_32_sbh() -> None:
    """Korthikanti et al., equation 2: 34 s b h with two dropout masks of 1 s b h, which are not here."""
    layout = one_card()
    layer = GPT.layers[0]
    ours = whole_bytes(GPT, layer, layout) - 4 * 96 * 2048  # log-sum-exp of the fused kernel
    assert ours == 32 * 2048 * GPT.hidden


def test_without_a_fused_kernel_scores_are_kept_and_selective_recomputation_drops_them() -> None:
    layer = GPT.layers[0]
    flash = whole_bytes(GPT, layer, one_card())
    unfused = whole_bytes(GPT, layer, one_card(attention=AttentionKernel.UNFUSED))
    assert unfused - flash == 5 * 96 * 2048 * 2048
    selective = one_card(attention=AttentionKernel.UNFUSED, recompute=Recompute.SELECTIVE)
    assert whole_bytes(GPT, layer, selective) == flash


def test_full_recomputation_keeps_the_layers_input() -> None:
    layout = one_card(recompute=Recompute.FULL)
    assert kept_bytes(GPT, GPT.layers[0], layout) == 2 * 2048 * GPT.hidden


def test_tensor_and_sequence_parallelism_divide_a_layer() -> None:
    one = whole_bytes(GPT, GPT.layers[0], one_card())
    eight = whole_bytes(GPT, GPT.layers[0], one_card(cards=8, tensor=8))
    assert eight == pytest.approx(one / 8)


def test_the_first_stage_holds_as_many_micro_batches_as_there_are_stages() -> None:
    shallow = training_memory(LLAMA, one_card(cards=4, pipeline=4, global_batch=16))
    single = training_memory(LLAMA, one_card(global_batch=16))
    assert shallow.activations == pytest.approx(single.activations, rel=1e-6)
    twice = training_memory(LLAMA, one_card(cards=4, pipeline=4, chunks=2, global_batch=16))
    assert twice.activations == pytest.approx(single.activations * (1 + 3 / 8), rel=1e-6)


def test_stages_cover_every_layer_once() -> None:
    for pipeline in (1, 3, 7, 16):
        split = stages(DEEPSEEK, pipeline)
        assert [index for stage in split for index in stage] == list(range(61))
    assert [len(stage) for stage in stages(LLAMA, 4, first_fewer=2, last_fewer=2)] == [7, 9, 9, 7]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([LLAMA, DEEPSEEK, QWEN, GPT, shipped_model("gpt-oss-120b"), shipped_model("glm-5")]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 4, 8]),
)
def test_ranks_together_hold_at_least_every_parameter(model: object, tensor: int, expert: int) -> None:
    for layer in dict.fromkeys(model.layers):  # type: ignore[attr-defined]
        held = layer_parameters(model, layer, tensor, expert, 1)  # type: ignore[arg-type]
        whole = model.layer_parameters(layer)  # type: ignore[attr-defined]
        assert held.dense * tensor + held.expert * expert >= whole
        if tensor == expert == 1:
            assert held.total == whole


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([LLAMA, DEEPSEEK, QWEN]),
    st.integers(1, 4),
    st.integers(9, 13),
    st.sampled_from(list(Recompute)),
    st.sampled_from(list(Precision)),
)
def test_more_work_never_takes_less_memory(
    model: object, batch: int, log_length: int, recompute: Recompute, precision: Precision
) -> None:
    base = one_card(
        global_batch=batch,
        micro_batch=batch,
        sequence=2**log_length,
        recompute=recompute,
        precision=precision,
    )
    longer = replace(base, sequence=2 * base.sequence)
    assert training_memory(model, longer).allocated > training_memory(model, base).allocated  # type: ignore[arg-type]
    fewer = replace(base, recompute=Recompute.FULL)
    assert training_memory(model, fewer).activations <= training_memory(model, base).activations  # type: ignore[arg-type]


def test_gradients_stand_in_once_for_each_shape_of_weight() -> None:
    """Two bytes for the products of one layer, however many layers share its shape; none where unfused."""
    products = LLAMA.layer_parameters(LLAMA.layers[0]) - 2 * LLAMA.norm_parameters
    tall = one_card(sequence=512, recompute=Recompute.FULL)
    fused, eager = training_memory(LLAMA, tall), training_memory(LLAMA, replace(tall, fused=False))
    loss = 512 * LLAMA.vocabulary
    assert fused.working == 6 * loss + 2 * products
    assert eager.working == 12 * loss


def test_adapters_leave_the_weights_without_gradients() -> None:
    parts = training_memory(LLAMA, one_card(), adapters=Adapters(rank=16))
    rank_16_on_attention = 32 * 16 * ((4096 + 4096) * 2 + (4096 + 1024) * 2)
    assert Adapters(rank=16).parameters(LLAMA) == rank_16_on_attention
    assert parts.gradients == 4 * rank_16_on_attention
    assert parts.weights == 2 * LLAMA.parameters + 4 * rank_16_on_attention


def test_the_cache_is_exact() -> None:
    parts = inference_memory(LLAMA, Deployment(batch=16, context=8192))
    assert parts.cache == 16 * 8192 * 32 * 2 * 8 * 128 * 2
    quarter = inference_memory(LLAMA, Deployment(batch=16, context=8192, tensor=4, cache_precision="fp8"))
    assert quarter.cache == parts.cache // 8
    replicated = inference_memory(LLAMA, Deployment(batch=16, context=8192, tensor=16))
    assert replicated.cache == parts.cache // 8, "eight key-value heads do not divide over sixteen ranks"


def test_the_latent_cache_is_whole_on_every_tensor_rank() -> None:
    one = inference_memory(DEEPSEEK, Deployment(batch=1, context=1000))
    eight = inference_memory(DEEPSEEK, Deployment(batch=1, context=1000, tensor=8))
    assert one.cache == eight.cache == 70272 * 1000


def test_recurrent_state_does_not_grow_with_the_context() -> None:
    short, long = (inference_memory(QWEN, Deployment(batch=4, context=n)) for n in (1000, 100_000))
    assert short.state == long.state == 4 * (188_743_680 + 3_317_760)
    assert long.cache == 4 * 100_000 * 30720


@pytest.mark.parametrize(("precision", "per_weight"), [("bf16", 2), ("fp8", 1), ("fp32", 4)])
def test_weights_by_precision(precision: str, per_weight: int) -> None:
    parts = inference_memory(LLAMA, Deployment(batch=1, context=1, precision=precision))
    ends = LLAMA.embedding_parameters + LLAMA.head_parameters + LLAMA.norm_parameters
    assert parts.weights == per_weight * (LLAMA.parameters - ends) + max(2, per_weight) * ends


def question(**changes: object) -> FitQuestion:
    return FitQuestion(**({"model": LLAMA, "chip": CHIP} | changes))  # type: ignore[arg-type]


def test_the_parts_sum_to_the_total() -> None:
    for mode in Mode:
        answer = FitAnswer(question(mode=mode, cards=2, tensor=2))
        assert sum(nbytes for _, nbytes in answer.parts.rows()) == answer.total.value
        assert answer.total.low <= answer.total.value <= answer.total.high


def test_an_8b_model_is_served_on_one_card_and_trained_on_several() -> None:
    assert FitAnswer(question()).fits
    assert not FitAnswer(question(mode=Mode.TRAIN)).fits
    assert FitAnswer(question(mode=Mode.TRAIN, cards=8)).fits


@pytest.mark.parametrize(
    "asked",
    [
        question(mode=Mode.TRAIN, sequence=8192),
        question(mode=Mode.LORA, model=shipped_model("llama3-70b")),
        question(model=DEEPSEEK, precision="fp8", cards=8, tensor=8),
        question(model=DEEPSEEK, mode=Mode.TRAIN, cards=64),
        question(model=QWEN, mode=Mode.TRAIN, cards=64, pipeline=4, sharding=Sharding.ZERO1),
    ],
)
def test_hints_fit(asked: FitQuestion) -> None:
    assert not FitAnswer(asked).fits
    found = more_cards(asked)
    assert found is not None
    assert found.cards >= asked.cards
    assert surely_fits(found)
    less = smaller(asked)
    assert less is None or (surely_fits(less) and less.cards == asked.cards)


def test_the_largest_batch_is_the_largest() -> None:
    asked = question(sequence=8192)
    most = largest_batch(asked)
    assert surely_fits(replace(asked, batch=most))
    assert not surely_fits(replace(asked, batch=most + 1))


def test_degrees_that_do_not_multiply_up_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        FitAnswer(question(mode=Mode.TRAIN, cards=8, tensor=3)).parts  # noqa: B018
    assert caught.value.code == "E205"
    with pytest.raises(WindtunnelError) as caught:
        FitAnswer(question(cards=8, tensor=8, expert=3)).parts  # noqa: B018
    assert caught.value.code == "E207"


def test_a_workspace_is_counted() -> None:
    assert FitAnswer(question()).parts.workspace == 32 * 1024**2
    assert FitAnswer(question()).usable < 80 * GIB
