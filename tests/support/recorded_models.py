"""Steps of transformers' models on the virtual card, recorded for recipes and formulas to be held to."""

from __future__ import annotations

from typing import Any

from windtunnel.capture.session import Session
from windtunnel.program.program import Program
from windtunnel.specs.catalogue import chip


def recorded_step(config: Any, batch: int, sequence: int) -> Program:
    """Forward and backward, shadow mode."""
    import torch
    from transformers import AutoModelForCausalLM

    with Session(chip("mtt-s5000")) as session:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to("musa")
        ids = torch.randint(0, config.vocab_size, (batch, sequence), device="musa")
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return session.program()
