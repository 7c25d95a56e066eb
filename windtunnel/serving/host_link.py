"""The way between a card and host memory: what goes over it, one direction at a time, and when it has arrived."""

from __future__ import annotations

from enum import StrEnum

from windtunnel.serving.radix_tree import Node


class WritePolicy(StrEnum):
    """Names of ``--hicache-write-policy``."""

    WRITE_THROUGH = "write_through"
    WRITE_THROUGH_SELECTIVE = "write_through_selective"
    WRITE_BACK = "write_back"


class Transfer:
    """One node's way to host memory or back. ``nodes``: what it became by splits."""

    __slots__ = ("locks", "node", "nodes", "tokens")

    def __init__(self, node: Node, tokens: float, locks: bool = True) -> None:
        self.node, self.tokens, self.locks = node, tokens, locks
        self.nodes = [node]


class Link:
    """One direction: transfers that were asked for, and those under way, merged, one after another."""

    def __init__(self, token_s: float) -> None:
        self.token_s = token_s
        self._free_s = 0.0
        self.asked: list[Transfer] = []
        self.under_way: list[tuple[float, list[Transfer]]] = []

    def submit(self, now_s: float) -> float:
        """Begin what was asked for; the answer is when it ends, 0 for nothing."""
        if not self.asked:
            return 0.0
        tokens = sum(one.tokens for one in self.asked)
        self._free_s = max(self._free_s, now_s) + tokens * self.token_s
        self.under_way.append((self._free_s, self.asked))
        self.asked = []
        return self._free_s

    def over(self, now_s: float) -> list[Transfer]:
        """Those that have ended."""
        ended: list[Transfer] = []
        while self.under_way and self.under_way[0][0] <= now_s:
            ended += self.under_way.pop(0)[1]
        return ended
