"""What a drafting layer takes of a card: weights by the model's facts, cache of one more layer, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving_layout import ServingLayout
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.draft_layer import draft_layers, draft_parameters
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.memory import CardMemory, card_memory, draft_weight_bytes
from windtunnel.serving.predict import engine_assumptions
from windtunnel.serving.roofline import decode_tokens_per_s_per_card
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_ffn import Moe
from windtunnel.specs.model_mixers import Attention
from windtunnel.specs.targets import cluster_of

CASES = (
    ("deepseek-v3-671b", 32, Precision.FP8_BLOCK),
    ("qwen3.5-397b-a17b", 8, Precision.FP8),
    ("qwen3-8b", 1, Precision.BF16),
)


def deployed(case: tuple[str, int, Precision], stack: Stack, drafts: int) -> Deployment:
    name, cards, precision = case
    speculation = Speculation(tokens=drafts, acceptance=0.8)
    options = DeploymentOptions(stack=stack, precision=precision, speculation=speculation)
    return deploy(shipped_model(name), cluster_of("mtt-s5000", cards), options)


def held(name: str, layout: ServingLayout, drafts: int) -> CardMemory:
    return card_memory(
        shipped_model(name), layout, cluster_of("h200").chip, utilization=0.9, batched_tokens=8192,
        sequences=256, block_tokens=16, drafts=drafts,
    )  # fmt: skip


def test_parameters_of_deepseeks_layer() -> None:
    """By the shapes of its tensors; the model card says 11.5 B that are its own (README_WEIGHTS)."""
    experts = 257 * 3 * 7168 * 2048 + 256 * 7168
    queries = 7168 * 1536 + 1536 + 1536 * 128 * 192
    attention = queries + 7168 * 576 + 512 + 512 * 128 * 256 + 128 * 128 * 7168
    found = draft_parameters(shipped_model("deepseek-v3-671b"))
    assert found == experts + attention + 2 * 7168**2 + 5 * 7168
    assert found == pytest.approx(11.5e9, rel=0.01)


def test_parameters_of_qwens_layer() -> None:
    """Full attention with its gate, 512 experts and a shared one, ``fc`` and five norms."""
    experts = 513 * 3 * 4096 * 1024 + 512 * 4096 + 4096
    attention = 4096 * (2 * 32 + 2 * 2) * 256 + 32 * 256 * 4096 + 2 * 256
    found = draft_parameters(shipped_model("qwen3.5-397b-a17b"))
    assert found == experts + attention + 2 * 4096**2 + 5 * 4096


def test_hybrids_draft_with_attention_and_experts() -> None:
    for name in ("qwen3.5-397b-a17b", "nemotron3-super-120b-a12b"):
        model = shipped_model(name)
        (layer,) = draft_layers(model, 2)
        assert isinstance(layer.mixer, Attention)
        assert isinstance(layer.ffn, Moe)
        assert draft_layers(model, 0) == ()


@pytest.mark.parametrize("stack", [Stack.VLLM, Stack.SGLANG])
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_parts_sum(case: tuple[str, int, Precision], stack: Stack) -> None:
    plain, drafting = deployed(case, stack, 0), deployed(case, stack, 1)
    assert drafting.layout == plain.layout
    before, after = plain.memory, drafting.memory
    assert before.draft_weights == 0
    assert 0 < after.draft_weights == after.weights - before.weights == before.cache - after.cache
    assert after.usable == after.weights + after.activations + after.cache
    one = after.token_bytes - before.token_bytes
    keeping = sum(
        layer.mixer is not None and layer.mixer.cache_elements(1) > 0 for layer in plain.model.layers
    )
    assert one * keeping == before.token_bytes
    assert after.cache_tokens < before.cache_tokens
    if not after.state_bytes:  # the largest number of whole blocks
        block = after.block_tokens * after.token_bytes
        assert after.blocks * block <= after.cache < (after.blocks + 1) * block


def test_experts_of_the_layer_are_spread_as_those_of_others() -> None:
    model = shipped_model("deepseek-v3-671b")
    alone = draft_weight_bytes(model, ServingLayout(), 1)
    assert alone == 2 * draft_parameters(model)
    apart = draft_weight_bytes(model, ServingLayout(data=32, expert=32), 1)
    ffn = model.layers[-1].ffn
    assert isinstance(ffn, Moe)
    assert alone - apart == pytest.approx(2 * ffn.routed_parameters(model.hidden) * 31 / 32, rel=1e-9)
    assert draft_weight_bytes(model, ServingLayout(), 3) == alone
    twice = replace(model, prediction_layers=2)
    assert draft_weight_bytes(twice, ServingLayout(), 1) == 2 * alone


def test_cache_of_hybrids_in_groups_of_one_layer_more() -> None:
    """Qwen3.5 at TP 8: 16 layers of attention a group, three groups of states; a page of state has room for drafts.

    vLLM 0.33's own planner groups these layers so, and its state shapes fill blocks of these tokens.
    """
    layout = ServingLayout(tensor=8)
    plain = held("qwen3.5-397b-a17b", layout, 0)
    for drafts, block in ((1, 528), (2, 528), (3, 544)):
        found = held("qwen3.5-397b-a17b", layout, drafts)
        assert found.block_tokens == block
        assert found.blocks_per_sequence == plain.blocks_per_sequence == 3
        assert found.blocks == found.cache // (block * found.token_bytes)
        assert found.token_bytes == 16 * 2 * 256 * 2


def test_what_is_assumed_is_said() -> None:
    said = engine_assumptions(deployed(CASES[0], Stack.VLLM, 1))
    assert any("the model's MTP layer" in one and "GiB a card) and cache are counted" in one for one in said)
    said = engine_assumptions(deployed(CASES[2], Stack.VLLM, 1))
    assert any("no MTP layer: drafts come from an assumed one" in one for one in said)
    assert not any("MTP" in one for one in engine_assumptions(deployed(CASES[0], Stack.VLLM, 0)))


def test_the_roofline_does_not_read_the_layer() -> None:
    """It is a bound: drafts cost nothing there, and what they yield counts."""
    plain, drafting = deployed(CASES[0], Stack.VLLM, 0), deployed(CASES[0], Stack.VLLM, 1)
    bound = decode_tokens_per_s_per_card(plain, 64, 4096)
    assert decode_tokens_per_s_per_card(drafting, 64, 4096) == pytest.approx(1.8 * bound)
