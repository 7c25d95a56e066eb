"""What is to be trained, on what: the part of a training plan that no search may change."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate
from windtunnel.memory.overhead import usable_bytes
from windtunnel.recipes.fit.question import training_on
from windtunnel.recipes.fit.training import Optimizer
from windtunnel.recipes.layout import Layout, Precision
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """One training step of a model.

    Attributes:
        global_batch: sequences of one step over all cards. sequence: tokens of each.
    """

    model: ModelSpec
    cluster: Cluster
    global_batch: int
    sequence: int
    precision: Precision = Precision.BF16
    optimizer: Optimizer = Optimizer.ADAMW

    @property
    def step_tokens(self) -> int:
        """Tokens of one step over all cards."""
        return self.global_batch * self.sequence

    @property
    def usable_bytes(self) -> int:
        """What one card has for the job."""
        return usable_bytes(self.cluster.chip)

    def memory(self, layout: Layout) -> Estimate:
        """Bytes on the fullest card."""
        return training_on(self.cluster.chip, self.model, layout, self.optimizer).estimate()
