"""Where a claim's settings are unknown: the plausible ones searched, and how far one quantity must move to turn it.

``Region`` is a table of predictions over two of the unknowns. ``Turn`` is the answer to "what would have to be true":
a quantity solved for, all else as in the best setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from windtunnel.estimate import Estimate

R = TypeVar("R")
C = TypeVar("C")
STEPS = 8
"""Halvings of the logarithm of a searched range: a range of 10 to 1 is settled within 1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Predictions over two unknowns.

    Attributes:
        title: what is fixed. across: what the columns vary. rows: label, then a prediction for each column; None
            where nothing fits or the setting does not exist.
    """

    title: str
    across: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Estimate | None, ...]], ...]

    @property
    def cells(self) -> tuple[Estimate, ...]:
        """All predictions that there are."""
        return tuple(cell for _, row in self.rows for cell in row if cell is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A quantity solved for.

    Attributes:
        quantity, unit: what is moved. now: what the prediction takes.
        needed: where the prediction meets the figure; None: nowhere between ``now`` and ``end``.
        reached: whether the prediction reaches the figure now, so that ``needed`` is where it stops doing so.
    """

    quantity: str
    unit: str
    now: float
    needed: float | None
    end: float
    reached: bool


def table(
    title: str,
    across: str,
    rows: Sequence[tuple[str, R]],
    columns: Sequence[tuple[str, C]],
    predict: Callable[[R, C], Estimate | None],
) -> Region:
    """Predict every pair of a row and a column."""
    return Region(
        title=title,
        across=across,
        columns=tuple(name for name, _ in columns),
        rows=tuple((name, tuple(predict(row, column) for _, column in columns)) for name, row in rows),
    )


def solve(
    quantity: str,
    unit: str,
    now: float,
    *,
    better: float,
    worse: float,
    predict: Callable[[float], float | None],
    figure: float,
    at_most: bool = False,
) -> Turn:
    """Where between ``now`` and ``better`` (or ``worse``, if it is reached already) the prediction meets ``figure``.

    ``predict`` gives the claim's figure for a value of the quantity, None where nothing fits; it is taken to be
    monotonic in between. The search halves the range in logarithms.
    """

    def reached(value: float) -> bool:
        found = predict(value)
        return found is not None and (found <= figure if at_most else found >= figure)

    here = reached(now)
    end = worse if here else better
    if reached(end) == here:
        return Turn(quantity=quantity, unit=unit, now=now, needed=None, end=end, reached=here)
    near, far = math.log(now), math.log(end)
    for _ in range(STEPS):
        middle = (near + far) / 2
        if reached(math.exp(middle)) == here:
            near = middle
        else:
            far = middle
    return Turn(quantity=quantity, unit=unit, now=now, needed=math.exp(far), end=end, reached=here)
