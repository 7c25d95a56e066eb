"""Several ranks together: meetings, deadlocks that are named, overlap, contention, bubbles."""

from __future__ import annotations

import pytest

from tests.unit.network.chips import H100, S5000, network
from tests.unit.timeline.ranks_program import collective, mm, program, wait
from windtunnel.cost.kernel_time import KernelTime
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Source
from windtunnel.network.collective import Collective
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Family, Work
from windtunnel.specs.schema import Chip
from windtunnel.timeline.cluster_predict import replay_cluster
from windtunnel.timeline.cluster_rows import ClusterTiming, communication

MM_S = 1e-3


class FixedCost:
    """Every kernel takes a millisecond, dispatch nothing."""

    def kernel_times(self, works: list[Work]) -> list[KernelTime]:
        return [
            KernelTime(MM_S if w.family is Family.GEMM else 0.0, 0.0, 1.0, Source.MEASURED, "compute", "")
            for w in works
        ]

    def host_time_s(self, work: Work) -> float:
        return 0.0


def run(
    *ranks: list, world: int = 2, chip: Chip = H100, groups: list[ProcessGroup] | None = None
) -> ClusterTiming:
    programs = [program(ops, rank=i, world=world, groups=groups) for i, ops in enumerate(ranks)]
    return replay_cluster(programs, chip, network(chip, max(8, world)), model_for=lambda chip: FixedCost())


def reduce_s(chip: Chip = H100, ranks: int = 2) -> float:
    return network(chip).collective_time(Collective.ALL_REDUCE, 2 << 24, tuple(range(ranks))).seconds


def test_the_later_rank_decides_when_a_collective_starts() -> None:
    timing = run([mm(), collective("allreduce_")], [mm(), mm(), mm(), collective("allreduce_")])
    assert timing.seconds == pytest.approx(3 * MM_S + reduce_s())
    early, late = timing.ranks
    assert early.parts.bubble_s == pytest.approx(2 * MM_S)
    assert late.parts.bubble_s == pytest.approx(0.0, abs=1e-12)
    for rank in timing.ranks:
        assert rank.parts.total_s == pytest.approx(timing.seconds)


def test_one_recorded_rank_stands_for_all() -> None:
    timing = run([mm(), collective("allreduce_"), mm()], world=8)
    assert timing.seconds == pytest.approx(2 * MM_S + reduce_s(ranks=8))


def test_send_meets_receive_and_a_pipeline_fills() -> None:
    first = [mm(), collective("send", peer=1), mm(), collective("send", peer=1)]
    second = [collective("recv_", peer=0), mm(), collective("recv_", peer=0), mm()]
    timing = run(first, second)
    send_s = network(H100).collective_time(Collective.SEND, 2 << 24, (0, 1)).seconds
    # the first rank sends the second micro-batch while the second still works on the first
    assert timing.seconds == pytest.approx(3 * MM_S + 2 * send_s, rel=0.2)


def test_a_rank_that_never_joins_is_named_with_its_line() -> None:
    with pytest.raises(WindtunnelError) as caught:
        run([mm(), collective("allreduce_")], [mm()])
    assert caught.value.code == "E211"
    text = str(caught.value)
    assert "rank 1" in text
    assert "train.py:2" in text
    assert "has ended" in text


def test_crossed_collectives_are_a_deadlock_that_is_named() -> None:
    groups = [ProcessGroup((0, 1), "nccl", "a"), ProcessGroup((0, 1), "nccl", "b")]
    one = [collective("allreduce_", 0), collective("allreduce_", 1)]
    with pytest.raises(WindtunnelError) as caught:
        run(one, one[::-1], groups=groups)
    assert caught.value.code == "E211"
    assert "waits in all_reduce" in str(caught.value)


def test_different_sizes_are_a_disagreement() -> None:
    with pytest.raises(WindtunnelError) as caught:
        run([collective("allreduce_", numel=64)], [collective("allreduce_", numel=128)])
    assert caught.value.code == "E212"
    assert caught.value.values == {
        "rank 0": "all_reduce of 128 bytes at train.py:1",
        "rank 1": "all_reduce of 256 bytes at train.py:1",
    }


def test_ranks_that_nobody_stands_for_are_refused() -> None:
    programs = [program([mm()], rank=r, world=8) for r in (0, 4)]
    with pytest.raises(WindtunnelError) as caught:
        replay_cluster(programs, H100, network(H100), model_for=lambda chip: FixedCost())
    assert caught.value.code == "E210"


def test_asynchronous_collectives_overlap_and_take_multiprocessors_on_nvidia_only() -> None:
    ops = [collective("allreduce_", async_op=True, work=1), mm(), mm(), wait(1)]
    for chip, slower in ((H100, True), (S5000, False)):
        timing = run(ops, world=8, chip=chip)
        alone = max(2 * MM_S, reduce_s(chip, 8))
        assert timing.seconds < 2 * MM_S + reduce_s(chip, 8)
        assert (timing.seconds > alone * 1.001) is slower


def both_at_once(first: tuple[int, ...], second: tuple[int, ...], chip: Chip, world: int) -> ClusterTiming:
    """Two collectives of different groups of rank 0, started together."""
    groups = [ProcessGroup(first, "nccl", "dp"), ProcessGroup(second, "nccl", "tp")]
    ops = [
        collective("allreduce_", 0, async_op=True, work=1),
        collective("allreduce_", 1, async_op=True, work=2),
        wait(1),
        wait(2),
    ]
    return run(ops, world=world, chip=chip, groups=groups)


def group_s(chip: Chip, ranks: tuple[int, ...], world: int) -> float:
    return network(chip, world).collective_time(Collective.ALL_REDUCE, 2 << 24, ranks).seconds


def test_groups_that_share_links_slow_each_other() -> None:
    pair, other = (0, 1), (0, 2)
    alone = group_s(H100, pair, 8)
    assert 1.5 * alone < both_at_once(pair, other, H100, 8).seconds <= 2.001 * alone
    # in a mesh the two pairs have links of their own
    assert both_at_once(pair, other, S5000, 8).seconds == pytest.approx(group_s(S5000, pair, 8), rel=1e-6)


def test_groups_on_different_tiers_run_side_by_side() -> None:
    inside, between = tuple(range(8)), (0, 8)
    timing = both_at_once(inside, between, H100, 16)
    assert timing.seconds == pytest.approx(group_s(H100, between, 16), rel=1e-6)
    crowded = both_at_once((0, 8), (0, 8), H100, 16)
    assert crowded.seconds > 1.5 * group_s(H100, between, 16)


def test_contention_reaches_ranks_that_meet() -> None:
    """Two collectives over the same two recorded ranks, on one link: neither is free of the other."""
    groups = [ProcessGroup((0, 1), "nccl", "a"), ProcessGroup((0, 1), "nccl", "b")]
    both = [
        collective("allreduce_", 0, async_op=True, work=1),
        collective("allreduce_", 1, async_op=True, work=2),
        wait(1),
        wait(2),
    ]
    timing = run(both, list(both), groups=groups)
    assert reduce_s() * 1.4 < timing.seconds <= reduce_s() * 2.001


def test_communication_rows_add_up() -> None:
    """Of two collectives one is hidden by a kernel: only the other is exposed."""
    ops = [
        collective("reduce_scatter_", async_op=True, numel=1 << 20, work=1),
        mm(),
        wait(1),
        collective("allreduce_"),
        collective("allreduce_"),
    ]
    whole = program(ops, world=8)
    timing = run(ops, world=8)
    rows = communication(whole, timing.ranks[0].timeline, timing.ranks[0].parts.exposed_comm_s)
    assert [(row.collective, row.count, row.ranks) for row in rows] == [
        ("all_reduce", 2, 8),
        ("reduce_scatter", 1, 8),
    ]
    assert sum(row.exposed_s for row in rows) == pytest.approx(timing.ranks[0].parts.exposed_comm_s)
    assert rows[1].exposed_s == pytest.approx(0.0, abs=1e-9)
    assert rows[0].seconds == pytest.approx(2 * reduce_s(ranks=8))
    assert rows[0].busbw_bytes_per_s == pytest.approx(rows[0].algbw_bytes_per_s * 14 / 8)


def test_the_same_input_gives_the_same_output() -> None:
    first = [mm(), collective("send", peer=1), collective("allreduce_")]
    second = [collective("recv_", peer=0), mm(), collective("allreduce_")]
    once, twice = run(first, second), run(first, second)
    assert once.seconds == twice.seconds
    assert [(rank.seconds, rank.parts) for rank in once.ranks] == [(r.seconds, r.parts) for r in twice.ranks]
