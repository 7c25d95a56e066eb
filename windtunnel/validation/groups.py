"""Errors by group: how many rows, how far off, how biased, how well ranked, how often the interval holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from windtunnel.cost.kernel_time import Floats
from windtunnel.validation.formats import FORMATS, Kind
from windtunnel.validation.rows_file import Answers
from windtunnel.validation.score import weighted_quantile

RANKED_ROWS_MIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Rows that are judged together. Errors are absolute and relative to the measurement.

    Attributes:
        seen: rows. predicted: with a prediction. compared: of these, measured and scored.
        reasons: why rows were refused, most frequent first.
        median, p90: of the compared rows. time_median: weighted by measured time.
        median_all, p90_all: the same with refused rows counted as 100 %.
        bias: median of predicted ÷ measured, less 1. rank: Spearman's correlation.
        coverage: share of measurements inside the 80 % interval.
        baseline_median: of the data sheet alone (FLOPs, bytes and links at full rate).
        nearest_median: of the nearest shape in the calibration tables; None where it was not looked up.
    """

    file: str
    target: str
    family: str = ""
    library: str = ""
    chip: str = ""
    seen: int
    predicted: int
    compared: int
    reasons: tuple[tuple[str, int], ...] = ()
    median: float | None = None
    p90: float | None = None
    time_median: float | None = None
    bias: float | None = None
    rank: float | None = None
    coverage: float | None = None
    baseline_median: float | None = None
    nearest_median: float | None = None
    median_all: float | None = None
    p90_all: float | None = None

    @property
    def refused(self) -> int:
        """Rows without a prediction."""
        return self.seen - self.predicted


def by_file(answers: Sequence[Answers]) -> list[Group]:
    """One group for each file and target."""
    return _grouped(answers, ("file", "target"))


def by_family(answers: Sequence[Answers]) -> list[Group]:
    """One group for each file, target, family, library and chip."""
    return _grouped(answers, ("file", "target", "family", "library", "chip"))


def pooled(answers: Sequence[Answers]) -> list[Group]:
    """All training steps, all peaks of memory in training, all serving rows: one group each, over files.

    Their columns have several units, so that neither ranks nor weights by time mean anything.
    """
    members: dict[str, list[Answers]] = defaultdict(list)
    for part in answers:
        known = FORMATS.get(part.file)
        kind = known.kind if known else Kind.UNPREDICTED
        if kind is Kind.TRAINING:
            members["peak memory" if part.unit == "GiB" else "training steps"].append(part)
        elif kind is Kind.SERVING:
            members["serving"].append(part)
    return [_pooled(name, parts) for name, parts in sorted(members.items())]


def _pooled(name: str, parts: Sequence[Answers]) -> Group:
    """Of a row with several columns, only the one that is scored counts as seen."""
    group = _group({"file": f"{name}, pooled", "target": "all"}, parts)
    seen = sum(int((part.scored & np.isfinite(part.measured) & (part.measured > 0)).sum()) for part in parts)
    return replace(group, seen=seen, predicted=group.compared, time_median=None, rank=None)


def worst_first(groups: Sequence[Group]) -> list[Group]:
    """By median error with refusals counted, largest first; groups that nobody measured come last."""
    return sorted(
        groups, key=lambda g: (-1.0 if g.median_all is None else g.median_all, g.compared), reverse=True
    )


def _grouped(answers: Sequence[Answers], names: tuple[str, ...]) -> list[Group]:
    members: dict[tuple[str, ...], list[Answers]] = defaultdict(list)
    for part in answers:
        members[tuple(getattr(part, name) for name in names)].append(part)
    return [_group(dict(zip(names, key, strict=True)), parts) for key, parts in sorted(members.items())]


def _group(key: dict[str, str], parts: Sequence[Answers]) -> Group:
    value, low, high, measured, baseline = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("value", "low", "high", "measured", "baseline")
    )
    scored = np.concatenate([part.scored for part in parts])
    seen, answered = len(value), np.isfinite(value)
    known = scored & np.isfinite(measured) & (measured > 0)
    both = known & answered
    reasons: Counter[str] = Counter()
    for part in parts:
        if part.reason:
            reasons[part.reason] += len(part)
    counts = {"seen": seen, "predicted": int(answered.sum()), "compared": int(both.sum())}
    figures: dict[str, float] = {}
    if known.any():
        # NaN of a refused row: 100 %
        everything = np.where(answered, np.abs(value / np.where(known, measured, 1.0) - 1.0), 1.0)[known]
        figures["median_all"] = float(np.median(everything))
        figures["p90_all"] = float(np.quantile(everything, 0.9))
    if both.any():
        figures |= _figures(
            value[both], low[both], high[both], measured[both], baseline[both], _is_rate(parts)
        )
        nearest = np.concatenate([p.baseline * np.nan if p.nearest is None else p.nearest for p in parts])
        figures |= _against("nearest_median", nearest[both], measured[both])
    return Group(**key, **counts, reasons=tuple(reasons.most_common()), **figures)  # type: ignore[arg-type]


def _is_rate(parts: Sequence[Answers]) -> bool:
    return parts[0].unit.endswith("/s")


def _figures(
    value: Floats, low: Floats, high: Floats, measured: Floats, baseline: Floats, rate: bool
) -> dict[str, float]:
    error = np.abs(value / measured - 1.0)
    found = {
        "median": float(np.median(error)),
        "p90": float(np.quantile(error, 0.9)),
        "time_median": weighted_quantile(error, 1.0 / measured if rate else measured, 0.5),
        "bias": float(np.median(value / measured) - 1.0),
    }
    if np.isfinite(low).any():
        found["coverage"] = float(np.mean((low <= measured) & (measured <= high)))
    found |= _against("baseline_median", baseline, measured)
    rank = spearman(value, measured)
    return found if rank is None else {**found, "rank": rank}


def _against(name: str, baseline: Floats, measured: Floats) -> dict[str, float]:
    """Median absolute error of a baseline where it says something."""
    stated = np.isfinite(baseline)
    if not stated.any():
        return {}
    return {name: float(np.median(np.abs(baseline[stated] / measured[stated] - 1.0)))}


def spearman(first: Floats, second: Floats) -> float | None:
    """Rank correlation, ties at their mean rank; None for fewer than three rows or a constant."""
    if len(first) < RANKED_ROWS_MIN:
        return None
    a, b = _ranks(first), _ranks(second)
    spread = float(a.std() * b.std())
    return None if spread == 0 else float(((a - a.mean()) * (b - b.mean())).mean() / spread)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse.reshape(-1)], dtype=np.float64)
