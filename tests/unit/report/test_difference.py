"""Two results: the largest change first, and limits that answer no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import golden, sample_results
from windtunnel.errors import WindtunnelError
from windtunnel.report import difference, threshold

BEFORE = sample_results.training()
NAMES = ("before", "after")
AFTER = sample_results.other_chip()


def test_equal_results_do_not_differ() -> None:
    assert difference.rows(BEFORE, BEFORE) == []
    assert difference.table(BEFORE, BEFORE, 100, NAMES) == []


def test_largest_change_first() -> None:
    slower = tuple(
        replace(op, seconds=op.seconds * 2) if op.module.endswith("down_proj") else op for op in BEFORE.ops
    )
    without = tuple(op for op in slower if op.family != "softmax")
    rows = difference.rows(BEFORE, replace(BEFORE, ops=without))
    assert rows[0].place == "model.layers.*.mlp.down_proj (model.py:98)"
    assert rows[0].change_s == pytest.approx(rows[0].before_s)
    gone = next(row for row in rows if row.name == "aten._log_softmax")
    assert gone.after_s == 0
    assert gone.change_s < 0
    changes = [abs(row.change_s) for row in rows]
    assert changes == sorted(changes, reverse=True)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_table_is_the_recorded_one(width: int) -> None:
    golden.check(
        f"report/difference-{width}.txt", "\n".join(difference.table(BEFORE, AFTER, width, NAMES)) + "\n"
    )


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("step_time>3%", True),
        ("step_time > 36.9 %", True),
        ("step_time_s>40%", False),
        ("tokens_per_s_per_gpu<-5%", True),
        ("tokens_per_s_per_gpu<-50%", False),
        ("peak_reserved_bytes>0%", False),
        ("mfu<-10%", True),
    ],
)
def test_limits(text: str, failed: bool) -> None:
    assert threshold.parse(text).failed(BEFORE, AFTER) is failed


def test_a_missing_figure_is_past_every_limit() -> None:
    limit = threshold.parse("mfu<-10%")
    assert limit.failed(BEFORE, replace(AFTER, mfu=None))
    assert limit.change(BEFORE, replace(AFTER, mfu=None)) is None


@pytest.mark.parametrize(
    "text", ["", "step_time", "speed>3%", "step_time>3", "step_time=3%", "step_time>x%", ">3%"]
)
def test_bad_limits(text: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        threshold.parse(text)
    assert caught.value.code == "E926"
