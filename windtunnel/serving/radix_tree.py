"""A radix tree of cached prefixes, evicted node by node, as SGLang 0.5.23's ``RadixCache`` keeps it. Counts only.

Tokens are known by segments (key, first, end) of the traffic's chained keys. A node holds whole pages; a match that
ends inside a node splits it, and only leaves that nobody has locked are evicted, whole, by the policy's order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from windtunnel.serving.segments import Segments, aligned, first, head, length, rest, tail

if TYPE_CHECKING:
    from windtunnel.serving.host_link import Transfer


class EvictionPolicy(StrEnum):
    """Names of ``--radix-eviction-policy``."""

    LRU = "lru"
    LFU = "lfu"
    SLRU = "slru"
    PRIORITY = "priority"
    TLRU = "tlru"


class Node:
    """Some pages after those of its parent. ``locks``: sequences that hold it or something below it.

    ``state``: whether the recurrent state after its last token is kept (see ``state_tree``); ``state_locks``: sequences
    that hold it. ``away``: it is not on the card; ``host``: host memory has it, ``pins``: for loads under way;
    ``transfer``: it is being written, ``loading``: read (see ``host_tree``); ``state_host``, ``state_pins``: the same
    of its state (see ``host_state_tree``). ``lined``: it has a place in the line of those to be evicted.
    ``priority``: 1 of prompts, 0 of outputs. ``depth``: tokens up to its end, ``longest``: the most that ever were to
    the end of something below it.
    """

    __slots__ = (
        "accessed", "away", "children", "depth", "hits", "host", "lined", "loading", "locks", "longest", "parent",
        "pins", "priority", "segments", "state", "state_host", "state_locks", "state_pins", "tokens", "transfer",
    )  # fmt: skip

    def __init__(self, parent: Node | None, segments: Segments, tokens: int, now: int) -> None:
        self.parent = parent
        self.segments = segments
        self.tokens = tokens
        self.children: dict[Segments, Node] = {}
        self.locks = 0
        self.hits = 0
        self.accessed = now
        self.state = self.away = self.host = self.state_host = self.lined = False
        self.state_locks = self.pins = self.state_pins = 0
        self.priority = 0
        self.depth: int = tokens + (parent.depth if parent is not None else 0)
        self.longest = self.depth
        self.transfer: Transfer | None = None
        self.loading: Transfer | None = None


PROTECTED_HITS = 2
_ORDER: dict[EvictionPolicy, Callable[[Node], tuple[int, ...]]] = {
    EvictionPolicy.LRU: lambda node: (node.accessed,),
    EvictionPolicy.LFU: lambda node: (node.hits, node.accessed),
    EvictionPolicy.SLRU: lambda node: (int(node.hits >= PROTECTED_HITS), node.accessed),
    EvictionPolicy.PRIORITY: lambda node: (node.priority, node.accessed),
}


class RadixTree:
    """``evictable``: tokens in nodes that nobody has locked. ``held``: tokens in locked nodes.

    ``tail``: with ``tlru``, tokens at the end of the longest that was known which go first.
    """

    def __init__(self, page: int, policy: EvictionPolicy = EvictionPolicy.LRU) -> None:
        self.page = page
        self.evictable = 0
        self.held = 0
        self.tail = 0
        self._order = self._tails_first if policy is EvictionPolicy.TLRU else _ORDER[policy]
        self._shrinks = policy is EvictionPolicy.TLRU  # a node's order, where it is split
        self._now = 0
        self.root = Node(None, (), 0, 0)
        self.root.locks = 1
        self._leaves: dict[Node, None] = {}
        self._line: list[
            tuple[tuple[int, ...], int, Node]
        ] = []  # a heap of leaves by the order they had, or less

    def _tails_first(self, node: Node) -> tuple[int, ...]:
        spared = max(node.longest - self.tail, 0)
        return (-int(node.depth - node.tokens >= spared), node.accessed)

    def match(self, segments: Segments, tokens: int) -> tuple[int, Node]:
        """The longest cached prefix of the first ``tokens`` in whole pages, and its last node."""
        node, found, _ = self._walk(segments, tokens)
        return found, node

    def insert(self, segments: Segments, tokens: int, counted: int, priority: int = 0) -> tuple[int, Node]:
        """Add the first ``tokens`` in whole pages; the answer is how many were there already, and the last node.

        Nodes that lie within ``counted`` tokens were counted for this sequence before.
        """
        node, found, left = self._walk(segments, tokens, counted, priority)
        if left:
            size = length(left)
            new = Node(node, left, size, self._tick())
            new.hits = int(found + size > counted)
            self._lengthened(new)
            node.children[head(left, self.page)] = new
            self.evictable += size
            self._leaves.pop(node, None)
            self._ends_in(new)
            node = new
        return found, node

    def use(self, node: Node, segments: Segments, tokens: int) -> Node:
        """``match`` of what was just entered up to ``node``."""
        self._used(node)
        self.root.accessed = self._now
        return node

    def _used(self, node: Node) -> None:
        """It and those above it, now."""
        now = self._tick()
        while node.parent is not None:
            node.accessed = now
            node = node.parent

    def _walk(
        self, segments: Segments, tokens: int, counted: int | None = None, priority: int = 0
    ) -> tuple[Node, int, Segments]:
        """As far as the tree has the whole pages of the first ``tokens``: its last node, how many, and what is left.

        A node that has only a part of them is split. Nodes beyond ``counted`` tokens are hit once more.
        """
        whole, page = aligned(segments, tokens, self.page), self.page
        node, found, now = self.root, 0, self._tick()
        node.accessed = now
        place, size = 0, len(whole)
        begin = whole[0][1] if whole else 0
        while place < size:  # at token ``begin`` of the segment at ``place``
            key, _, end = whole[place]
            if end - begin >= page:
                child = node.children.get(((key, begin, begin + page),))
            else:
                child = node.children.get(first(rest(whole, place, begin), page))
            if child is None:
                break
            child.accessed = now
            after = place + len(child.segments)
            if begin == whole[place][1] and whole[place:after] == child.segments:  # all of it, as mostly
                node, found, place = child, found + child.tokens, after
                node.priority = max(node.priority, priority)
                begin = whole[place][1] if place < size else 0
                if counted is not None and found > counted:
                    node.hits += 1
                continue
            same, at, start = 0, place, begin
            for other, other_start, other_end in child.segments:
                if at == size or whole[at][0] != other or start != other_start:
                    break
                end = whole[at][2]
                if end != other_end:
                    same += min(end, other_end) - start
                    break
                same += end - start
                at += 1
                start = whole[at][1] if at < size else 0
            same = same // page * page
            found += same
            skipped = same
            while skipped:
                left = whole[place][2] - begin
                if skipped < left:
                    begin += skipped
                    break
                skipped -= left
                place += 1
                begin = whole[place][1] if place < size else 0
            node = self._split(child, same) if same < child.tokens else child
            node.priority = max(node.priority, priority)
            if counted is not None and found > counted:
                node.hits += 1
        return node, found, rest(whole, place, begin)

    def _lengthened(self, new: Node) -> None:
        """Tell all above how far it reaches."""
        above = new.parent
        while above is not None and above.longest < new.depth:
            above.longest = new.depth
            above = above.parent

    def lock(self, node: Node) -> None:
        """Keep the node and all above it."""
        while node.parent is not None:
            if not node.locks:
                self.evictable -= node.tokens
                self.held += node.tokens
                self._leaves.pop(node, None)
            node.locks += 1
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Undo one ``lock``."""
        while node.parent is not None:
            node.locks -= 1
            if not node.locks:
                self.evictable += node.tokens
                self.held -= node.tokens
                if not node.children:
                    self._ends_in(node)
            node = node.parent

    def evict(self, tokens: int, gone: Callable[[Segments], None] | None = None) -> int:
        """Drop leaves until at least ``tokens`` are free or none is left; the answer is how many were dropped.

        ``gone`` is told the segments of every node that is dropped.
        """
        if self._shrinks:
            for _, _, node in self._line:
                node.lined = False
            self._line = []
            for node in self._leaves:
                self._ends_in(node)
        line, dropped = self._line, 0
        while dropped < tokens and line:
            order, _, node = line[0]
            if node not in self._leaves:
                node.lined = False
                heapq.heappop(line)
            elif (now := self._order(node)) != order:  # used since: other orders only grow
                heapq.heapreplace(line, (now, id(node), node))
            else:
                node.lined = False
                heapq.heappop(line)
                dropped += node.tokens
                self._remove(node)
                if gone is not None:
                    gone(node.segments)
        return dropped

    def _remove(self, leaf: Node) -> Node:
        """Drop a leaf; the answer is its parent, which may be a leaf now."""
        parent = leaf.parent
        assert parent is not None
        self.evictable -= leaf.tokens
        del parent.children[head(leaf.segments, self.page)]
        del self._leaves[leaf]
        if not parent.children and not parent.locks:
            self._ends_in(parent)
        return parent

    def _ends_in(self, leaf: Node) -> None:
        """It can be evicted."""
        self._leaves[leaf] = None
        if not leaf.lined:
            leaf.lined = True
            heapq.heappush(self._line, (self._order(leaf), id(leaf), leaf))

    def _split(self, child: Node, at: int) -> Node:
        """Two nodes out of one; the answer is the upper one."""
        parent = child.parent
        assert parent is not None
        upper = Node(parent, first(child.segments, at), at, self._tick())
        upper.hits, upper.locks, upper.priority, upper.longest = (
            child.hits,
            child.locks,
            child.priority,
            child.longest,
        )
        parent.children[head(child.segments, self.page)] = upper
        child.segments = tail(child.segments, at)
        child.tokens -= at
        child.parent = upper
        upper.children[head(child.segments, self.page)] = child
        return upper

    def _tick(self) -> int:
        self._now += 1
        return self._now
