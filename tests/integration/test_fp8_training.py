"""transformers' models, small, trained in FP8 on the virtual S5000: their linear layers and experts take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from windtunnel.capture.precision import Precision, become
from windtunnel.capture.session import Session
from windtunnel.specs.catalogue import chip
from windtunnel.workloads.digits_vqa import data, model

transformers = pytest.importorskip("transformers")
TEXT = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": None,
}


def qwen3_vl() -> tuple[Any, dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    batch = data.Digits().training_batch(4, draw)
    return model.build(64, 2), {
        "input_ids": batch.ids,
        "labels": batch.labels,
        "pixel_values": batch.pixels,
        "image_grid_thw": batch.grid,
        "mm_token_type_ids": batch.kinds,
    }


def qwen3_5() -> tuple[Any, dict[str, Any]]:
    return transformers.Qwen3_5ForCausalLM(transformers.Qwen3_5TextConfig(**_hybrid())), tokens()


def qwen3_5_moe() -> tuple[Any, dict[str, Any]]:
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    }
    config = transformers.Qwen3_5MoeTextConfig(**_hybrid(), **experts)
    return transformers.Qwen3_5MoeForCausalLM(config), tokens()


def deepseek_v3() -> tuple[Any, dict[str, Any]]:
    config = transformers.DeepseekV3Config(
        **TEXT,
        num_hidden_layers=2,
        num_key_value_heads=4,
        q_lora_rank=32,
        kv_lora_rank=32,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        n_group=1,
        topk_group=1,
    )
    return transformers.DeepseekV3ForCausalLM(config), tokens()


def tokens() -> dict[str, Any]:
    ids = torch.randint(0, 64, (2, 32), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": ids}


def _hybrid() -> dict[str, Any]:
    return {
        **TEXT,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [1, 1, 0],
        },
    }


MODELS = {"qwen3-vl": qwen3_vl, "qwen3.5": qwen3_5, "qwen3.5-moe": qwen3_5_moe, "deepseek-v3": deepseek_v3}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_block_scaled_training(name: str) -> None:
    losses, counts = trained(MODELS[name], Precision.FP8)
    assert all(torch.isfinite(torch.tensor(losses)))
    assert losses[-1] < losses[0] - 0.1
    assert counts["windtunnel.fp8_linear.default"] >= 4 * 8  # every step, many layers
    assert counts["windtunnel.fp8_linear_backward.default"] == counts["windtunnel.fp8_linear.default"]
    plain, none = trained(MODELS[name], Precision.BF16)
    assert none["windtunnel.fp8_linear.default"] == 0
    assert losses != plain
    assert losses == pytest.approx(plain, rel=0.05)
    assert trained(MODELS[name], Precision.FP8)[0] == losses  # bit for bit


def trained(
    make: Callable[[], tuple[Any, dict[str, Any]]], precision: Precision
) -> tuple[list[float], Counter[str]]:
    card = chip("mtt-s5000")
    losses = []
    with Session(card, "values") as session:
        become(session.state, card, precision)
        try:
            torch.manual_seed(0)
            network, inputs = make()
            network = network.to("musa")
            inputs = {key: value.to("musa") for key, value in inputs.items()}
            optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
            for _ in range(4):
                loss = network(**inputs, use_cache=False).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
        finally:
            become(session.state, card, Precision.AS_WRITTEN)
        program = session.program()
    return losses, Counter(
        program.specs[program.site(int(event)).spec].name for event in program.events if event >= 0
    )
