"""A radix tree over the card and host memory behind it, as SGLang 0.5.23's unified tree keeps it with HiCache.

Nodes are on the card, in host memory, or both. A node is written when it was entered once (``write_through``), twice
(``write_through_selective``), with those above it that were not, or when it leaves the card (``write_back``: the engine
waits for that). It is locked until it is written. A node that leaves the card stays in host memory where it is there;
host memory drops whole leaves, by the order of the card; with ``write_back`` first what the card has, too.
"""

from __future__ import annotations

import heapq
from enum import StrEnum

from windtunnel.serving.radix_pool import RadixPool
from windtunnel.serving.radix_tree import (
    EvictionPolicy,
    Node,
    RadixTree,
    Segments,
    aligned,
    common,
    head,
    length,
    tail,
)

LOAD_BACK_THRESHOLD = 10
"""Fewer tokens are computed again."""


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


class HostTree(RadixTree):
    """``host_free`` of ``host_tokens`` are left. ``now_s``: the engine's clock, which waiting moves.

    ``stored``, ``dropped``, ``loaded`` count tokens.
    """

    pool: RadixPool

    def __init__(
        self, page: int, eviction: EvictionPolicy, policy: WritePolicy, host_tokens: int, token_s: float
    ) -> None:
        super().__init__(page, eviction)
        self.policy = policy
        self.host_tokens = self.host_free = host_tokens // page * page
        self.writes, self.reads = Link(token_s), Link(token_s)
        self.now_s = 0.0
        self.stored = self.dropped = self.loaded = 0
        self._back = policy is WritePolicy.WRITE_BACK
        self._wanted = 1 if policy is WritePolicy.WRITE_THROUGH else 2
        self._host_leaves: dict[Node, None] = {}
        self._twice: dict[Node, None] = {}  # settled on both; what left the card is still here

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
        now, above = self._tick(), node
        while above.parent is not None:
            above.accessed = now
            above = above.parent
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
        node.away = False
        if node.locks:
            self.held += node.tokens
        else:
            self.evictable += node.tokens
        self._settle(node)
        self._note_twice(node)
        assert node.parent is not None
        self._settle(node.parent)

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

    # Loading

    def load(self, node: Node) -> int:
        """Bring a node and those above it back to the card; tokens that are on their way, 0 where it cannot be."""
        path, above = [], node
        while above.away:
            path.append(above)
            assert above.parent is not None
            above = above.parent
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
        self.pool.blank -= tokens // self.page
        self.loaded += tokens
        transfer = Transfer(node, tokens)
        self.reads.asked.append(transfer)
        for one in reversed(path):
            one.away = False
            if one.locks:
                self.held += one.tokens
            else:
                self.evictable += one.tokens
            if self._back:
                one.loading = transfer
            self._settle(one)
        self.lock(node)
        return tokens
