"""Rows of one table ask for the same model on the same cards again and again: its steps are priced once."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.serving.deployment import Deployment
from windtunnel.serving.step_time import StepTime

_STEPS: dict[tuple[object, ...], StepTime] = {}


def with_known_prices(found: Deployment) -> Deployment:
    """The deployment with the step prices that an earlier one of equal model, cards, layout and options asked for:
    but for how much fits into a step and into memory, any option may change what a step costs.
    """
    options = replace(found.options, max_num_seqs=1, max_num_batched_tokens=1, gpu_memory_utilization=0.9)
    key = (found.model, found.cluster.chip.name, found.cluster.cards, found.layout, options)
    return replace(found, step=_STEPS.setdefault(key, found.step))
