"""Recurrent states in blocks, as vLLM 0.33 aligns them: one a group of layers, kept and found at block ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from windtunnel.serving.kv_cache import BlockPool, Hit, Run

_STATE = 1 << 120
"""Keys of states lie above all keys of attention blocks."""


class Slot:
    """The state after a block, one block a group; without ``runs`` it cannot be found yet."""

    __slots__ = ("index", "runs")

    def __init__(self, index: int) -> None:
        self.index = index
        self.runs: list[Run] = []


def state_key(block: int) -> int:
    """Key of the first group's state after the block with this number."""
    return _STATE + (block << 6 if block >= 0 else (-block << 6) | 1 << 119)


def key_at(index: int, parts: Sequence[tuple[int, int]], own: int) -> int:
    """A number for the block at ``index`` and all before it; ``own``: key of blocks after all parts."""
    left = index
    for key, size in parts:
        if left < size:
            return key << 24 | left
        left -= size
    return own << 24 | left


def find_states(
    pool: BlockPool, lookup: Sequence[tuple[int, int]], most: int, groups: int, key_of: Callable[[int], int]
) -> tuple[list[Hit], int, list[Hit], int]:
    """Attention blocks, at most ``most``, up to where all groups have a state; how many, and those states.

    The last answer is how many blocks attention alone knows, where that is more.
    """
    found, blocks = pool.find(lookup, most)
    for end in range(blocks, 0, -1):
        key = state_key(key_of(end - 1))
        states, known = pool.find([(key + group, 1) for group in range(groups)], groups)
        if known == groups:
            if end < blocks:
                found, _ = pool.find(lookup, end)
            return found, end, states, blocks if end < blocks else 0
    return [], 0, [], blocks


def cut_at_states(
    start: int, new: int, size: int, budget: int, known: int, prompt: int, junction: int
) -> int:
    """Tokens of a prompt's next chunk after ``start``, at most ``new``: it ends where the state has to be kept.

    Args:
        size: tokens of a block. budget: most tokens of a step. known: tokens of the sequence, ``prompt`` of them
            prompt. junction: where it stops once more, 0 for nowhere.
    """
    prefill_end = max(prompt, known - 1)
    if start >= prefill_end:
        return new
    end = start + new
    if end < prefill_end:
        aligned = end // size * size
        if aligned > start or size <= budget:
            end = aligned
    stops = [(known - 1) // size * size]
    if start % size:
        stops.append((start // size + 1) * size)
    if start < junction < end:
        stops.append(start + (junction - start) // size * size)
    end = min((stop for stop in stops if start < stop < end), default=end)
    return max(0, end - start)
