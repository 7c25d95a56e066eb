"""Unequal experts: laws of the draw, and what they do to a step."""

from __future__ import annotations

import pytest

from tests.unit.network.chips import H100, network
from tests.unit.timeline.ranks_program import collective, mm, program
from windtunnel.cost.kernel_time import KernelTime
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Source
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Family, Work
from windtunnel.timeline.cluster_predict import replay_cluster
from windtunnel.timeline.expert_load import drawn, load_of


class FixedCost:
    """Products take a millisecond, dispatch nothing."""

    def kernel_times(self, works: list[Work]) -> list[KernelTime]:
        products = (Family.GEMM, Family.GROUPED_GEMM)
        return [
            KernelTime(1e-3 * (w.family in products), 0.0, 1.0, Source.MEASURED, "compute", "") for w in works
        ]

    def host_time_s(self, work: Work) -> float:
        return 0.0


def grouped() -> OpSpec:
    rows, weights = TensorSpec("bfloat16", (4096, 512)), TensorSpec("bfloat16", (8, 512, 1024))
    ends, out = TensorSpec("int32", (8,)), TensorSpec("bfloat16", (4096, 1024))
    return OpSpec("aten._grouped_mm.default", (rows, weights, ends), (out,))


def test_more_skew_is_more_unequal_and_one_rank_carries_the_mean() -> None:
    even, mild, strong = (drawn(100_000, 64, 8, how).mean for how in ("uniform", "power:0.5", "power:1"))
    assert 1.0 < even < 1.05
    assert even < mild < strong
    assert drawn(100_000, 64, 1, "power:1").mean == pytest.approx(1.0)


def test_few_tokens_are_less_even_than_many() -> None:
    few, many = drawn(64, 64, 8, "uniform"), drawn(64_000, 64, 8, "uniform")
    assert few.mean > 1.3 > many.mean
    assert few.low <= few.mean <= few.high
    assert few == drawn(64, 64, 8, "uniform")
    assert few != drawn(64, 64, 8, "uniform", seed=1)


def test_only_experts_and_their_exchange_wait_for_the_busiest_rank() -> None:
    ops = [
        mm(),
        collective("alltoall_base_", numel=1 << 24),
        grouped(),
        collective("alltoall_base_", numel=1 << 24),
    ]
    recorded = program(ops, world=8)
    load = load_of(recorded, "power:1")
    assert load is not None
    assert load == drawn(4096 * 8, 64, 8, "power:1")

    def parts(given: bool) -> tuple[float, float]:
        timing = replay_cluster(
            [recorded],
            H100,
            network(H100),
            model_for=lambda chip: FixedCost(),
            expert_load=load if given else None,
        )
        return timing.ranks[0].parts.compute_s, timing.ranks[0].parts.exposed_comm_s

    (compute, exchange), (more, longer) = parts(False), parts(True)
    assert more == pytest.approx(compute + 1e-3 * (load.mean - 1))
    assert longer == pytest.approx(exchange * load.mean)


def test_programs_without_spread_experts_have_no_load() -> None:
    assert load_of(program([mm(), collective("allreduce_")], world=8), "uniform") is None


@pytest.mark.parametrize("text", ["skewed", "power:", "power:-1", "power:nan", "power:1000"])
def test_unreadable_loads_are_refused(text: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        drawn(10, 4, 2, text)
    assert caught.value.code == "E214"
