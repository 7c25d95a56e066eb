"""A radix tree over the card and host memory behind it, as SGLang 0.5.23's unified tree keeps it with HiCache.

A node is written when it was entered once (``write_through``), twice (``write_through_selective``), with those above it
that were not, or when it leaves the card (``write_back``: the engine waits for that). It is locked until it is written.
A node that leaves the card stays in host memory where it is there.
"""

from __future__ import annotations

import heapq

from windtunnel.serving.host_link import Transfer, WritePolicy
from windtunnel.serving.radix_pool import RadixPool
from windtunnel.serving.radix_tree import EvictionPolicy, Node
from windtunnel.serving.segments import Segments, aligned, common, head, length, tail
from windtunnel.serving.two_tier_tree import TwoTierTree

LOAD_BACK_THRESHOLD = 10
"""Fewer tokens are computed again."""


class HostTree(TwoTierTree):
    """``now_s``: the engine's clock, which waiting moves. ``stored``, ``loaded`` count tokens."""

    pool: RadixPool

    def __init__(
        self, page: int, eviction: EvictionPolicy, policy: WritePolicy, host_tokens: int, token_s: float
    ) -> None:
        super().__init__(page, eviction, policy, host_tokens, token_s)
        self.now_s = 0.0
        self.stored = self.loaded = 0
        self._wanted = 1 if policy is WritePolicy.WRITE_THROUGH else 2

    # Looking up and entering

    def look(self, segments: Segments, tokens: int) -> tuple[int, Node, int, Node]:
        """Tokens found on the card, their last node, tokens in host memory after them, and theirs."""
        left = aligned(segments, tokens, self.page)
        node = on_card = self.root
        found = far = 0
        while left:
            child = node.children.get(head(left, self.page))
            if child is None:
                break
            same = common(child.segments, left, self.page)
            whole = same == child.tokens
            node = child if whole else self._split(child, same)
            if not whole:
                child.accessed = self._tick()
            if node.away:
                far += same
            else:
                found, on_card = found + same, node
            if not whole:
                break
            left = tail(left, same)
        self._used(node)
        return found, on_card, far, node

    def match(self, segments: Segments, tokens: int) -> tuple[int, Node]:
        """What is found on the card or in host memory, and its last node."""
        found, _, far, node = self.look(segments, tokens)
        return found + far, node

    def use(self, node: Node, segments: Segments, tokens: int) -> Node:
        """See ``RadixTree``."""
        return self.match(segments, tokens)[1]

    def insert(self, segments: Segments, tokens: int, counted: int, priority: int = 0) -> tuple[int, Node]:
        """See ``RadixTree``; what was away is on the card again, so it does not count as there already."""
        left = aligned(segments, tokens, self.page)
        node, there, whole = self.root, 0, 0
        while left:
            child = node.children.get(head(left, self.page))
            if child is None:
                break
            child.accessed = self._tick()
            same = common(child.segments, left, self.page)
            left = tail(left, same)
            node = self._split(child, same) if same < child.tokens else child
            node.priority = max(node.priority, priority)
            whole += same
            if node.away:
                self._return(node)
            else:
                there += same
            if whole > counted and self._hit(node):
                self._write_with_those_above(node)
        if left:
            size = length(left)
            new = Node(node, left, size, self._tick())
            self._lengthened(new)
            node.children[head(left, self.page)] = new
            self.evictable += size
            self._settle(new)
            self._settle(node)
            self._committed(new)
            if whole + size > counted and self._hit(new):
                self._write_with_those_above(new)
            return there, new
        self._committed(node)
        self._complete_copy(node)
        return there, node

    def _committed(self, node: Node) -> None:
        """It ends what was entered."""

    def _complete_copy(self, node: Node) -> None:
        """It was there already; its copy may lack something."""

    def _hit(self, node: Node) -> bool:
        """Count a use; whether it is time to write it."""
        if self._back:
            return False
        node.hits += 1
        return not node.host and node.hits >= self._wanted

    def _return(self, node: Node) -> None:
        self._back_on_card(node)
        self._settle(node)
        self._note_twice(node)
        assert node.parent is not None
        self._settle(node.parent)

    # Writing

    def _write_with_those_above(self, node: Node) -> None:
        chain, above = [node], node.parent
        while above is not None and above.parent is not None and not above.host:
            chain.append(above)
            above = above.parent
        for one in reversed(chain):
            if not one.host and not self._write(one, True):
                return

    def _write(self, node: Node, locks: bool) -> bool:
        """Ask for a node to be written; False: host memory has no room for it."""
        missing = node.tokens - self.host_free
        if missing > 0 and self._evict_host(missing) < missing:
            return False
        self.host_free -= node.tokens
        self.stored += node.tokens
        node.host = True
        if locks:
            self.lock(node)
        node.transfer = Transfer(node, node.tokens, locks)
        self.writes.asked.append(node.transfer)
        return True

    def flush(self) -> None:
        """Begin to write what is to be written."""
        self.writes.submit(self.now_s)

    def poll(self) -> None:
        """Take note of what has arrived."""
        self._written(self.writes.over(self.now_s))
        for one in self.reads.over(self.now_s):
            self.unlock(one.node)
            self._arrived(one)
            for node in one.nodes:
                node.pins -= 1
                self._settle(node)
            above: Node | None = one.node
            while above is not None and above.parent is not None:
                if above.loading is one:
                    above.loading = None
                    self._note_twice(above)
                above = above.parent

    def _arrived(self, transfer: Transfer) -> None:
        """It was read."""

    def _wait(self) -> None:
        """Until everything is written."""
        self.flush()
        if self.writes.under_way:
            self.now_s = max(self.now_s, self.writes.under_way[-1][0])
        self._written(self.writes.over(self.now_s))

    def _written(self, ended: list[Transfer]) -> None:
        for one in ended:
            for node in one.nodes:
                if node.transfer is one:
                    node.transfer = None
                    self._note_twice(node)
            if one.locks:
                self.unlock(one.node)

    # Evicting

    def evict(self, tokens: int, gone: object = None) -> int:
        """Take leaves off the card until at least ``tokens`` are free or none is left; how many came free."""
        line = [(self._order(leaf), id(leaf), leaf) for leaf in self._leaves]
        heapq.heapify(line)
        freed = 0
        while freed < tokens and line:
            node = heapq.heappop(line)[2]
            if node not in self._leaves:
                continue
            parent = node.parent
            assert parent is not None
            freed += self._off_card(node)
            if parent in self._leaves:
                heapq.heappush(line, (self._order(parent), id(parent), parent))
        return freed

    def _off_card(self, node: Node) -> int:
        if not node.host and self._back and self._write(node, False):
            self._wait()
        if node.host:
            self.evictable -= node.tokens
            node.away = True
            self._settle(node)
            assert node.parent is not None
            self._settle(node.parent)
            return node.tokens
        below = list(node.children.values())
        for one in below:
            below += one.children.values()
        if any(one.locks or one.pins or one.transfer or one.loading for one in (node, *below)):
            return 0
        for one in reversed(below):  # only host memory had them
            self._forget(one)
        self.evictable -= node.tokens
        self._forget(node)
        return node.tokens

    # Loading

    def load(self, node: Node) -> int:
        """Bring a node and those above it back to the card; tokens that are on their way, 0 where it cannot be."""
        path = self._away_up_from(node)
        tokens = sum(one.tokens for one in path)
        if tokens < LOAD_BACK_THRESHOLD or (self._back and any(one.loading for one in path)):
            return 0
        node.pins += 1
        self.lock(node)
        self.pool.ensure(tokens // self.page)
        self.unlock(node)
        if self.pool.blank < tokens // self.page:
            node.pins -= 1
            self._settle(node)
            return 0
        self._ask_for(path, Transfer(node, tokens), tokens)
        self.lock(node)
        return tokens

    def _away_up_from(self, node: Node) -> list[Node]:
        """It and those above it that are not on the card, from below."""
        path = []
        while node.away:
            path.append(node)
            assert node.parent is not None
            node = node.parent
        return path

    def _ask_for(self, path: list[Node], transfer: Transfer, tokens: int) -> None:
        """Have a path of ``tokens`` read, into pages that are there."""
        self.pool.blank -= tokens // self.page
        self.loaded += tokens
        self.reads.asked.append(transfer)
        for one in reversed(path):
            self._back_on_card(one)
            if self._back:
                one.loading = transfer
            self._settle(one)
