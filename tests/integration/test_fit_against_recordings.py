"""What `fit` says a layer keeps for backward, against recordings of transformers' own models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from windtunnel.capture.session import Session
from windtunnel.memory.categories import categories_of
from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.program.program import Category, Program
from windtunnel.recipes.fit.activations import whole_bytes
from windtunnel.recipes.layout import Layout, Sharding
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model_config import model_from_config

BATCH, SEQUENCE = 2, 512


def recorded_step(config: Any) -> Program:
    """Forward and backward of a model on the virtual card, shadow mode."""
    import torch
    from transformers import AutoModelForCausalLM

    with Session(chip("mtt-s5000")) as session:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to("musa")
        ids = torch.randint(0, config.vocab_size, (BATCH, SEQUENCE), device="musa")
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return session.program()


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("llama", {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4}),
        ("llama", {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16}),
        ("mistral", {"hidden_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 8}),
        ("qwen3", {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64}),
    ],
)
def test_a_dense_layer_keeps_what_the_formula_says(family: str, sizes: dict[str, int]) -> None:
    from transformers import CONFIG_MAPPING

    sizes = sizes | {"num_hidden_layers": 3, "intermediate_size": 4096, "vocab_size": 32000}
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
    recorded = kept_by_layer(recorded_step(config), 1)
    assert whole_bytes(spec, spec.layers[1], layout) == pytest.approx(
        recorded, rel=0.005
    )  # rows of statistics left out
