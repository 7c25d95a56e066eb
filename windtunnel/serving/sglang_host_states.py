"""SGLang's rules (0.5.23) for recurrent states with host memory behind the card: decisions over a ``HostStateTree``.

Host memory has places for states beside those for tokens. A prompt whose state is there alone is admitted for the rest
of it; its pages and its state are brought to the card while the step runs. Where the card has no room for them, it is
computed again from the last state on the card.
"""

from __future__ import annotations

from windtunnel.serving.host_state_tree import HostStateTree, Match
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.prefill_budget import NO_TOKEN, PrefillBudget, SglangOptions
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_host import SglangHostScheduler
from windtunnel.serving.sglang_state_drafting import SglangStateDraftingScheduler
from windtunnel.serving.sglang_states import SglangStateScheduler, StateSequence


class SglangHostStateScheduler(SglangHostScheduler, SglangStateScheduler):
    """``slots``: states on the card. ``host_states``: in host memory; ``state_tokens``: a state's bytes ÷ a token's."""

    tree: HostStateTree  # type: ignore[assignment]

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers, slots: int, host_states: int,
        state_tokens: float,
    ) -> None:  # fmt: skip
        self._host, self._places = tiers.tiers[0], (host_states, state_tokens)
        SglangStateScheduler.__init__(self, options, sglang, slots)
        self._begin_host(tiers)
        self.tree.free_states = lambda: self.free_states

    def _new_tree(self) -> HostStateTree:  # type: ignore[override]
        spec, sglang = self._host.spec, self.sglang
        token_s = spec.token_bytes / spec.write_bytes_per_s
        return HostStateTree(
            self.options.block_size, sglang.radix_eviction_policy, sglang.hicache_write_policy, spec.capacity_tokens,
            token_s, *self._places,
        )  # fmt: skip

    def _try(self, sequence: RadixSequence, budget: PrefillBudget, others: bool) -> int:
        if not self.options.enable_prefix_caching:
            return SglangStateScheduler._try(self, sequence, budget, others)
        assert isinstance(sequence, StateSequence)
        tree, most = self.tree, sequence.known - 1
        match = tree.find(sequence.segments(most), most)
        found, node = match.found, match.node
        junction = match.whole // self._grid * self._grid
        sequence.junction = junction if junction > found + match.far else 0
        if match.best.state:  # it is copied
            tree.lock(match.best)
            self._take_states(sequence, 1)
            tree.unlock(match.best)
        tree.lock(node)
        new = NO_TOKEN
        if self._asks(sequence, found) < budget.total:
            new = self._fit(sequence, found + match.far, budget, others)
        loaded = 0
        if new > 0 and match.loads:
            loaded = self._load(sequence, match)
            if loaded:
                found += loaded
                tree.lock(match.best)
                tree.unlock(node)
                node = match.best
                new = min(new, sequence.known - found)
            elif match.far and self._asks(sequence, found) < budget.total:
                new = self._fit(sequence, found, budget, others)
            elif match.far:
                new = NO_TOKEN
        if new <= 0:
            tree.unlock(node)
            self._drop_states(sequence)
            return new
        self._begin(sequence, node, found)
        if sequence.admitted_s < 0:
            self._host.asked += most - match.found
        self._admitted(sequence, found, loaded)
        self._charge(sequence, found, new, budget)
        return new

    def _load(self, sequence: StateSequence, match: Match) -> int:
        return self.tree.load_state(
            match, lambda: self._take_states(sequence, 1), lambda: self._drop_states(sequence)
        )


class SglangHostStateDraftingScheduler(SglangHostStateScheduler, SglangStateDraftingScheduler):
    """With drafted tokens, see ``SglangDraftingScheduler``."""

    def __init__(
        self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers, slots: int, host_states: int,
        state_tokens: float,
    ) -> None:  # fmt: skip
        SglangHostStateScheduler.__init__(self, options, sglang, tiers, slots, host_states, state_tokens)
        self._begin_checks(options)
