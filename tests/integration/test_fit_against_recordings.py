"""What `fit` says a layer keeps for backward, against recordings of transformers' own models."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.recorded_models import recorded_step
from windtunnel.memory.categories import categories_of
from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.program.program import Category, Program
from windtunnel.recipes.fit.activations import whole_bytes
from windtunnel.recipes.layout import Layout, Sharding
from windtunnel.specs.model_config import model_from_config

BATCH, SEQUENCE = 2, 512


def kept_by_layer(program: Program, layer: int) -> int:
    """Activations born in one layer that are alive at the peak."""
    lifetimes = lifetimes_of(program)
    category = categories_of(program, lifetimes)
    peak = int(lifetimes.event[int(lifetimes.active_bytes().argmax())])
    alive = np.flatnonzero((lifetimes.born <= peak) & (lifetimes.died > peak))
    total = 0
    for storage in alive:
        if category[storage] != Category.ACTIVATION:
            continue
        scope = program.scopes[program.site(int(lifetimes.birth_site[storage])).scope]
        if f".layers.{layer}." in f"{scope}.":
            total += int(lifetimes.block_bytes[storage])
    return total


DENSE = {"num_hidden_layers": 4, "intermediate_size": 2048, "vocab_size": 32000}
EXPERTS = DENSE | {"moe_intermediate_size": 512, "num_experts_per_tok": 4}
LATENT = {"n_routed_experts": 16, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}
DELTA = {"linear_num_key_heads": 8, "linear_num_value_heads": 16}


def heads(hidden: int, queries: int, keys: int, **more: int) -> dict[str, int]:
    return {"hidden_size": hidden, "num_attention_heads": queries, "num_key_value_heads": keys, **more}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "sizes", "layer"),
    [
        ("llama", DENSE | heads(1024, 16, 4), 1),
        ("llama", DENSE | heads(2048, 16, 16), 1),
        ("mistral", DENSE | heads(1024, 8, 8), 1),
        ("qwen3", DENSE | heads(1024, 16, 8, head_dim=64), 1),
        ("qwen3_moe", EXPERTS | heads(1024, 8, 8, head_dim=128, num_experts=16), 1),
        ("deepseek_v3", EXPERTS | LATENT | heads(1024, 8, 8, q_lora_rank=256, kv_lora_rank=128), 0),
        ("deepseek_v3", EXPERTS | LATENT | heads(1024, 8, 8, q_lora_rank=256, kv_lora_rank=128), 1),
        ("qwen3_5_text", DENSE | DELTA | heads(1024, 8, 2, head_dim=128), 0),
        ("qwen3_5_text", DENSE | DELTA | heads(1024, 8, 2, head_dim=128), 3),
    ],
)
def test_a_layer_keeps_what_the_formula_says(family: str, sizes: dict[str, int], layer: int) -> None:
    """Within 3 %: statistics of normalisations, and what a fused kernel keeps inside itself, are left out."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[family](**sizes)
    spec = model_from_config(config.to_dict())
    layout = Layout(
        cards=1,
        global_batch=BATCH,
        micro_batch=BATCH,
        sequence=SEQUENCE,
        sharding=Sharding.DDP,
        fused=False,
    )
    recorded = kept_by_layer(recorded_step(config, BATCH, SEQUENCE), layer)
    assert whole_bytes(spec, spec.layers[layer], layout) == pytest.approx(recorded, rel=0.03)
