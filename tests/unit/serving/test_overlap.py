"""Two half-batches in turn: what hides what, and the laws that hold whatever the lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.recipes.serving import ServingLayout
from windtunnel.serving.overlap import Turns
from windtunnel.serving.step_time import StepTime
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

SECONDS = st.floats(0.0, 10.0, allow_subnormal=False)


def test_what_a_long_combine_leaves_over_is_lost() -> None:
    """Six seconds of computing and six on the wire do not hide each other when one exchange is longer than its turn."""
    even = Turns(outside=1.5, experts=1.5, dispatch=1.5, combine=1.5)
    uneven = Turns(outside=1.5, experts=1.5, dispatch=0.5, combine=2.5)
    assert even.both(0.0) == pytest.approx(6.0)
    assert uneven.both(0.0) == pytest.approx(2 * 1.5 + 2 * 2.5)


@given(SECONDS, SECONDS, SECONDS, SECONDS, SECONDS)
def test_no_shorter_than_either_stream_no_longer_than_both(
    outside: float, experts: float, dispatch: float, combine: float, core: float
) -> None:
    layer = Turns(outside=outside, experts=experts, dispatch=dispatch, combine=combine)
    compute, wire = 2 * (outside + experts) + core, 2 * (dispatch + combine)
    took = layer.both(core)
    assert took >= max(compute, wire) - 1e-9
    assert took <= compute + wire + 1e-9


def test_turns_hold_all_of_the_layers_with_experts() -> None:
    model = architecture_of(shipped_model("deepseek-v3-671b"))
    layout = ServingLayout(data=32, expert=32, precision=Precision.FP8_BLOCK)
    step = StepTime(model, layout, cluster_of("h800", 32), overlap=True)
    batch = Batch(sequences=1, new=4096)
    parts, whole = step.turns(batch), step.dense(batch)
    assert parts.dispatch + parts.combine == pytest.approx(whole.network)
    assert parts.dispatch_held + parts.combine_held == pytest.approx(whole.held)
    dense_layers = whole.device - whole.network - parts.computed
    assert 0 < dense_layers < 0.15 * whole.device  # three of 61
