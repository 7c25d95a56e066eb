"""The yardstick for a deviation: how much runs differ that differ in nothing but rounding.

Replicas repeat the reference with every weight multiplied by 1 + 1e-6 N(0, 1), which stands for another order
of summation. What a candidate adds is judged against their spread, by a prediction interval that takes the
small number of replicas into account. Two runs of one seed are not a floor: they are identical.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from windtunnel.align.curves import deviations
from windtunnel.errors import WindtunnelError
from windtunnel.results.align_result import Deviation, Judged

PERTURBATION = 1e-6
MIN_REPLICAS = 3
COARSE_SHARE = 1e-3
# Student's t, two-sided 95 %, by degrees of freedom (replicas - 1); beyond 30 the normal quantile.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL = 1.960


def perturb(parameters: Sequence[torch.Tensor], seed: int, relative: float = PERTURBATION) -> None:
    """Multiply every element by 1 + relative × N(0, 1), in place; the same seed gives the same replica.

    A dtype too coarse for that has one element in a thousand moved by one unit in its last place.
    """
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            step = torch.finfo(parameter.dtype).eps if parameter.is_floating_point() else 0.0
            noise = relative * torch.randn(parameter.shape, generator=draw)
            if step > 100 * relative:
                noise = step * noise.sign() * (torch.rand(parameter.shape, generator=draw) < COARSE_SHARE)
            parameter.mul_((1 + noise).to(parameter.dtype).to(parameter.device))


def judge(
    reference: Sequence[float], candidate: Sequence[float], replicas: Sequence[Sequence[float]]
) -> tuple[Judged, ...]:
    """A candidate's curve against the reference, by every definition, next to replicas of the reference.

    Raises:
        WindtunnelError: E712 curves that do not fit, E713 one diverged, E714 too few replicas.
    """
    if len(replicas) < MIN_REPLICAS:
        raise WindtunnelError(
            "E714",
            f"a noise floor needs at least {MIN_REPLICAS} replicas",
            hint=f"--replicas {MIN_REPLICAS}",
            values={"replicas": len(replicas)},
        )
    floors = [deviations(reference, replica) for replica in replicas]
    return tuple(
        _judged(deviation, tuple(floor[index].value for floor in floors))
        for index, deviation in enumerate(deviations(reference, candidate))
    )


def expected_range(values: Sequence[float]) -> tuple[float, float]:
    """95 % prediction interval for one more of the same kind; needs two values or more."""
    count = len(values)
    mean = math.fsum(values) / count
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = _quantile(count) * std * math.sqrt(1 + 1 / count)
    return mean - half, mean + half


def _quantile(count: int) -> float:
    return _T[count - 2] if count - 2 < len(_T) else _NORMAL


def _judged(deviation: Deviation, floor: tuple[float, ...]) -> Judged:
    count = len(floor)
    mean = math.fsum(floor) / count
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in floor) / (count - 1))
    limit = _quantile(count) * std * math.sqrt(1 + 1 / count)
    excess = deviation.value - mean
    z = excess / std if std else (0.0 if excess == 0 else math.copysign(math.inf, excess))
    inside = abs(excess) <= limit if deviation.signed else excess <= limit
    return Judged(deviation, floor, mean, std, z, limit, inside)
