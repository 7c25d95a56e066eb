"""Multi-token prediction: how many tokens are drafted, and how many of them are kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Speculation:
    """Multi-token prediction: ``tokens`` drafted a step, each accepted with ``acceptance`` after the last."""

    tokens: int = 0
    acceptance: float = 0.0

    @property
    def yielded(self) -> float:
        """Tokens that a step yields on average: 1 + p + p² + …"""
        return sum(self.acceptance**index for index in range(self.tokens + 1))
