"""The points at which steps are priced, and the straight lines between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

CAPTURE_MAX = 512
"""Largest batch that vLLM captures a graph for unless told otherwise."""


def captured(most: int = CAPTURE_MAX) -> list[int]:
    """Batch sizes with a captured graph, as vLLM picks them: 1, 2, 4, then eights to 248, then sixteens."""
    sizes = [1, 2, 4, *range(8, 256, 8), *range(256, most + 1, 16)]
    return [size for size in sizes if size <= most]


def geometric(first: int, last: int, steps_per_doubling: int) -> list[int]:
    """Whole numbers from ``first`` to at least ``last``, evenly spaced in their logarithm."""
    points, index = [first], 0
    while points[-1] < last:
        index += 1
        point = round(first * 2 ** (index / steps_per_doubling))
        if point > points[-1]:
            points.append(point)
    return points


class Priced(dict[int, float]):
    """Values by point, each made when it is first asked for; then a look-up costs what a dictionary's does."""

    def __init__(self, value: Callable[[int], float]) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, point: int) -> float:
        value = self[point] = self._value(point)
        return value


class Line:
    """A function known at ``points`` (priced when first asked for), straight between them.

    Beyond the last point the last stretch goes on; below the first its value holds.
    """

    def __init__(self, points: Sequence[int], value: Callable[[int], float]) -> None:
        self._points = list(points)
        self.known = Priced(value)

    def at(self, x: float) -> float:
        """The interpolated value."""
        low, high, share = self.bracket(x)
        known = self.known
        return known[low] * (1 - share) + known[high] * share if share else known[low]

    def bracket(self, x: float) -> tuple[int, int, float]:
        """The points around ``x`` and how far between them it is."""
        points = self._points
        place = bisect_left(points, x)
        if place == len(points):
            place -= 1
        high = points[place]
        if high == x:
            return high, high, 0.0
        if not place:
            return high, points[1], 0.0
        low = points[place - 1]
        return low, high, (x - low) / (high - low)


class Plane:
    """A function of two numbers: a ``Line`` over ``columns`` at each of ``rows``, straight between those lines."""

    def __init__(
        self, rows: Sequence[int], columns: Sequence[int], value: Callable[[int, int], float]
    ) -> None:
        self._rows = Line(rows, lambda _: 0.0)
        self._columns = Line(columns, lambda _: 0.0)
        self._points = list(columns)
        self._value = value
        self._lines: dict[int, Line] = {}
        self._held: dict[float, tuple[Priced, Priced, float]] = {}  # by row: batches and chunks come again

    def at(self, row: float, column: float) -> float:
        """The interpolated value."""
        held = self._held.get(row)
        if held is None:
            held = self._held[row] = self._around(row)
        first, last, share = held
        low, high, part = self._columns.bracket(column)
        rest = 1 - part
        found = first[low] * rest + first[high] * part if part else first[low]
        if not share:
            return found
        other = last[low] * rest + last[high] * part if part else last[low]
        return found * (1 - share) + other * share

    def _around(self, row: float) -> tuple[Priced, Priced, float]:
        """What is known of the lines around a row, and how far between them it is."""
        low, high, share = self._rows.bracket(row)
        return self._line(low).known, self._line(high).known, share

    def _line(self, row: int) -> Line:
        if row not in self._lines:
            self._lines[row] = Line(self._points, lambda column: self._value(row, column))
        return self._lines[row]
