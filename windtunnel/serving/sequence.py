"""A request inside the scheduler: how far it is and which blocks it holds."""

from __future__ import annotations

from windtunnel.serving.kv_cache import BlockPool, Run
from windtunnel.serving.request import Request

_OUTPUT_KEYS = 1 << 60
"""Keys of blocks with generated tokens lie this far below zero: no trace knows them."""
_MANY = 1 << 40


class Sequence:
    """Mutable state of one request. While it decodes, ``computed`` and ``blank`` are lazy: see ``Scheduler``.

    Attributes:
        parts: keys of the prompt's full blocks, each with its number of blocks. runs: keyed blocks held, ``keyed``
            of them. blank: further blocks held.
    """

    __slots__ = (
        "_cursor", "admitted_s", "blank", "block_tokens", "cached_tokens", "came_at", "computed", "ends_at", "first_s",
        "generated", "joined_at", "keyed", "known_blocks", "loaded", "parts", "pool", "preemptions", "request", "runs",
        "shipped",
    )  # fmt: skip

    def __init__(
        self, request: Request, pool: BlockPool, block_tokens: int, reuse: bool, lookahead: int = 0
    ) -> None:
        self.request = request
        self.pool = pool
        self.block_tokens = block_tokens
        self.computed = 0
        self.generated = 0
        self.parts = request.runs(block_tokens, lookahead) if reuse else ()
        self.known_blocks = sum(blocks for _, blocks in self.parts)
        self.runs: list[Run] = []
        self._cursor = (0, 0)  # the part in which ``keyed`` lies or ends, and the blocks before it
        self.keyed = 0
        self.blank = 0
        self.joined_at = -1  # decode clock at which it began to decode; -1: not decoding
        self.ends_at = -1
        self.admitted_s = -1.0
        self.first_s = -1.0
        self.cached_tokens = 0
        self.preemptions = 0
        self.came_at = 0  # prompt tokens that had been computed when it was queued
        self.shipped = False  # the prompt's cache arrives from a prefill replica
        self.loaded = False  # it waits with cache that came from a slower tier

    @property
    def known(self) -> int:
        """Tokens known: the prompt and what was generated."""
        return self.request.prompt_tokens + self.generated

    @property
    def held(self) -> int:
        """Blocks held."""
        return self.keyed + self.blank

    def register(self, tokens: int) -> None:
        """Give the full blocks among the first ``tokens`` prompt tokens their keys."""
        full = min(tokens // self.block_tokens, self.known_blocks)
        have = self.keyed
        if full <= have:
            return
        index, start = self._cursor
        parts, pool = self.parts, self.pool
        while True:
            key, size = parts[index]
            end = full - start if full - start < size else size
            if have - start < end:
                pool.register(self, key, have - start, end)
                have = start + end
            if have >= full:
                break
            index, start = index + 1, start + size
        self._cursor = (index, start)
        self.blank -= full - self.keyed
        self.keyed = full

    def release(self, reuse: bool, in_flight: int = 0) -> None:
        """Give all blocks back; with reuse, blocks that are full but for ``in_flight`` tokens can be found again."""
        if reuse:
            there = self.computed - in_flight
            full = there // self.block_tokens
            if full > self.keyed:
                self.register(there)
                if full > self.keyed:
                    first = self.keyed - self.known_blocks
                    self.pool.register(self, self.output_key, first, full - self.known_blocks)
                    self.blank -= full - self.keyed
        self.pool.release(self, self.blank)
        self.restart()

    def restart(self) -> None:
        """Nothing held."""
        self._cursor = (0, 0)
        self.keyed = 0
        self.blank = 0

    def lookup(self) -> tuple[tuple[int, int], ...]:
        """What to look for at admission: the prompt's keys, then blocks generated before a preemption."""
        own = self.generated or (self.preemptions and not self.parts)
        return (*self.parts, (self.output_key, _MANY)) if own else self.parts

    @property
    def output_key(self) -> int:
        """Key of its own blocks of generated tokens."""
        return -_OUTPUT_KEYS - self.request.number
