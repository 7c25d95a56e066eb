"""A radix tree whose nodes are on the card, in host memory, or both: where each is, and what may leave which.

A locked node stays where it is. The card gives up leaves of what it has (``host_tree`` says when); host memory drops
whole leaves of what it alone has, by the order of the card; with ``write_back`` first what the card has, too.
"""

from __future__ import annotations

import heapq

from windtunnel.serving.host_link import Link, Transfer, WritePolicy
from windtunnel.serving.radix_tree import EvictionPolicy, Node, RadixTree
from windtunnel.serving.segments import head


class TwoTierTree(RadixTree):
    """``host_free`` of ``host_tokens`` are left. ``dropped`` counts tokens that left host memory."""

    def __init__(
        self, page: int, eviction: EvictionPolicy, policy: WritePolicy, host_tokens: int, token_s: float
    ) -> None:
        super().__init__(page, eviction)
        self.host_tokens = self.host_free = host_tokens // page * page
        self.dropped = 0
        self.writes, self.reads = Link(token_s), Link(token_s)
        self._back = policy is WritePolicy.WRITE_BACK
        self._host_leaves: dict[Node, None] = {}
        self._twice: dict[Node, None] = {}  # settled on both; what left the card is still here

    def lock(self, node: Node) -> None:
        """Keep the node and all above it, where they are."""
        while node.parent is not None:
            if not node.locks and not node.away:
                self.evictable -= node.tokens
                self.held += node.tokens
            node.locks += 1
            self._leaves.pop(node, None)
            self._host_leaves.pop(node, None)
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Undo one ``lock``."""
        while node.parent is not None:
            node.locks -= 1
            if not node.locks:
                if not node.away:
                    self.evictable += node.tokens
                    self.held -= node.tokens
                self._settle(node)
            node = node.parent

    def _settle(self, node: Node) -> None:
        """Note whether it is a leaf of what the card has, or of what only host memory has."""
        free = node.parent is not None and not node.locks
        if free and not node.away and all(child.away for child in node.children.values()):
            self._leaves[node] = None
        else:
            self._leaves.pop(node, None)
        if free and node.away and node.host and not node.pins and not node.children:
            self._host_leaves[node] = None
        else:
            self._host_leaves.pop(node, None)

    def _note_twice(self, node: Node) -> None:
        if not node.away and node.host and node.transfer is None and node.loading is None:
            self._twice.setdefault(node)
        else:
            self._twice.pop(node, None)

    def _back_on_card(self, node: Node) -> None:
        """Count it among what the card has."""
        node.away = False
        if node.locks:
            self.held += node.tokens
        else:
            self.evictable += node.tokens

    def _split(self, child: Node, at: int) -> Node:
        upper = super()._split(child, at)
        upper.away, upper.host, upper.pins = child.away, child.host, child.pins
        upper.transfer, upper.loading = child.transfer, child.loading
        if child.transfer is not None:
            child.transfer.nodes.append(upper)
        for transfer in self._pinning(child):
            transfer.nodes.append(upper)
        self._settle(upper)
        self._settle(child)
        self._note_twice(upper)
        return upper

    def _pinning(self, node: Node) -> list[Transfer]:
        under_way = [one for _, batch in self.reads.under_way for one in batch]
        return [one for one in (*self.reads.asked, *under_way) if node in one.nodes]

    # Host memory

    def _forget(self, node: Node) -> Node:
        """Out of the tree; the answer is its parent."""
        parent = node.parent
        assert parent is not None
        if node.host:
            self.host_free += node.tokens
            self.dropped += node.tokens
        del parent.children[head(node.segments, self.page)]
        for line in (self._leaves, self._host_leaves, self._twice):
            line.pop(node, None)
        self._settle(parent)
        return parent

    def _evict_host(self, tokens: int) -> int:
        """Drop from host memory until ``tokens`` are free or nothing can go; the answer is how many went."""
        freed = self._drop_twice(tokens) if self._back else 0
        line = [(self._order(leaf), id(leaf), leaf) for leaf in self._host_leaves]
        heapq.heapify(line)
        while freed < tokens and line:
            node = heapq.heappop(line)[2]
            if node not in self._host_leaves:
                continue
            freed += node.tokens
            parent = self._forget(node)
            if parent in self._host_leaves:
                heapq.heappush(line, (self._order(parent), id(parent), parent))
        return freed

    def _drop_twice(self, tokens: int) -> int:
        """Copies of what the card has, too; last those of nodes that will leave it soon."""
        freed, swept = 0, []
        for spares in (True, False):
            for node in self._twice:
                if freed >= tokens:
                    break
                if node.away or not node.host:
                    swept.append(node)
                    continue
                if (spares and node in self._leaves) or node.transfer or node.loading or node.pins:
                    continue
                node.host = False
                self.host_free += node.tokens
                self.dropped += node.tokens
                freed += node.tokens
                swept.append(node)
        for node in swept:
            self._twice.pop(node, None)
        return freed
