"""Geometry of the page's drawings: frames nest, areas stack, dots lie under the chip's ceilings."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import sample_results
from windtunnel.report import flame, plots, timeline_data
from windtunnel.results.run_result import MemoryResult, Span


def test_frames_lie_within_their_parents() -> None:
    frames = flame.frames(sample_results.training().ops)
    by_path = {frame.path: frame for frame in frames}
    for frame in frames[1:]:
        above = by_path.get(frame.path.rpartition(" › ")[0], frames[0])
        assert above.depth == frame.depth - 1
        assert frame.left >= above.left - 1e-9
        assert frame.left + frame.width <= above.left + above.width + 1e-9


def test_frames_of_one_level_do_not_overlap() -> None:
    frames = flame.frames(sample_results.training().ops)
    for level in range(flame.depth(frames)):
        row = sorted((frame.left, frame.width) for frame in frames if frame.depth == level)
        for (left, width), (following, _) in pairwise(row):
            assert left + width <= following + 1e-9


def test_layers_are_one_frame() -> None:
    names = {frame.name for frame in flame.frames(sample_results.training().ops)}
    assert "layers.*" in names
    assert "17" not in names


def test_dots_lie_under_the_ceilings() -> None:
    result = sample_results.training()
    drawn = plots.roofline(result, {})
    assert drawn is not None
    compute, bandwidth = result.ceilings[0].value, result.ceilings[2].value
    for dot in drawn.dots:
        assert dot.flops_per_s <= min(compute, bandwidth * dot.intensity) * 1.001
        assert 0 <= dot.left <= 1
        assert 0 <= dot.bottom <= 1
    without = sum(row.seconds for row in result.ops if not row.flops)
    assert drawn.left_out == pytest.approx(without / sum(row.seconds for row in result.ops))


def test_roofs_meet_at_the_ridge() -> None:
    drawn = plots.roofline(sample_results.training(), {})
    assert drawn is not None
    ends = {roof.label.split()[0]: _points(roof.path) for roof in drawn.roofs}
    assert set(ends) == {"bf16", "HBM"}
    assert ends["HBM"][-1] == pytest.approx(ends["bf16"][0], abs=0.2)


def test_no_counted_flops_no_roofline() -> None:
    result = sample_results.decode()
    assert plots.roofline(replace(result, ops=tuple(replace(op, flops=0.0) for op in result.ops)), {}) is None


def test_memory_areas_stack_up_to_the_peak() -> None:
    memory = sample_results.training().memory
    drawn = plots.memory_plot(memory, {})
    assert drawn is not None
    assert [area.name for area in drawn.areas] == list(memory.categories)
    highest = min(height for area in drawn.areas for _, height in _points(area.path))
    reserved = min(height for _, height in _points(drawn.reserved))
    assert 0 <= reserved < highest
    assert drawn.peak_at == pytest.approx(0.35, abs=0.02)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 3000), st.integers(0, 2999))
def test_thinning_keeps_the_peak(rows: int, peak: int) -> None:
    at = peak % rows
    timeline = tuple((i / rows, (10**9 if i == at else 10**6,), 2 * 10**9) for i in range(rows))
    memory: MemoryResult = replace(sample_results.training().memory, categories=("a",), timeline=timeline)
    drawn = plots.memory_plot(memory, {})
    assert drawn is not None
    assert drawn.peak_at == at / rows
    assert len(_points(drawn.reserved)) <= plots.MAX_POINTS


def test_busy_tracks_keep_their_time() -> None:
    result = sample_results.training()
    end_s = max(span.start_s + span.duration_s for span in result.spans)
    for number, track in enumerate(timeline_data.busy(result)):
        expected = sum(span.duration_s for span in result.spans if span.track == number)
        assert math.fsum(track.fractions) / timeline_data.BUCKETS * end_s == pytest.approx(expected, rel=1e-6)


def test_too_many_spans_are_merged_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline_data, "MAX_SPANS", 500)
    base = sample_results.decode()
    spans = tuple(Span(1, i * 1e-6, 0.5e-6, 0, critical=i == 777) for i in range(5000))
    data = timeline_data.columns(replace(base, spans=spans))
    (track,) = data["tracks"]  # type: ignore[misc]
    assert len(track["starts"]) <= 500
    assert sum(track["critical"]) >= 1
    assert sum(track["starts"]) + track["durations"][-1] == pytest.approx(5e6, rel=1e-3)


def _points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]
