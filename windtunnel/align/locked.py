"""Locked-trajectory comparison: candidate and reference take the same step from the same weights and batch.

Free-running curves drift apart for any rounding, so they show gross errors only. From the same weights
nothing has grown yet: the gradient of each tensor is compared by name, which finds an error in one layer that
moves neither loss nor global gradient norm.

Two comparisons answer two questions. Candidate against *golden*, which is the candidate's own recipe with
ideal sums: is the arithmetic sound? Quantisation is the same on both sides, so little remains, and limits are
tight. Candidate against the reference's precision: what does the recipe cost? There FP8 alone changes some
gradients by more than half where attention is sharp, so that no fixed limit can tell a recipe from a defect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from windtunnel.align.metrics import compare_all, global_relative_l2
from windtunnel.errors import WindtunnelError
from windtunnel.results.align_result import TensorVerdict

# Without a yardstick, against golden: the largest error of valid arithmetic is that of Hopper's 13 bits without
# promotion, 8 % (0.5 % in norm) on the language model of the tests; the smallest of the injected defects is 50 %.
ERROR_LIMIT = 0.2
NORM_LIMIT = 0.15
# With a yardstick (golden again with weights a little off, see ``yardstick_size``): a tensor may be off by so many
# times what the yardstick is off by, and by the least limit in any case.
TIMES = 3.0
LEAST_LIMIT = 0.03
# Tensors with less than this share of the root-mean-square norm of all are rounding noise themselves.
NEGLIGIBLE = 1e-4


class GradientRow(Protocol):
    """What a verdict reads of a compared gradient; ``TensorComparison`` has it."""

    @property
    def relative_l2(self) -> float: ...
    @property
    def norm_ratio(self) -> float: ...
    @property
    def cosine(self) -> float: ...
    @property
    def special_mismatches(self) -> int: ...
    @property
    def reference_norm(self) -> float: ...


@dataclass(frozen=True, slots=True)
class LockedStep:
    """One step taken twice from one state.

    Attributes:
        step: index on the reference's trajectory.
        loss_deviation: (candidate - reference) / |reference|.
        gradients: comparison of every gradient, by parameter name, in the model's order.
    """

    step: int
    loss_deviation: float
    gradients: Mapping[str, GradientRow]

    @property
    def global_error(self) -> float:
        """Relative error of all gradients as one vector: blind to a defect in one small tensor."""
        return global_relative_l2(self.gradients)


def yardstick_size(fraction_bits: int) -> float:
    """By how much weights are perturbed, relative: eight units of the accumulator's last bit, 1e-6 at least.

    Sums of a few hundred products cut at every addition are off by about that.
    """
    return max(1e-6, 8 * 2.0**-fraction_bits)


def locked_step(
    step: int,
    reference_loss: float,
    candidate_loss: float,
    reference: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
) -> LockedStep:
    """Compare the losses and gradients of one step. Raises E711 where the tensors do not correspond."""
    deviation = (candidate_loss - reference_loss) / max(abs(reference_loss), 1e-300)
    return LockedStep(step, deviation, compare_all(reference, candidate))


def verdicts(steps: Sequence[LockedStep], yardstick: Sequence[LockedStep] = ()) -> list[TensorVerdict]:
    """Every tensor judged over all steps, worst first.

    Args:
        yardstick: golden against itself with perturbed weights, at the same steps: how far each tensor's
            gradient moves when nothing is wrong. Without it the limits are fixed.

    Raises:
        WindtunnelError: E711 if there is no step.
    """
    if not steps:
        raise WindtunnelError(
            "E711",
            "no locked steps to judge",
            hint="compare at one checkpoint at least; four spread over the run are better",
            values={"steps": 0},
        )
    found = [_verdict(name, steps, yardstick) for name in steps[0].gradients]
    return sorted(found, key=lambda v: (not v.flagged, v.negligible, -v.error / v.limit))


def flagged_names(steps: Sequence[LockedStep]) -> list[str]:
    """Names of the tensors beyond the limits, worst first."""
    return [verdict.name for verdict in verdicts(steps) if verdict.flagged]


def _verdict(name: str, steps: Sequence[LockedStep], yardstick: Sequence[LockedStep]) -> TensorVerdict:
    rows = [step.gradients[name] for step in steps]
    error = _median([row.relative_l2 for row in rows])
    change = _median([row.norm_ratio - 1 for row in rows])
    share = _median([_share(step, name) for step in steps])
    specials = any(row.special_mismatches for row in rows)
    negligible = share < NEGLIGIBLE and not specials
    limit, norm_limit = _limits([step.gradients[name] for step in yardstick])
    beyond = error > limit or abs(change) > norm_limit
    cosine = _median([row.cosine for row in rows])
    flagged = specials or (beyond and not negligible)
    return TensorVerdict(name, error, change, cosine, limit, negligible, flagged)


def _limits(yardstick: Sequence[GradientRow]) -> tuple[float, float]:
    """Largest allowed error and change of norm."""
    if not yardstick:
        return ERROR_LIMIT, NORM_LIMIT
    error = _median([row.relative_l2 for row in yardstick])
    change = _median([abs(row.norm_ratio - 1) for row in yardstick])
    return max(LEAST_LIMIT, TIMES * error), max(LEAST_LIMIT, TIMES * change)


def _share(step: LockedStep, name: str) -> float:
    norms = [row.reference_norm for row in step.gradients.values()]
    typical = math.sqrt(math.fsum(norm**2 for norm in norms) / len(norms))
    return step.gradients[name].reference_norm / typical if typical else 0.0


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
