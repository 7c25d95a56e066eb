"""Laws that hold for every chip and collective, and the published figures the models stand on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.network.chips import A100, B200, H100, L40S, S5000, network
from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import Collective, bus_factor, kind_of, message_bytes
from windtunnel.network.engine import Engine
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of

CHIPS = [H100, A100, B200, S5000, L40S]
MODELS = {(chip.name, cards): network(chip, cards) for chip in CHIPS for cards in (8, 64)}
KINDS = [
    Collective.ALL_REDUCE,
    Collective.ALL_GATHER,
    Collective.REDUCE_SCATTER,
    Collective.ALL_TO_ALL,
    Collective.BROADCAST,
]
models = st.sampled_from(sorted(MODELS)).map(lambda key: MODELS[key])
kinds = st.sampled_from(KINDS)
sizes = st.floats(1, 1e10)


def bus(model: NetworkModel, kind: Collective, nbytes: float, ranks: int) -> float:
    time = model.collective_time(kind, nbytes, tuple(range(ranks)))
    return bus_factor(kind, ranks) * nbytes / time.seconds


@given(models, kinds, sizes, st.floats(1, 10), st.sampled_from([2, 4, 8]))
def test_more_bytes_are_never_faster(
    model: NetworkModel, kind: Collective, nbytes: float, factor: float, ranks: int
) -> None:
    group = tuple(range(ranks))
    less = model.collective_time(kind, nbytes, group).seconds
    assert model.collective_time(kind, nbytes * factor, group).seconds >= less * (1 - 1e-12)


@given(st.sampled_from([H100, A100, B200]), st.sampled_from(KINDS[:3]), st.floats(1, 1e9), st.integers(2, 7))
def test_a_ring_with_more_ranks_is_never_cheaper_in_one_protocol(
    chip: Chip, kind: Collective, nbytes: float, ranks: int
) -> None:
    """For the same share per rank: the buffer of a gather grows with the ranks.

    NCCL's choice of protocol may make it cheaper: 1 MiB over two A100 takes 41 us (Simple), over four 30 us (LL).
    """
    model, gathers = MODELS[(chip.name, 8)], kind is not Collective.ALL_REDUCE
    few = model.collective_time(kind, nbytes * (ranks if gathers else 1), tuple(range(ranks)))
    many = model.collective_time(kind, nbytes * (ranks + 1 if gathers else 1), tuple(range(ranks + 1)))
    if few.algorithm == many.algorithm:
        assert many.seconds >= few.seconds * (1 - 1e-9)


@given(
    st.sampled_from([H100, A100, B200, L40S]),
    st.sampled_from(list(Engine)),
    st.floats(1, 1e8),
    st.floats(1, 8),
    st.sampled_from([2, 4, 8]),
)
def test_more_bytes_are_never_faster_in_an_engines_own_all_reduce(
    chip: Chip, engine: Engine, nbytes: float, factor: float, ranks: int
) -> None:
    model, group, kind = MODELS[(chip.name, 8)], tuple(range(ranks)), Collective.ALL_REDUCE
    less = model.collective_time(kind, nbytes, group, engine=engine)
    more = model.collective_time(kind, nbytes * factor, group, engine=engine)
    if more.algorithm in ("one-shot", "two-shot", "symmetric memory"):
        assert more.seconds >= less.seconds * (1 - 1e-9)


@given(models, kinds, sizes, st.sampled_from([2, 4, 8]))
def test_the_interval_holds_the_value(
    model: NetworkModel, kind: Collective, nbytes: float, ranks: int
) -> None:
    time = model.collective_time(kind, nbytes, tuple(range(ranks)))
    assert 0 < time.low_s <= time.seconds <= time.high_s
    assert 0 <= time.sm_share < 1


@given(st.sampled_from(CHIPS), kinds, st.floats(1e6, 1e10), st.sampled_from([2, 4, 8]))
def test_bus_bandwidth_stays_below_the_links(chip: Chip, kind: Collective, nbytes: float, ranks: int) -> None:
    """NVLS halves what an all-reduce sends, so its bus bandwidth may pass the link; twice never."""
    links = MODELS[(chip.name, 8)].links
    rate = links.link_bytes_per_s or links.pcie_bytes_per_s
    limit = rate * (2 if kind is Collective.ALL_REDUCE and links.switches_reduce else 1)
    assert bus(MODELS[(chip.name, 8)], kind, nbytes, ranks) <= limit


def test_leaving_the_node_costs() -> None:
    for chip in CHIPS:
        model = MODELS[(chip.name, 64)]
        inside = model.collective_time(Collective.ALL_GATHER, 1e8, tuple(range(8))).seconds
        across = model.collective_time(Collective.ALL_GATHER, 1e8, tuple(range(0, 64, 8))).seconds
        if chip is not L40S:  # its slots are no faster than its network card
            assert across > inside


@pytest.mark.parametrize(("ranks", "measured"), [(2, 31.4e9), (4, 100.36e9), (8, 234.28e9)])
def test_s5000_mesh_follows_the_measured_law(ranks: int, measured: float) -> None:
    """MCCL, 1 GiB: busbw = (N-1) x 33.5 GB/s within 10 %."""
    assert bus(MODELS[("mtt-s5000", 8)], Collective.ALL_REDUCE, 2**30, ranks) == pytest.approx(
        measured, rel=0.1
    )


def test_on_the_mesh_a_librarys_send_starts_later_than_the_drivers_copy() -> None:
    model = MODELS[S5000.name, 8]
    send, copy = (model.collective_time(kind, 4096, (0, 1)) for kind in (Collective.SEND, Collective.COPY))
    assert copy.seconds < 1e-5 < 3e-5 < send.seconds
    reduce, gather = (
        model.collective_time(kind, 4096, tuple(range(8)))
        for kind in (Collective.ALL_REDUCE, Collective.ALL_GATHER)
    )
    assert reduce.seconds == pytest.approx(2 * gather.seconds, rel=0.01)  # two rounds, one round
    # the line through MCCL's 256 MiB and 1 GiB starts at 283 us: the interval reaches it
    assert reduce.low_s < 70e-6 < reduce.seconds * 1.01
    assert reduce.high_s > 270e-6
    large = [
        model.collective_time(kind, 2**30, (0, 1)).seconds for kind in (Collective.SEND, Collective.COPY)
    ]
    assert large[0] == pytest.approx(large[1], rel=0.01)


@pytest.mark.parametrize(("chip", "measured"), [(H100, 480e9), (B200, 845e9), (A100, 232e9)])
def test_large_all_reduce_over_eight_cards(chip: Chip, measured: float) -> None:
    assert bus(MODELS[(chip.name, 8)], Collective.ALL_REDUCE, 2**34, 8) == pytest.approx(measured, rel=0.15)


def test_32_h100_reach_the_published_rates() -> None:
    model = MODELS[("h100-sxm", 64)]
    group = tuple(range(32))
    reduce_s = model.collective_time(Collective.ALL_REDUCE, 2**33, group).seconds
    assert bus_factor(Collective.ALL_REDUCE, 32) * 2**33 / reduce_s == pytest.approx(370e9, rel=0.1)
    exchange_s = model.collective_time(Collective.ALL_TO_ALL, 2**33, group).seconds
    assert bus_factor(Collective.ALL_TO_ALL, 32) * 2**33 / exchange_s == pytest.approx(48e9, rel=0.1)


def test_ace_takes_no_multiprocessors_and_nccl_does() -> None:
    group = tuple(range(8))
    assert MODELS[("mtt-s5000", 8)].collective_time(Collective.ALL_REDUCE, 1e8, group).sm_share == 0
    assert 0.1 < MODELS[("h100-sxm", 8)].collective_time(Collective.ALL_REDUCE, 1e8, group).sm_share < 0.3


def test_oversubscription_slows_only_groups_that_leave_the_pod() -> None:
    links = replace(Links.of_chip(H100, 64), nodes_per_pod=4, oversubscription=2.0)
    near, far = tuple(range(0, 32, 8)), tuple(range(0, 64, 16))
    plain, thin = network(H100, 64), NetworkModel(links)
    assert thin.collective_time(Collective.ALL_GATHER, 1e9, near) == plain.collective_time(
        Collective.ALL_GATHER, 1e9, near
    )
    slow = thin.collective_time(Collective.ALL_GATHER, 1e9, far).seconds
    fast = plain.collective_time(Collective.ALL_GATHER, 1e9, far).seconds
    assert slow == pytest.approx(2 * fast, rel=0.05)


def test_dispatch_grows_with_tokens_and_respects_the_node_limit() -> None:
    model = MODELS[("h100-sxm", 64)]
    group = tuple(range(64))
    traffic = ExpertTraffic(tokens=4096, token_bytes=7168, top_k=8)
    free = model.collective_time(Collective.DISPATCH, 0, group, traffic=traffic).seconds
    limited = replace(traffic, node_limit=4)
    assert model.collective_time(Collective.DISPATCH, 0, group, traffic=limited).seconds < free
    more = replace(traffic, tokens=8192)
    assert model.collective_time(Collective.DISPATCH, 0, group, traffic=more).seconds > free


def test_many_small_tokens_cost_more_than_few_large_ones() -> None:
    model, group = MODELS[("h100-sxm", 8)], tuple(range(8))

    def dispatch_s(tokens: int, width: int) -> float:
        traffic = ExpertTraffic(tokens=tokens, token_bytes=width, top_k=8)
        return model.collective_time(Collective.DISPATCH, 0, group, traffic=traffic).seconds

    assert dispatch_s(16384, 1792) > 1.2 * dispatch_s(4096, 7168)


def test_combine_walks_its_first_token_and_dispatch_does_not() -> None:
    """One token a rank on eight H100 (aiconfigurator): dispatch 25 to 26 us at any width, combine 31 to 48 us."""
    model, group = MODELS[("h100-sxm", 8)], tuple(range(8))

    def seconds(kind: Collective, width: int) -> float:
        traffic = ExpertTraffic(tokens=1, token_bytes=width, top_k=8)
        return model.collective_time(kind, 0, group, traffic=traffic).seconds

    assert seconds(Collective.DISPATCH, 2048) == pytest.approx(25.5e-6, rel=0.05)
    assert seconds(Collective.DISPATCH, 7168) == pytest.approx(25.9e-6, rel=0.05)
    assert seconds(Collective.COMBINE, 2 * 2048) == pytest.approx(30.5e-6, rel=0.1)
    assert seconds(Collective.COMBINE, 2 * 7168) == pytest.approx(47.9e-6, rel=0.15)


def test_only_the_first_chunk_of_a_dispatch_waits_for_its_sender() -> None:
    model, group = MODELS[("h100-sxm", 8)], tuple(range(8))

    def slope(tokens: int) -> float:
        few, more = (
            model.collective_time(
                Collective.DISPATCH,
                0,
                group,
                traffic=ExpertTraffic(tokens=n, token_bytes=7168, top_k=8, sms=20),
            ).seconds
            for n in (tokens, 2 * tokens)
        )
        return (more - few) / tokens

    assert slope(16) == pytest.approx(2 * slope(2048), rel=0.05)


def test_one_sided_exchange_writes_once_to_each_rank() -> None:
    """TensorRT-LLM on eight GB200: 2,048 tokens of 14,336 bytes to 8 of many experts in 312 us (its blog 18)."""
    model = network(replace(B200, name="gb200"), 72)
    traffic = ExpertTraffic(tokens=2048, token_bytes=14336, top_k=8, one_sided=True)
    times = {
        kind: model.collective_time(kind, 0, tuple(range(8)), traffic=traffic).seconds
        for kind in (Collective.DISPATCH, Collective.COMBINE)
    }
    assert times[Collective.DISPATCH] == pytest.approx(311.8e-6, rel=0.05)
    assert times[Collective.COMBINE] == pytest.approx(322.6e-6, rel=0.05)
    few = replace(traffic, tokens=1)
    floor = [model.collective_time(kind, 0, tuple(range(8)), traffic=few).seconds for kind in times]
    assert floor[0] < floor[1] < 40e-6


@pytest.mark.parametrize(
    ("chip", "engine", "limit"),
    [
        (H100, Engine.SGLANG, 16 << 20),
        (H100, Engine.VLLM, 64 << 20),
        (A100, Engine.SGLANG, 8 << 20),
        (A100, Engine.VLLM, (8 << 20) - 1),
        (A100, Engine.TRTLLM, 512 << 10),
        (H100, Engine.TRTLLM, 4 << 20),
    ],
)
def test_engines_call_the_library_for_large_messages(chip: Chip, engine: Engine, limit: int) -> None:
    group, kind = tuple(range(8)), Collective.ALL_REDUCE
    model = MODELS[(chip.name, 8)]
    own = model.collective_time(kind, limit, group, engine=engine)
    beyond = model.collective_time(kind, limit + 1, group, engine=engine)
    assert own.algorithm in ("one-shot", "two-shot", "symmetric memory")
    assert beyond.seconds == model.collective_time(kind, limit + 1, group).seconds


def test_engines_read_all_peers_at_once_only_while_messages_are_small() -> None:
    """vLLM's code: 512 KiB up to four ranks, 256 KiB up to eight, two ranks always (8 MiB in all)."""
    model = MODELS[("a100-80g", 8)]

    def algorithm(ranks: int, nbytes: int) -> str:
        group = tuple(range(ranks))
        return model.collective_time(Collective.ALL_REDUCE, nbytes, group, engine=Engine.VLLM).algorithm

    assert [algorithm(2, n) for n in (1 << 10, 4 << 20)] == ["one-shot"] * 2
    assert [algorithm(4, n << 10) for n in (511, 512)] == ["one-shot", "two-shot"]
    assert [algorithm(8, n << 10) for n in (255, 256)] == ["one-shot", "two-shot"]


def test_small_engine_calls_take_what_was_measured() -> None:
    """One KiB in a CUDA graph over eight H100 (aiconfigurator): SGLang 3.2 us, TensorRT-LLM 3.2, vLLM 5.0."""
    model, group = MODELS[("h100-sxm", 8)], tuple(range(8))
    for engine, measured in ((Engine.SGLANG, 3.2e-6), (Engine.TRTLLM, 3.2e-6), (Engine.VLLM, 5e-6)):
        time = model.collective_time(Collective.ALL_REDUCE, 1024, group, engine=engine)
        assert time.seconds == pytest.approx(measured, rel=0.15)


def test_cards_of_one_generation_start_alike_and_unknown_ones_less_surely() -> None:
    h200 = replace(H100, name="h200")
    group = tuple(range(8))
    known = MODELS[("h100-sxm", 8)].collective_time(Collective.ALL_REDUCE, 1e5, group)
    assert network(h200).collective_time(Collective.ALL_REDUCE, 1e5, group) == known
    far = MODELS[("b200", 8)].collective_time(Collective.ALL_REDUCE, 1e5, group)
    assert far.high_s / far.low_s > known.high_s / known.low_s


def test_groups_across_sockets_share_the_path_between_them() -> None:
    """SimuMax on 8 A100 PCIe: one ring of eight 12.5 GB/s, four pairs at once 4 GB/s each; A100 slots 25.3 GB/s."""
    pcie = replace(L40S, pcie_bytes_per_s=replace(L40S.pcie_bytes_per_s, value=25.3e9))
    model = network(pcie)

    def rate(ranks: tuple[int, ...]) -> float:
        time = model.collective_time(Collective.ALL_GATHER, 1e9, ranks)
        return bus_factor(Collective.ALL_GATHER, len(ranks)) * 1e9 / time.seconds

    assert rate((0, 1)) == pytest.approx(20.6e9, rel=0.1)
    assert rate((0, 1, 2, 3)) == pytest.approx(20.7e9, rel=0.1)
    assert rate(tuple(range(8))) == pytest.approx(13.5e9, rel=0.15)
    assert rate((0, 2, 4, 6)) == pytest.approx(7.65e9, rel=0.15)
    assert rate((0, 4)) == pytest.approx(4e9, rel=0.15)


@pytest.mark.parametrize("group", [(0, 8), (0, 0), (-1, 1), ()])
def test_ranks_outside_the_cluster_are_named(group: tuple[int, ...]) -> None:
    with pytest.raises(WindtunnelError) as caught:
        network(H100).collective_time(Collective.ALL_REDUCE, 1.0, group)
    assert caught.value.code == "E201"


def test_impossible_links_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        replace(Links.of_chip(H100, 64), nic_bytes_per_s=0.0)
    assert caught.value.code == "E204"


@pytest.mark.parametrize(("cards", "links_per_pair"), [(16, 2), (8, 3), (15, 2)])
def test_a_mesh_with_more_links_than_the_cards_have_is_refused(cards: int, links_per_pair: int) -> None:
    base = cluster_of("mtt-s5000", 64)
    node = replace(base.node, cards=cards, links_per_pair=links_per_pair)
    with pytest.raises(WindtunnelError) as caught:
        Links.of(replace(base, node=node))
    assert caught.value.code == "E204"
    assert caught.value.values["links needed"] == (cards - 1) * links_per_pair
    assert caught.value.values["links of a card"] == 14


def test_a_smaller_mesh_uses_fewer_links_but_each_pair_is_as_fast() -> None:
    base = cluster_of("mtt-s5000", 64)
    full, half = Links.of(base), Links.of(replace(base, node=replace(base.node, cards=4)))
    assert half.pair_bytes_per_s == pytest.approx(full.pair_bytes_per_s)
    assert half.link_bytes_per_s == pytest.approx(full.link_bytes_per_s * 6 / 14)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c10d._allgather_base_.default", Collective.ALL_GATHER),
        ("c10d.all_gather_into_tensor", Collective.ALL_GATHER),
        ("c10d.reduce_scatter_tensor_coalesced", Collective.REDUCE_SCATTER),
        ("c10d.allreduce_.default", Collective.ALL_REDUCE),
        ("c10d.alltoall_base_", Collective.ALL_TO_ALL),
        ("c10d.all_to_all_single", Collective.ALL_TO_ALL),
        ("c10d.recv_any_source_", Collective.RECV),
        ("c10d.send", Collective.SEND),
        ("c10d.barrier", Collective.BARRIER),
    ],
)
def test_recorded_names(name: str, kind: Collective) -> None:
    assert kind_of(name) is kind


def test_a_recorded_gather_counts_its_output() -> None:
    shard, whole = TensorSpec("bfloat16", (1024,)), TensorSpec("bfloat16", (8192,))
    spec = OpSpec("c10d._allgather_base_", (shard,), (whole,), (("group", 0),))
    assert message_bytes(spec) == 16384
    time = network(H100).recorded_time(spec, ProcessGroup(tuple(range(8))))
    assert (
        time.seconds == network(H100).collective_time(Collective.ALL_GATHER, 16384, tuple(range(8))).seconds
    )
