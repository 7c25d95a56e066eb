"""A radix tree with recurrent states over the card and host memory behind it, as SGLang 0.5.23's unified tree keeps it.

A prefix counts as found up to the deepest node whose state the card or host memory has. A node is written with its
state; a state that comes later is written alone. A state leaves the card alone, or with its node where that is an
unlocked leaf; host memory drops states used least recently, with their nodes where those are leaves there. What is
brought back is a node's pages and two copies of its state, one of which is the request's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from windtunnel.serving.host_link import Transfer, WritePolicy
from windtunnel.serving.host_tree import LOAD_BACK_THRESHOLD, HostTree
from windtunnel.serving.radix_tree import EvictionPolicy, Node
from windtunnel.serving.segments import Segments, aligned, common, head, tail


class Match(NamedTuple):
    """Up to ``node`` ``found`` tokens with a state on the card; up to ``best`` ``far`` more that host memory has, too.

    ``whole``: tokens known without regard to states.
    """

    found: int
    node: Node
    far: int
    best: Node
    whole: int

    @property
    def loads(self) -> bool:
        """Whether host memory has something that is to be brought back."""
        return self.far > 0 or (self.best.state_host and not self.best.state)


class HostStateTree(HostTree):
    """``host_states_free`` of ``host_states`` places are left. ``state_tokens``: a state's bytes ÷ a token's.

    ``free_states`` tells how many places for states the card has left.
    """

    free_states: Callable[[], int]

    def __init__(
        self, page: int, eviction: EvictionPolicy, policy: WritePolicy, host_tokens: int, token_s: float,
        host_states: int, state_tokens: float,
    ) -> None:  # fmt: skip
        super().__init__(page, eviction, policy, host_tokens, token_s)
        self.host_states = self.host_states_free = host_states
        self.state_tokens = state_tokens
        self._states: dict[Node, None] = {}  # on the card, least recently used first
        self._host_states: dict[Node, None] = {}  # in host memory alone, and not being read
        self._keeping = self._there = False

    @property
    def states(self) -> int:
        """States on the card."""
        return len(self._states)

    # Looking up and entering

    def find(self, segments: Segments, tokens: int) -> Match:
        """What the card and host memory have of the first ``tokens``."""
        left = aligned(segments, tokens, self.page)
        node = on_card = best = self.root
        found = whole = 0
        while left:
            child = node.children.get(head(left, self.page))
            if child is None:
                break
            same = common(child.segments, left, self.page)
            whole += same
            if same < child.tokens:
                self._split(child, same)
                child.accessed = self._tick()
                break
            left = tail(left, same)
            node = child
            if node.state or node.state_host:
                best = node
            if node.state and not node.away:
                found, on_card = whole, node
        if best.state:
            self._use(best)
        self._used(best)
        far, above = 0, best
        while above is not on_card and above.parent is not None:
            far += above.tokens if above.host else 0
            above = above.parent
        return Match(found, on_card, far, best, whole)

    def match(self, segments: Segments, tokens: int) -> tuple[int, Node]:
        """See ``HostTree``."""
        match = self.find(segments, tokens)
        return match.found + match.far, match.best

    def keep(self, segments: Segments, tokens: int, counted: int) -> tuple[int, Node, bool]:
        """``insert`` with the state after the last token; whether that state was there already."""
        self._keeping = True
        found, node = self.insert(segments, tokens, counted)
        self._keeping = False
        return found, node, self._there

    def _committed(self, node: Node) -> None:
        if not self._keeping:
            return
        self._there = node.state
        node.state = True
        self._host_states.pop(node, None)
        self._use(node)
        node.accessed = self._tick()

    def _complete_copy(self, node: Node) -> None:
        if not self._back and node.host and node.transfer is None and node.state and not node.state_host:
            self._write(node, True)

    def lock(self, node: Node) -> None:
        """Keep the node, its state and all nodes above it."""
        super().lock(node)
        node.state_locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one ``lock``."""
        super().unlock(node)
        node.state_locks -= 1

    def _use(self, node: Node) -> None:
        self._states.pop(node, None)
        self._states[node] = None

    # Writing

    def _write(self, node: Node, locks: bool) -> bool:
        tokens, state = 0 if node.host else node.tokens, node.state and not node.state_host
        missing = tokens - self.host_free
        if missing > 0 and self._evict_host(missing) < missing:
            return False
        if state and not self.host_states_free and not self._evict_host_states(1):
            return False
        self.host_free -= tokens
        self.stored += tokens
        node.host = True
        if state:
            self.host_states_free -= 1
            node.state_host = True
        if locks:
            self.lock(node)
        node.transfer = Transfer(node, tokens + state * self.state_tokens, locks)
        self.writes.asked.append(node.transfer)
        return True

    # Evicting

    def evict_states(self, count: int) -> int:
        """Take up to ``count`` states off the card; the answer is the tokens of the leaves that went with them."""
        tokens = 0
        for _ in range(count):
            node = next((one for one in self._states if not one.state_locks), None)
            if node is None:
                break
            if node not in self._leaves and self._back and not node.host and not node.state_host:
                self._write_back(node)
            if node in self._leaves:
                tokens += self._off_card(node)
            elif not node.state_locks and node.loading is None:
                self._state_off_card(node)
        return tokens

    def _write_back(self, node: Node) -> None:
        """Write a node within the tree before its state leaves the card, where host memory has room."""
        if not self.host_states_free:
            self._evict_host_states(1)
        if self.writes.under_way or self.writes.asked:
            self._wait()
        if self._write(node, False):
            self._wait()

    def _state_off_card(self, node: Node) -> None:
        if node.state:
            node.state = False
            del self._states[node]
            if node.state_host and not node.state_pins:
                self._host_states.setdefault(node)

    def _off_card(self, node: Node) -> int:
        tokens = super()._off_card(node)
        if node.away:
            self._state_off_card(node)
        return tokens

    def _forget(self, node: Node) -> Node:
        self._states.pop(node, None)
        self._host_states.pop(node, None)
        self.host_states_free += node.state_host
        node.state = node.state_host = False
        return super()._forget(node)

    def _evict_host_states(self, count: int) -> int:
        """Drop up to ``count`` states that host memory alone has; how many went."""
        gone = 0
        while gone < count and self._host_states:
            node = next(iter(self._host_states))
            if node in self._host_leaves:
                self._forget(node)
            else:
                del self._host_states[node]
                node.state_host = False
                self.host_states_free += 1
            gone += 1
        return gone

    # Loading

    def load_state(self, match: Match, own: Callable[[], None], give_back: Callable[[], None]) -> int:
        """Bring back what is to be brought back; tokens from the card's node to the best one, 0 where it cannot be.

        ``own`` takes a place for the request's state, ``give_back`` returns it.
        """
        best = match.best
        path = self._away_up_from(best)
        tokens, state = sum(one.tokens for one in path), best.state_host and not best.state
        self._pin(best, 1)
        self.lock(best)
        fits = tokens >= LOAD_BACK_THRESHOLD or state
        if any(one.loading is not None and one.loading.node is not best for one in (*path, best)):
            fits = False
        if state:
            own()
        if fits:
            self.pool.ensure(tokens // self.page)
            fits = self.pool.blank >= tokens // self.page
        if fits and state and not self.free_states():
            self.pool.blank += self.evict_states(1) // self.page
            fits = self.free_states() > 0
        self.unlock(best)
        if not fits:
            self._pin(best, -1)
            if state:
                give_back()
            return 0
        self._ask_for(path, Transfer(best, tokens + 2 * state * self.state_tokens), tokens)
        if state:
            best.state = True
            self._host_states.pop(best, None)
            self._use(best)
        self.lock(best)
        reached, above = 0, best
        while above is not match.node and above.parent is not None:
            reached += above.tokens
            above = above.parent
        return reached

    def _pin(self, node: Node, count: int) -> None:
        node.pins += count
        node.state_pins += count
        if node.state_pins:
            self._host_states.pop(node, None)
        elif node.state_host and not node.state:
            self._host_states.setdefault(node)
        self._settle(node)

    def _arrived(self, transfer: Transfer) -> None:
        node = transfer.node
        node.state_pins -= 1
        if not node.state_pins and node.state_host and not node.state:
            self._host_states.setdefault(node)
