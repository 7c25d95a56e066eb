"""Steps in a row that differ only by the tokens that the cache has grown by: how many at once, and how long."""

from __future__ import annotations

from collections.abc import Sequence


def slowest(lines: Sequence[tuple[float, float, int]], most: int) -> tuple[float, float, int]:
    """The rank that all wait for, and for how many steps it stays the slowest."""
    if len(lines) == 1:
        first_s, more, steps = lines[0]
        return first_s, more, min(most, steps)
    most = min(most, *(steps for _, _, steps in lines))
    first = max(lines)
    while most > 1:
        last = max(line[0] + line[1] * (most - 1) for line in lines)
        if last <= first[0] + first[1] * (most - 1):
            break
        most //= 2
    return first[0], first[1], most


def starting_before(left_s: float, first: float, more: float, most: int) -> int:
    """How many of ``most`` steps, at least one, start within ``left_s``: each is ``more`` longer than the last."""
    last = most - 1
    if not last or last * first + more * (last * (last - 1) // 2) < left_s:  # as mostly
        return most

    def start(step: int) -> float:
        return step * first + more * (step * (step - 1) // 2)

    low, high = 1, most - 1  # the first ``low`` start in time, step ``high`` does not
    while low < high:
        middle = (low + high) // 2
        if start(middle) < left_s:
            low = middle + 1
        else:
            high = middle
    return low
