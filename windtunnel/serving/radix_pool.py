"""Pages behind a radix tree, and sequences with a path in it."""

from __future__ import annotations

from windtunnel.serving.kv_cache import BlockPool
from windtunnel.serving.radix_tree import Node, RadixTree
from windtunnel.serving.request import Request
from windtunnel.serving.segments import Segment, Segments
from windtunnel.serving.sequence import Sequence

_OWN = 1 << 61
"""Keys of tokens that nobody shares lie this far below zero."""


class RadixPool(BlockPool):
    """Pages: blank, held by sequences, or in the tree."""

    def __init__(self, capacity: int, tree: RadixTree) -> None:
        super().__init__(capacity)
        self.tree = tree

    @property
    def free(self) -> int:
        """Pages that are blank or in unlocked nodes."""
        return self.blank + self.tree.evictable // self.tree.page

    @property
    def used(self) -> int:
        """Pages that sequences hold."""
        return self.capacity - self.free

    def take(self, count: int) -> None:
        """Hold blank pages, evicting where there are too few."""
        self.ensure(count)
        self.blank -= count

    def ensure(self, count: int) -> None:
        """Evict until ``count`` pages are blank, or nothing can be evicted."""
        if count > self.blank:
            page = self.tree.page
            self.blank += self.tree.evict((count - self.blank) * page) // page


class RadixSequence(Sequence):
    """A sequence with a path in the tree. ``owned``: its first tokens that the tree holds, up to ``node``."""

    __slots__ = ("counted", "node", "owned", "prompt")
    prompt: Segments

    def begin(self, node: Node) -> None:
        """Nothing in the tree."""
        self.node = node
        self.owned = self.counted = 0

    def keyable(self, tokens: int) -> int:
        """How many of its first ``tokens`` the tree can know."""
        return tokens

    def segments(self, tokens: int) -> Segments:
        """What its first ``tokens`` tokens are."""
        own = tokens - self.request.prompt_tokens
        return (*self.prompt, (self.output_key, 0, own)) if own > 0 else self.prompt


def prompt_segments(request: Request) -> Segments:
    """What a prompt's tokens are."""
    if not request.keys:
        return ((-_OWN - request.number, 0, request.prompt_tokens),)
    parts = request.spans or tuple((key, 1) for key in request.keys)
    found: list[Segment] = []
    left = request.prompt_tokens
    for key, count in parts:
        if left <= 0:
            break
        found.append((key, 0, min(left, count * request.key_tokens)))
        left -= count * request.key_tokens
    if left > 0:
        found.append((-_OWN - request.number, 0, left))
    return tuple(found)
