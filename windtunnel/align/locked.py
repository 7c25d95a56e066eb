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

from windtunnel.align.metrics import TensorComparison, compare, compare_all, global_relative_l2
from windtunnel.errors import WindtunnelError
from windtunnel.results.align_result import TensorVerdict

# Against golden. The largest error of valid arithmetic is that of Hopper's 13 bits without promotion, 8 % (0.5 %
# in norm) on the language model of the tests; the smallest of the injected defects is 50 %. Halfway, in ratio.
ERROR_LIMIT = 0.2
NORM_LIMIT = 0.15
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


@dataclass(frozen=True, slots=True)
class Observation:
    """An intermediate tensor in the order of execution, with the module and source line that made it."""

    module: str
    line: str
    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two executions first differ by more than a limit."""

    index: int
    module: str
    line: str
    comparison: TensorComparison


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


def verdicts(
    steps: Sequence[LockedStep], error_limit: float = ERROR_LIMIT, norm_limit: float = NORM_LIMIT
) -> list[TensorVerdict]:
    """Every tensor judged over all steps, worst first.

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
    found = [_verdict(name, steps, error_limit, norm_limit) for name in steps[0].gradients]
    return sorted(found, key=lambda verdict: (not verdict.flagged, verdict.negligible, -verdict.error))


def flagged_names(steps: Sequence[LockedStep]) -> list[str]:
    """Names of the tensors beyond the limits, worst first."""
    return [verdict.name for verdict in verdicts(steps) if verdict.flagged]


def first_divergence(
    reference: Sequence[Observation], candidate: Sequence[Observation], limit: float
) -> Divergence | None:
    """The first observation whose relative L2 error exceeds ``limit``; None if there is none.

    ``limit`` 0 finds the first that is not identical.

    Raises:
        WindtunnelError: E716 where the executions part ways: another module, another shape, one ends early.
    """
    for index, (ours, theirs) in enumerate(zip(reference, candidate, strict=False)):
        if ours.module != theirs.module or ours.tensor.shape != theirs.tensor.shape:
            raise _parted(index, ours, theirs)
        comparison = compare(ours.tensor, theirs.tensor)
        differs = comparison.relative_l2 > limit if limit else not comparison.identical
        if differs or comparison.special_mismatches:
            return Divergence(index, ours.module, ours.line, comparison)
    if len(reference) != len(candidate):
        longer = max(reference, candidate, key=len)
        raise _parted(min(len(reference), len(candidate)), longer[min(len(reference), len(candidate))], None)
    return None


def _verdict(name: str, steps: Sequence[LockedStep], error_limit: float, norm_limit: float) -> TensorVerdict:
    rows = [step.gradients[name] for step in steps]
    error = _median([row.relative_l2 for row in rows])
    change = _median([row.norm_ratio - 1 for row in rows])
    share = _median([_share(step, name) for step in steps])
    specials = any(row.special_mismatches for row in rows)
    negligible = share < NEGLIGIBLE and not specials
    beyond = error > error_limit or abs(change) > norm_limit
    cosine = _median([row.cosine for row in rows])
    return TensorVerdict(name, error, change, cosine, negligible, specials or (beyond and not negligible))


def _share(step: LockedStep, name: str) -> float:
    norms = [row.reference_norm for row in step.gradients.values()]
    typical = math.sqrt(math.fsum(norm**2 for norm in norms) / len(norms))
    return step.gradients[name].reference_norm / typical if typical else 0.0


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _parted(index: int, ours: Observation, theirs: Observation | None) -> WindtunnelError:
    return WindtunnelError(
        "E716",
        f"the two executions part ways at operation {index}",
        hint="make the runs deterministic and give both the same configuration",
        values={
            "one": f"{ours.module} {tuple(ours.tensor.shape)} at {ours.line}",
            "other": "ended"
            if theirs is None
            else f"{theirs.module} {tuple(theirs.tensor.shape)} at {theirs.line}",
        },
    )
