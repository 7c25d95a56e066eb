"""A radix tree whose nodes may keep the recurrent state after their last token, as SGLang 0.5.23's unified tree has it.

A prefix counts as found up to the deepest node with a state. States have an order of use of their own: finding one or
entering it again makes it the last to go. Where states are wanted, the one used least recently goes that nobody has
locked: alone, its node's pages stay, or with its node where that is an unlocked leaf.
"""

from __future__ import annotations

from windtunnel.serving.radix_tree import EvictionPolicy, Node, RadixTree
from windtunnel.serving.segments import Segments, aligned, common, head, tail


class StateTree(RadixTree):
    """``states``: how many it keeps."""

    def __init__(self, page: int, policy: EvictionPolicy = EvictionPolicy.LRU) -> None:
        super().__init__(page, policy)
        self._states: dict[Node, None] = {}  # least recently used first

    @property
    def states(self) -> int:
        """States kept."""
        return len(self._states)

    def match(self, segments: Segments, tokens: int) -> tuple[int, Node]:
        """The longest prefix of the first ``tokens`` that ends in a state, and its node."""
        return self.look(segments, tokens)[:2]

    def look(self, segments: Segments, tokens: int) -> tuple[int, Node, int]:
        """``match``, and how many tokens of the prompt the tree has without regard to states."""
        left = aligned(segments, tokens, self.page)
        node, whole = self.root, 0
        best, found = self.root, 0
        while left:
            child = node.children.get(head(left, self.page))
            if child is None:
                break
            same = common(child.segments, left, self.page)
            whole += same
            left = tail(left, same)
            if same < child.tokens:
                self._split(child, same)
                child.accessed = self._tick()
                break
            node = child
            if node.state:
                best, found = node, whole
        if best.state:
            self._use(best)
        self._used(best)
        return found, best, whole

    def keep(self, segments: Segments, tokens: int, counted: int) -> tuple[int, Node, bool]:
        """``insert`` with the state after the last token; whether that state was there already."""
        found, node = self.insert(segments, tokens, counted)
        there = node.state
        node.state = True
        self._use(node)
        node.accessed = self._tick()
        return found, node, there

    def lock(self, node: Node) -> None:
        """Keep the node, its state and all nodes above it."""
        super().lock(node)
        node.state_locks += 1

    def unlock(self, node: Node) -> None:
        """Undo one ``lock``."""
        super().unlock(node)
        node.state_locks -= 1

    def evict_states(self, count: int) -> int:
        """Drop up to ``count`` states; the answer is the tokens of the leaves that went with them."""
        tokens = 0
        for _ in range(count):
            node = next((one for one in self._states if not one.state_locks), None)
            if node is None:
                break
            if node in self._leaves:
                tokens += node.tokens
                self._remove(node)
            else:
                node.state = False
                del self._states[node]
        return tokens

    def _remove(self, leaf: Node) -> Node:
        self._states.pop(leaf, None)
        return super()._remove(leaf)

    def _use(self, node: Node) -> None:
        self._states.pop(node, None)
        self._states[node] = None
