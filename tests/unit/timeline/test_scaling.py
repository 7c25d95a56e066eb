"""Scaling over sizes: efficiency against the smallest, and the name of what grew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import sample_results
from windtunnel.results.run_result import Communication, RunResult
from windtunnel.timeline.scaling import scaling_points


def sized(cards: int, gather_s: float, tensor_s: float = 0.1) -> RunResult:
    base = sample_results.training()
    rows = tuple(
        Communication(
            collective=name, group=group, ranks=ranks, count=1, bytes=1e9, seconds=exposed_s, exposed_s=exposed_s,
            algbw_bytes_per_s=1e9, busbw_bytes_per_s=1e9,
        )
        for name, group, ranks, exposed_s in (
            ("all_gather", "data", cards // 8, gather_s), ("all_reduce", "tensor", 8, tensor_s),
        )
    )  # fmt: skip
    parts = replace(base.parts, exposed_comm_s=gather_s + tensor_s)
    step = base.step_time_s.scaled(parts.total_s / base.parts.total_s)
    return replace(
        base, cards=cards, parts=parts, step_time_s=step, communication=rows, tokens_per_step=8192 * cards
    )


def test_the_collective_that_grew_is_named_not_the_largest() -> None:
    points = scaling_points([sized(1024, 0.06), sized(64, 0.01)])
    assert [point.cards for point in points] == [64, 1024]
    assert points[0].limit == ""
    assert points[1].limit == "all_gather over 128"
    assert points[1].efficiency == pytest.approx(points[0].step_time_s.value / points[1].step_time_s.value)


def test_nothing_is_named_where_nothing_grows() -> None:
    points = scaling_points([sized(64, 0.01), sized(128, 0.01)])
    assert points[1].limit == "nothing"
    assert points[1].efficiency == pytest.approx(1.0)
