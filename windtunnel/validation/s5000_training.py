"""Training rows of S5000 tables that say in words what was run, as rows of the training tables.

A row is complete when it states model, cards, sequence, global batch and pipeline degree; a size of tensor-parallel
group, a micro-batch and a number of expert ranks that it does not state are one, one, and one node.
"""

from __future__ import annotations

import numpy as np

from windtunnel.validation.moore_threads_words import Said
from windtunnel.validation.predict_training import TrainingRows
from windtunnel.validation.rows_file import Answers
from windtunnel.validation.tables import Table

NODE_CARDS = 8


def gaps(words: Said, cards: int) -> str:
    """What a row of training does not state; empty where it is complete."""
    sized = any(letter.isdigit() for letter in words.model.partition("-")[2])
    missing = [
        name
        for name, there in (
            ("the model's size", sized),
            ("cards", cards),
            ("sequence", words.sequence),
            ("global batch", words.global_batch),
        )
        if not there
    ]
    return f"{', '.join(missing)} not stated" if missing else ""


def step_of(words: Said, chip: str, cards: int) -> Answers:
    """The step of a complete row: one entry, a prediction in seconds or a refusal."""
    row = {
        "model": words.model,
        "gpu": chip,
        "num_gpus": str(cards),
        "sequence_length_tokens": str(words.sequence),
        "global_batch_size_sequences": str(words.global_batch),
        "micro_batch_size_sequences": str(words.micro_batch or ""),
        "tensor_parallel": str(words.tensor or 1),
        "pipeline_parallel": str(words.pipeline or 1),
        "context_parallel": str(words.context or 1),
        "expert_parallel": str(words.expert or _expert_ranks(words, cards)),
        "precision": (words.precision or "bf16").lower(),
        "framework": "Megatron-LM",
        "step_seconds": "1",
    }
    table = Table("train_s5000", {k: np.array([v]) for k, v in row.items()}, np.zeros(1, dtype=np.int64))
    return next(iter(TrainingRows().predict(table)))


def _expert_ranks(words: Said, cards: int) -> int:
    """One node of expert ranks, or fewer where data parallel ranks are fewer."""
    data = cards // max(1, (words.tensor or 1) * (words.pipeline or 1))
    return min(NODE_CARDS, max(1, data))
