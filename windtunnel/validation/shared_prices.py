"""Rows of one table ask for the same model on the same cards again and again: its steps are priced once."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.serving.deployment import Deployment
from windtunnel.serving.step_time import StepTime

_STEPS: dict[tuple[object, ...], StepTime] = {}


def with_known_prices(found: Deployment) -> Deployment:
    """The deployment with the step prices that an earlier one of equal model, cards, layout and engine asked for."""
    options, cluster = found.options, found.cluster
    key = (
        found.model, cluster.chip.name, cluster.cards, found.layout, options.stack, options.speculation,
        options.enable_dbo,
    )  # fmt: skip
    return replace(found, step=_STEPS.setdefault(key, found.step))
