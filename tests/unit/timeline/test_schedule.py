"""Schedules against closed-form bubbles: 2104.04473 (1F1B, interleaved), 2401.10241 (zero bubble)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.timeline.pipeline import PipelineTiming, replay
from windtunnel.timeline.schedule import Chunk, ChunkKind, PipelineOrder, Schedule, order

FORWARD_S, BACKWARD_S = 1.0, 2.0


def run(
    schedule: Schedule, stages: int, micro_batches: int, chunks: int = 1, **times: float
) -> PipelineTiming:
    """Replay with one time per kind; a chunk of ``v`` per stage takes 1/v of it."""
    plan = order(schedule, stages, micro_batches, chunks)
    forward, transfer = times.get("forward", FORWARD_S), times.get("transfer", 0.0)
    backward = times.get("backward", BACKWARD_S)
    if plan.splits_backward:
        seconds = {
            ChunkKind.FORWARD: forward,
            ChunkKind.BACKWARD: backward / 2,
            ChunkKind.WEIGHT: backward / 2,
        }
    else:
        seconds = {ChunkKind.FORWARD: forward, ChunkKind.BACKWARD: backward}
    return replay(plan, lambda chunk, stage: seconds[chunk.kind] / chunks, lambda a, b: transfer)


@pytest.mark.parametrize("schedule", [Schedule.GPIPE, Schedule.ONE_F_ONE_B])
@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (2, 4), (4, 8), (8, 64), (8, 3)])
def test_flush_bubble_is_p_minus_1_micro_batches(schedule: Schedule, stages: int, micro_batches: int) -> None:
    timing = run(schedule, stages, micro_batches)
    assert timing.total_s == pytest.approx((micro_batches + stages - 1) * (FORWARD_S + BACKWARD_S))


@pytest.mark.parametrize(
    ("stages", "micro_batches", "chunks"), [(2, 4, 2), (4, 8, 2), (4, 16, 5), (8, 32, 4)]
)
def test_interleaving_divides_the_bubble_by_the_chunks(stages: int, micro_batches: int, chunks: int) -> None:
    timing = run(Schedule.INTERLEAVED, stages, micro_batches, chunks)
    bubble = (stages - 1) * (FORWARD_S + BACKWARD_S) / chunks
    assert timing.total_s == pytest.approx(micro_batches * (FORWARD_S + BACKWARD_S) + bubble)


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 24)])
def test_zero_bubble_h1_leaves_a_third(stages: int, micro_batches: int) -> None:
    """ZB-H1: (p-1)(F + B - W), with F = B = W a third of 1F1B's bubble."""
    timing = run(Schedule.ZERO_BUBBLE, stages, micro_batches, forward=1.0, backward=2.0)
    assert timing.total_s == pytest.approx(micro_batches * 3.0 + (stages - 1) * 1.0)


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 20), (8, 32), (16, 64)])
def test_dualpipe_beats_1f1b_and_keeps_within_its_published_bubble(stages: int, micro_batches: int) -> None:
    """Table 2 of arXiv 2412.19437: (PP/2 - 1)(F&B + B - 3W), here (1 + 2) + 2 - 3 = 2."""
    timing = run(Schedule.DUALPIPE, stages, micro_batches, forward=1.0, backward=2.0)
    work = micro_batches * 3.0
    one_f_one_b = run(Schedule.ONE_F_ONE_B, stages, micro_batches, forward=1.0, backward=2.0).total_s
    assert work <= timing.total_s <= one_f_one_b
    assert timing.total_s - work <= (stages // 2 - 1) * 2.0 + 1e-9


SIZES = st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))


def all_orders(stages: int, rounds: int, chunks: int) -> list[PipelineOrder]:
    micro_batches = 2 * stages * rounds
    plans = [
        order(s, stages, micro_batches) for s in (Schedule.GPIPE, Schedule.ONE_F_ONE_B, Schedule.ZERO_BUBBLE)
    ]
    plans.append(order(Schedule.INTERLEAVED, stages, micro_batches, chunks))
    if stages % 2 == 0:
        plans.append(order(Schedule.DUALPIPE, stages, micro_batches))
    return plans


@settings(max_examples=25, deadline=None)
@given(SIZES)
def test_every_chunk_runs_once_on_its_stage(sizes: tuple[int, int, int]) -> None:
    for plan in all_orders(*sizes):
        count = Counter(chunk for row in plan.stages for chunk in row)
        assert set(count.values()) == {1}
        assert all(plan.stage_of[c.virtual] == s for s, row in enumerate(plan.stages) for c in row)
        kinds = Counter(chunk.kind for chunk in count)
        assert kinds[ChunkKind.FORWARD] == kinds[ChunkKind.BACKWARD]


@settings(max_examples=25, deadline=None)
@given(SIZES, st.floats(0.1, 3), st.floats(0.1, 3), st.floats(0, 1))
def test_parts_sum_and_slower_transfers_never_help(
    sizes: tuple[int, int, int], forward: float, backward: float, transfer: float
) -> None:
    for plan in all_orders(*sizes):
        seconds = {ChunkKind.FORWARD: forward, ChunkKind.BACKWARD: backward, ChunkKind.WEIGHT: backward}
        quick = replay(plan, lambda c, s, t=seconds: t[c.kind], lambda a, b: 0.0)
        slow = replay(plan, lambda c, s, t=seconds: t[c.kind], lambda a, b: transfer)
        assert slow.total_s >= quick.total_s - 1e-9
        for busy, bubble in zip(slow.busy_s, slow.bubble_s, strict=True):
            assert busy + bubble == pytest.approx(slow.total_s)
        assert slow.critical[0].start_s == 0.0
        assert slow.critical[-1].end_s == slow.total_s


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        order(Schedule.INTERLEAVED, 4, 6, 2)
    assert caught.value.code == "E202"
    with pytest.raises(WindtunnelError, match="DualPipe"):
        order(Schedule.DUALPIPE, 3, 6)


def test_an_order_that_deadlocks_is_named() -> None:
    crossed = PipelineOrder(
        Schedule.ONE_F_ONE_B,
        (
            (Chunk(ChunkKind.FORWARD, 0, 0), Chunk(ChunkKind.BACKWARD, 0, 0)),
            (Chunk(ChunkKind.BACKWARD, 0, 1), Chunk(ChunkKind.FORWARD, 0, 1)),
        ),
        (0, 1),
        False,
    )
    with pytest.raises(WindtunnelError) as caught:
        replay(crossed, lambda c, s: 1.0, lambda a, b: 0.0)
    assert caught.value.code == "E203"
    assert "stage 1" in str(caught.value)
