"""SGLang's rules (0.5.23) with host memory behind the card (HiCache): what it decides over a ``HostTree``.

A prompt that goes on in host memory is admitted for the whole rest of it; what host memory has is brought to the card
while the step runs, which lasts at least as long. Where the card has no room for it, it is computed again. What was
queued to be written begins when a step is over.
"""

from __future__ import annotations

from windtunnel.serving.host_tree import HostTree
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.prefill_budget import NO_TOKEN, PrefillBudget, SglangOptions
from windtunnel.serving.radix_pool import RadixSequence
from windtunnel.serving.scheduler import INFINITY
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.segments import Segments
from windtunnel.serving.sequence import Sequence
from windtunnel.serving.sglang_drafting import SglangDraftingScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler
from windtunnel.serving.step_plan import Chunk, StepPlan


class SglangHostScheduler(SglangScheduler):
    """``tiers``: host memory alone, whose size and speed count here, and which is told what went in and out."""

    tree: HostTree

    def __init__(self, options: SchedulerOptions, sglang: SglangOptions, tiers: KvTiers) -> None:
        self._host = tiers.tiers[0]
        super().__init__(options, sglang, tiers)
        self._begin_host(tiers)

    def _begin_host(self, tiers: KvTiers) -> None:
        self.tiers = tiers
        self.tree.pool = self.pool
        self._held_s: list[float] = []  # of steps that were decided and are not over

    def _new_tree(self) -> HostTree:
        spec = self._host.spec
        token_s = spec.token_bytes / spec.write_bytes_per_s
        sglang = self.sglang
        return HostTree(
            self.options.block_size, sglang.radix_eviction_policy, sglang.hicache_write_policy, spec.capacity_tokens,
            token_s,
        )  # fmt: skip

    @property
    def held_s(self) -> float:
        """See ``Scheduler``: the engine waits for what is written as it leaves the card."""
        return self._held_s[0] if self._held_s else 0.0

    @property
    def waits_s(self) -> float:
        """See ``Scheduler``."""
        return self.held_s

    @property
    def noted_s(self) -> float:
        """See ``Scheduler``."""
        return self._held_s[1] if len(self._held_s) > 1 else 0.0

    @property
    def wakes_s(self) -> float:
        """See ``Scheduler``: what is being written is locked until then."""
        under_way = self.tree.writes.under_way
        return under_way[0][0] if under_way else INFINITY

    def schedule(self, now_s: float) -> StepPlan:
        """See ``Scheduler``."""
        tree = self.tree
        now_s = tree.now_s = max(
            now_s, self.held_s
        )  # the engine that runs ahead has waited for the step under way
        tree.flush()
        tree.poll()
        plan = super().schedule(now_s)
        if not plan.empty:
            self._held_s.append(tree.now_s)
        self._tell()
        return plan

    def complete(self, plan: StepPlan, now_s: float) -> list[Sequence]:
        """See ``Scheduler``."""
        if not plan.empty and self._held_s:
            self._held_s.pop(0)
        self.tree.now_s = now_s
        done = super().complete(plan, now_s)
        self.tree.flush()
        self._tell()
        return done

    def _tell(self) -> None:
        tree, host = self.tree, self._host
        host.read, host.written = tree.loaded, tree.stored
        host.shelf.stored, host.shelf.dropped = tree.stored, tree.dropped

    def _write_through(self, segments: Segments, tokens: int) -> None:
        """The tree does it."""

    # Prompts

    def _try(self, sequence: RadixSequence, budget: PrefillBudget, others: bool) -> int:
        tree = self.tree
        if not self.options.enable_prefix_caching:
            return super()._try(sequence, budget, others)
        most = sequence.known - 1
        found, node, far, farthest = tree.look(sequence.segments(most), sequence.keyable(most))
        asked = most - found
        tree.lock(node)
        new = NO_TOKEN
        if self._asks(sequence, found) < budget.total:
            new = self._fit(sequence, found + far, budget, others)
        if new > 0 and far:
            here, far = found, tree.load(farthest)
            if far:
                found += far
                tree.lock(farthest)
                tree.unlock(node)
                node = farthest
            elif self._asks(sequence, here) < budget.total:
                new = self._fit(sequence, found, budget, others)
            else:
                new = NO_TOKEN
        if new <= 0:
            tree.unlock(node)
            return new
        self._begin(sequence, node, found)
        if sequence.admitted_s < 0:
            self._host.asked += asked
        self._admitted(sequence, found, far)
        self._charge(sequence, found, new, budget)
        return new

    def _compute_all(self, taken: list[tuple[RadixSequence, int]]) -> list[Chunk]:
        if taken:
            self._loaded_s = max(self._loaded_s, self.tree.reads.submit(self.tree.now_s))
        return super()._compute_all(taken)


class SglangHostDraftingScheduler(SglangHostScheduler, SglangDraftingScheduler):
    """With drafted tokens, see ``SglangDraftingScheduler``."""
