"""Blocks kept in runs behave as blocks kept one by one: the same found, free and evicted."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.block_pool import Block
from tests.unit.serving.block_pool import BlockPool as ByBlock
from windtunnel.serving.kv_cache import BlockPool, Run

WIDTH = 4  # blocks of one key
CAPACITY = 40


class Person:
    """Who holds blocks in both pools."""

    def __init__(self, keys: tuple[int, ...], blocks: int) -> None:
        whole, rest = divmod(blocks, WIDTH)
        self.keys = keys[: whole + bool(rest)]
        self.parts = [(key, WIDTH) for key in self.keys[:whole]] + [(key, rest) for key in self.keys[whole:]]
        self.single = tuple(key * WIDTH + place for key, size in self.parts for place in range(size))
        self.runs: list[Run] = []
        self.blocks: list[Block] = []

    @property
    def held(self) -> int:
        return sum(run.size for run in self.runs)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(1, 3), min_size=1, max_size=4),  # a path in a small tree of keys
            st.integers(1, 16),  # blocks of the prompt
            st.integers(1, 9),  # blocks computed a step
            st.integers(1, 4),  # how many others start before this one ends
        ),
        min_size=2,
        max_size=14,
    )
)
def test_runs_are_blocks(people: list[tuple[list[int], int, int, int]]) -> None:
    runs, blocks = BlockPool(CAPACITY), ByBlock(CAPACITY)
    inside: list[tuple[Person, int, int]] = []
    for path, size, chunk, stay in people:
        chained = tuple(int("".join(map(str, path[: i + 1]))) for i in range(len(path)))
        person = Person(chained, min(size, len(path) * WIDTH))
        hits, found = runs.find(person.parts, len(person.single))
        singles = blocks.find(person.single, len(person.single))
        assert found == len(singles)
        assert runs.idle_among(hits) == blocks.idle_among(singles)
        if len(person.single) - found + runs.idle_among(hits) <= runs.free:
            runs.touch(person, hits)
            blocks.touch(singles)
            person.blocks = singles
            inside.append((person, chunk, stay))
        assert runs.free == blocks.free
        inside = [_step(runs, blocks, *one) for one in inside]
        inside = [one for one in inside if one[2] > 0]
        assert runs.free == blocks.free
    for person, _, _ in inside:
        runs.release(person, 0)
        blocks.release(person.blocks, 0)
    assert runs.free == blocks.free == CAPACITY


def _step(runs: BlockPool, blocks: ByBlock, person: Person, chunk: int, stay: int) -> tuple[Person, int, int]:
    """Compute some more of the prompt side by side with others, or leave."""
    have = person.held
    assert have == len(person.blocks)
    new = min(chunk, len(person.single) - have)
    if new > runs.free or stay == 1:
        runs.release(person, 0)
        blocks.release(person.blocks, 0)
        return person, chunk, 0
    if new:
        runs.take(new)
        blocks.take(new)
        person.blocks += blocks.register(person.single[have : have + new])
        while new:
            index, place = divmod(have, WIDTH)
            size = min(new, WIDTH - place)
            runs.register(person, person.keys[index], place, place + size)
            have, new = have + size, new - size
    return person, chunk, stay - 1
