"""Deviation of one loss curve from another, by every definition in use.

Published figures, such as "0.62 % loss deviation", rarely say which definition they are. On the same two
curves the definitions differ by a factor of ten or more, so they are reported together, each by name.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.results.align_result import Deviation

SMOOTHING = 0.95  # weight of the past in the exponential moving average
TAIL = 100  # steps in the trailing mean
HEAD = 10  # steps before rounding noise has grown
Curve = npt.NDArray[np.float64]


def curve(losses: Sequence[float], who: str = "curve") -> Curve:
    """A loss curve, checked.

    Raises:
        WindtunnelError: E712 if it is empty; AnswerIsNo with E713 if it holds NaN or infinity: it diverged.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise WindtunnelError(
            "E712",
            f"{who} has no losses to compare",
            hint="the script must print or return a loss at every step",
            values={"steps": int(values.size)},
        )
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        raise AnswerIsNo(
            "E713",
            f"{who} diverged: its loss is {values[wrong[0]]} at step {wrong[0] + 1}",
            hint="look at the locked-trajectory comparison of the steps before it",
            values={"step": int(wrong[0]) + 1, "steps": int(values.size)},
        )
    return values


def deviations(reference: Sequence[float], candidate: Sequence[float]) -> tuple[Deviation, ...]:
    """All definitions on two curves of one length.

    Raises:
        WindtunnelError: E712 if the lengths differ or a curve is empty, E713 if one diverged.
    """
    x, y = curve(reference, "the reference"), curve(candidate, "the candidate")
    if x.size != y.size:
        raise WindtunnelError(
            "E712",
            "two loss curves have different lengths",
            hint="run both for the same number of steps",
            values={"reference": int(x.size), "candidate": int(y.size)},
        )
    step = _relative(y - x, x)
    smooth_x, smooth_y = smoothed(x), smoothed(y)
    smooth = _relative(smooth_y - smooth_x, smooth_x)
    tail = min(TAIL, x.size)
    tail_x, tail_y = float(x[-tail:].mean()), float(y[-tail:].mean())
    return (
        Deviation("mean", "mean over steps of |L' - L| / L", float(np.abs(step).mean()), False),
        Deviation("max", "largest |L' - L| / L of a step", float(np.abs(step).max()), False),
        Deviation("bias", "mean over steps of (L' - L) / L", float(step.mean()), True),
        Deviation(
            "first", f"mean |L' - L| / L of the first {HEAD} steps", float(np.abs(step[:HEAD]).mean()), False
        ),
        Deviation(
            "smoothed",
            f"mean |S' - S| / S, S the moving average ({SMOOTHING})",
            float(np.abs(smooth).mean()),
            False,
        ),
        Deviation("final_smoothed", "(S' - S) / S at the last step", float(smooth[-1]), True),
        Deviation(
            "tail",
            f"(T' - T) / T, T the mean of the last {TAIL} steps",
            float(_relative(tail_y - tail_x, tail_x)),
            True,
        ),
        Deviation("tail_gap_nats", f"T' - T, T the mean of the last {TAIL} steps", tail_y - tail_x, True),
        Deviation("sum", "(sum of L' - sum of L) / sum of L", float(_relative((y - x).sum(), x.sum())), True),
    )


def smoothed(values: Curve, weight: float = SMOOTHING) -> Curve:
    """Exponential moving average, corrected for its start as TensorBoard and Adam do."""
    average = np.empty_like(values)
    running = 0.0
    for index, value in enumerate(values):
        running = weight * running + (1 - weight) * float(value)
        average[index] = running / (1 - weight ** (index + 1))
    return average


def _relative(difference: npt.ArrayLike, reference: npt.ArrayLike) -> npt.NDArray[np.float64]:
    below = np.abs(np.asarray(reference, dtype=np.float64))
    return np.asarray(difference, dtype=np.float64) / np.maximum(below, np.finfo(np.float64).tiny)
