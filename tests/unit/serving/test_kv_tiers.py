"""Cache beyond the card: nothing is lost or doubled, more room never finds less, slower links never finish sooner."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.serving.traffic import Linear, traffic
from windtunnel.cli.main import main
from windtunnel.serving.engine import Replica
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.kv_tiers import KvTiers, Tier, TierSpec
from windtunnel.serving.offload_scheduler import OffloadScheduler
from windtunnel.serving.prefill_budget import SglangOptions
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.sglang_host import SglangHostScheduler
from windtunnel.serving.sglang_scheduler import SglangScheduler

PAGE = 16
Prompts = list[tuple[int, ...]]


def tier(capacity: int, name: str = "host", rate: float = 1e6, latency_s: float = 0.0) -> Tier:
    """One byte a token; ``rate`` in tokens a second."""
    return Tier(
        TierSpec(
            name=name, capacity_tokens=capacity, token_bytes=1.0, read_bytes_per_s=rate, write_bytes_per_s=rate,
            latency_s=latency_s,
        )
    )  # fmt: skip


def replica(tiers: KvTiers | None, sglang: bool = False, blocks: int = 60) -> Replica:
    """A small engine with tiers."""
    options = SchedulerOptions(
        max_num_seqs=8, max_num_batched_tokens=256, block_size=PAGE, num_gpu_blocks=blocks
    )
    if sglang and tiers is not None and len(tiers.tiers) == 1:
        return Replica([SglangHostScheduler(options, SglangOptions(), tiers)], Linear())
    rank = SglangScheduler(options, SglangOptions(), tiers) if sglang else scheduler_for(options, tiers)
    return Replica([rank], Linear())


def serve(one: Replica, requests: list[Request]) -> Replica:
    """All of them, one arrival after another."""
    for request in requests:
        one.advance(request.arrival_s)
        one.add(request)
    one.advance(float("inf"))
    return one


prompts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=40)


def keys_of(path: list[int]) -> tuple[int, ...]:
    """Chained keys: equal only where everything before is equal."""
    found, key = [], 7
    for turn in path:
        key = key * 5 + turn + 1
        found.append(key)
    return tuple(found)


def hits(paths: list[list[int]], capacity: int) -> int:
    """Tokens found of prompts that are looked up and stored one after another."""
    kept, found = KvTiers([tier(capacity)], PAGE), 0
    for now, path in enumerate(paths):
        spans = [(key, 2 * PAGE) for key in keys_of(path)]
        more = kept.find(spans, 0, 2 * PAGE * len(spans), float(now))
        if more is not None:
            found += more.tokens
            kept.load(more, float(now))
        kept.store(spans, float(now))
        assert 0 <= kept.tiers[0].shelf.tokens <= capacity
    return found


@given(paths=prompts, capacity=st.integers(0, 40), more=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_more_room_never_finds_less(paths: list[list[int]], capacity: int, more: int) -> None:
    assert hits(paths, (capacity + more) * PAGE) >= hits(paths, capacity * PAGE)


@given(paths=prompts, sizes=st.tuples(st.integers(0, 20), st.integers(0, 60)))
@settings(max_examples=40, deadline=None)
def test_tokens_are_conserved(paths: list[list[int]], sizes: tuple[int, int]) -> None:
    near, far = tier(sizes[0] * PAGE), tier(sizes[1] * PAGE, "storage")
    kept = KvTiers([near, far], PAGE)
    for now, path in enumerate(paths):
        spans = [(key, 2 * PAGE) for key in keys_of(path)]
        more = kept.find(spans, 0, 2 * PAGE * len(spans), float(now))
        if more is not None:
            assert more.tokens == sum(more.by_tier)
            before = near.read + far.read
            kept.load(more, float(now))
            assert near.read + far.read - before == more.tokens
        kept.store(spans, float(now))
    for one in kept.tiers:
        assert one.shelf.stored - one.shelf.dropped == one.shelf.tokens <= one.spec.capacity_tokens
        assert one.written <= one.shelf.stored
        assert one.shelf.missing([(key, 0) for key in (1, 2)]) == 0
    assert far.written == far.shelf.stored  # nothing reaches the last tier but by writing


@pytest.mark.parametrize("sglang", [False, True], ids=["vllm", "sglang"])
def test_what_left_the_card_comes_back(sglang: bool) -> None:
    def request(number: int, name: int) -> Request:
        keys = tuple(range(100 * name, 100 * name + 40))
        return Request(number, 10.0 * number, 640, 2, keys, PAGE)

    # three prompts of 40 blocks in a cache of 60: each pushes the one before out
    requests = [request(number, number % 3) for number in range(6)]
    without = serve(replica(None, sglang), requests)
    host = tier(10_000)
    with_host = serve(replica(KvTiers([host], PAGE), sglang), requests)
    # what of the first prompt is still on the card is no matter of the tier
    assert host.read >= 3 * 200
    assert host.written >= 3 * 640
    again = [one for one in with_host.served if one.request.number >= 3]
    assert all(one.cached_tokens >= 608 for one in again)
    slower = {one.request.number: one.ttft_s for one in without.served}
    assert all(one.ttft_s < slower[one.request.number] for one in again)
    # a link that takes as long as computing gains nothing, and never loses an answer
    crawling = serve(replica(KvTiers([tier(10_000, rate=500.0)], PAGE), sglang), requests)
    assert len(crawling.served) == 6
    late = {one.request.number: one.ttft_s for one in crawling.served}
    assert all(late[one.request.number] > one.ttft_s for one in again)


@pytest.mark.parametrize("sglang", [False, True], ids=["vllm", "sglang"])
@pytest.mark.parametrize("rate", [200.0, 1e5])
def test_everything_is_answered_and_given_back(sglang: bool, rate: float) -> None:
    requests = traffic(150, seed=3, rate=20.0)
    tiers = KvTiers([tier(900, rate=rate), tier(4000, "storage", rate=rate / 4, latency_s=0.01)], PAGE)
    one = serve(replica(tiers, sglang, blocks=45), requests)
    assert len(one.served) == 150
    rank = one.ranks[0]
    assert rank.pool.free == rank.pool.capacity
    assert sglang or (isinstance(rank, OffloadScheduler) and not rank.loading and not rank.offload.pending)
    assert rank.wakes_s == float("inf")
    assert all(served.cached_tokens < served.request.prompt_tokens for served in one.served)


def test_bigger_host_memory_never_hits_less_request_by_request() -> None:
    requests = traffic(80, seed=5)
    spaced = [
        Request(r.number, 100.0 * r.number, r.prompt_tokens, r.output_tokens, r.keys, r.key_tokens)
        for r in requests
    ]
    reads = []
    for capacity in (0, 400, 1600, 6400, 100_000):
        host = tier(capacity)
        serve(replica(KvTiers([host], PAGE), blocks=30), spaced)
        reads.append(host.read)
    assert reads == sorted(reads)
    assert reads[0] == 0 < reads[-1]


def test_serve_says_what_each_tier_found(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    common = (
        "serve qwen3-8b --on mtt-s5000 --rate 2 --requests 60 --input-len 3000 --prefix-len 2000 "
        "--output-len 4 --gpu-memory-utilization 0.25"
    ).split()
    assert main([*common, "--kv-offloading-size", "64", "--kv-storage-size", "500", "--json"]) == 0
    tiers = json.loads(capsys.readouterr().out)["tiers"]
    assert [one["name"] for one in tiers] == ["host memory", "storage"]
    assert tiers[0]["capacity_tokens"] == 64 * 2**30 // 147_456  # 36 layers, 8 heads of 128, keys and values
    assert tiers[0]["written_bytes"] == tiers[0]["written"] * 147_456
    for wrong in (
        ["--enable-hierarchical-cache"],
        ["--kv-storage-size", "5"],
        ["--kv-offloading-size", "5", "--scheduler", "sglang"],
        ["--kv-offloading-size", "-1"],
    ):
        assert main([*common, *wrong]) == 2
        assert "E650" in capsys.readouterr().err
    hybrid = "serve qwen3.5-397b-a17b --on mtt-s5000:16 --precision fp8 --kv-offloading-size 64".split()
    assert main(hybrid) == 2
    assert "recurrent states" in capsys.readouterr().err
    hosted = "serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8 --scheduler sglang --rate 1".split()
    hosted += "--requests 20 --input-len 3000 --prefix-len 2000 --output-len 4 --json".split()
    hosted += ["--enable-hierarchical-cache"]
    assert main(hosted) == 0
    (tier,) = json.loads(capsys.readouterr().out)["tiers"]
    assert tier["name"] == "host memory"
    assert tier["written"] > 0
    tails = "serve qwen3-8b --on h100 --scheduler sglang --requests 9 --radix-eviction-policy".split()
    told = "--radix-eviction-policy-config"
    assert main([*tails, "tlru", told, '{"threshold": 4096, "next_prompt_estimate": 512}', "--json"]) == 0
    capsys.readouterr()
    for wrong in (
        ["tlru"],
        ["tlru", told, '{"threshold": 5, "more": 1}'],
        ["tlru", told, "[]"],
        ["lru", told, "{}"],
    ):
        assert main([*tails, *wrong]) == 2
        assert "E650" in capsys.readouterr().err
    unbuffered = "serve qwen3.5-397b-a17b --on mtt-s5000:16 --precision fp8 --scheduler sglang".split()
    assert main([*unbuffered, "--mamba-radix-cache-strategy", "no_buffer"]) == 2
    assert "no overlap" in capsys.readouterr().err


def test_a_client_that_leaves_while_its_cache_is_on_its_way_gives_all_back() -> None:
    def request(number: int, name: int) -> Request:
        keys = tuple(range(100 * name, 100 * name + 40))
        return Request(number, 0.0, 640, 2, keys, PAGE)

    one = replica(KvTiers([tier(10_000, rate=2000.0)], PAGE))
    rank = one.ranks[0]
    for number in range(3):
        one.add(request(number, number))
        one.advance(float("inf"))
    assert isinstance(rank, OffloadScheduler)
    first, second = rank.add(request(8, 0)), rank.add(request(9, 1))
    one.advance(one.now_s + 1e-6)  # both have begun to load, or wait for room
    assert list(rank.loading) == [first]
    rank.cancel(first)
    assert not rank.loading
    one.advance(float("inf"))
    assert len(one.served) == 4
    third = rank.add(request(10, 2))
    rank.schedule(one.now_s)
    assert list(rank.loading) == [third]
    while not third.loaded:  # its cache is there, and it has not gone on
        assert rank.wakes_s < float("inf")
        rank.offload.launch(rank.wakes_s, False, [], set())
        rank.offload.turn()
    rank.cancel(third)
    assert rank.pool.free == rank.pool.capacity
    rank.schedule(one.now_s + 10)
    assert not rank.busy
    assert second.generated == 2
