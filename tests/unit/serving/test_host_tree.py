"""SGLang's host memory under every policy of writing: everyone is served, nothing is lost or held for ever."""

from __future__ import annotations

import pytest

from tests.unit.serving.test_kv_tiers import serve, tier
from tests.unit.serving.traffic import Linear, traffic
from windtunnel.serving.engine import Replica
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.host_tree import HostTree
from windtunnel.serving.kv_tiers import KvTiers
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.radix_pool import RadixPool
from windtunnel.serving.radix_tree import EvictionPolicy
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_host import SglangHostScheduler


@pytest.mark.parametrize("rate", [2e2, 1e6], ids=["slow", "fast"])
@pytest.mark.parametrize("ahead", [False, True], ids=["after", "ahead"])
@pytest.mark.parametrize("policy", WritePolicy)
def test_everyone_is_served_and_all_comes_back(policy: WritePolicy, ahead: bool, rate: float) -> None:
    options = SchedulerOptions(
        max_num_seqs=8, max_num_batched_tokens=256, block_size=4, num_gpu_blocks=150, async_scheduling=ahead
    )
    host = tier(900, rate=rate)
    rank = SglangHostScheduler(options, SglangOptions(hicache_write_policy=policy), KvTiers([host]))
    one, requests = Replica([rank], Linear(fixed_s=0.01)), traffic(150, seed=3)
    assert len(serve(one, requests).served) == len(requests)
    tree = rank.tree
    tree.now_s = float("inf")
    tree.poll()
    assert rank.pool.free == rank.pool.capacity
    assert tree.stored - tree.dropped == tree.host_tokens - tree.host_free <= 900
    assert host.written == tree.stored > 0


def entered(policy: WritePolicy, times: int) -> int:
    """Tokens written of a prompt that was entered so often."""
    tree = HostTree(1, EvictionPolicy.LRU, policy, 1000, 1e-3)
    tree.pool = RadixPool(1000, tree)
    for _ in range(times):
        tree.insert(((7, 0, 100),), 100, 0)
    return tree.stored


def test_policies_write_at_the_first_or_second_use_or_when_the_card_is_full() -> None:
    assert [entered(WritePolicy.WRITE_THROUGH, n) for n in (1, 2)] == [100, 100]
    assert [entered(WritePolicy.WRITE_THROUGH_SELECTIVE, n) for n in (1, 2)] == [0, 100]
    assert entered(WritePolicy.WRITE_BACK, 5) == 0


def test_writing_back_takes_the_engines_time() -> None:
    tree = HostTree(1, EvictionPolicy.LRU, WritePolicy.WRITE_BACK, 1000, 1e-3)
    tree.pool = RadixPool(1000, tree)
    tree.insert(((7, 0, 100),), 100, 0)
    assert tree.evict(50) == 100  # a leaf goes whole
    assert tree.now_s == pytest.approx(0.1)
    assert tree.look(((7, 0, 100),), 100)[::2] == (0, 100)
    assert tree.load(next(iter(tree.root.children.values()))) == 100
    assert tree.reads.submit(tree.now_s) == pytest.approx(0.2)
