"""A request inside the scheduler: how far it is and which blocks it holds."""

from __future__ import annotations

from windtunnel.serving.kv_cache import Block, BlockPool
from windtunnel.serving.request import Request

_OUTPUT_KEYS = 1 << 40
"""Keys of blocks with generated tokens are negative and spaced by this: no trace knows them."""


class Sequence:
    """Mutable state of one request. While it decodes, ``computed`` is lazy: see ``Scheduler``."""

    __slots__ = (
        "admitted_s", "blank", "block_tokens", "cached_tokens", "computed", "crosses_at", "ends_at",
        "first_s", "generated", "joined_at", "keyed", "keys", "pool", "preemptions", "request", "shipped",
    )  # fmt: skip

    def __init__(self, request: Request, pool: BlockPool, block_tokens: int, reuse: bool) -> None:
        self.request = request
        self.pool = pool
        self.block_tokens = block_tokens
        self.computed = 0
        self.generated = 0
        self.keys: tuple[int, ...] | None = request.block_keys(block_tokens) if reuse else None
        self.keyed: list[Block] = []
        self.blank = 0
        self.joined_at = -1  # decode clock at which it began to decode; -1: not decoding
        self.ends_at = -1
        self.crosses_at = -1
        self.admitted_s = -1.0
        self.first_s = -1.0
        self.cached_tokens = 0
        self.preemptions = 0
        self.shipped = False  # the prompt's cache arrives from a prefill replica

    @property
    def known(self) -> int:
        """Tokens known: the prompt and what was generated."""
        return self.request.prompt_tokens + self.generated

    @property
    def held(self) -> int:
        """Blocks held."""
        return len(self.keyed) + self.blank

    def register(self, tokens: int) -> None:
        """Give the full blocks among the first ``tokens`` prompt tokens their keys."""
        keys = self.keys
        if keys is None:
            return
        full = min(tokens // self.block_tokens, len(keys))
        have = len(self.keyed)
        if full > have:
            self.keyed += self.pool.register(keys[have:full])
            self.blank -= full - have

    def release(self, reuse: bool) -> None:
        """Give all blocks back; with reuse, full blocks can be found again."""
        if reuse:
            full = self.computed // self.block_tokens
            if full > len(self.keyed):
                self.register(self.computed)
                have = len(self.keyed)
                if full > have:
                    start = -(self.request.number + 1) * _OUTPUT_KEYS
                    self.keyed += self.pool.register([start + index for index in range(have, full)])
                    self.blank -= full - have
        self.pool.release(self.keyed, self.blank)
        self.keyed = []
        self.blank = 0

    def lookup_keys(self) -> tuple[int, ...]:
        """Keys to look for at admission: the prompt's, then those of blocks generated before a preemption."""
        prompt = self.keys or ()
        if not self.generated:
            return prompt
        full = self.known // self.block_tokens
        start = -(self.request.number + 1) * _OUTPUT_KEYS
        return prompt + tuple(start + index for index in range(len(prompt), full))
