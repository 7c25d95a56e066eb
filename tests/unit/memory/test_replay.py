"""A program's memory: categories, what stands at the peak, and when it does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from tests.unit.memory.memory_programs import Script
from windtunnel.memory.allocator import CachingAllocator
from windtunnel.memory.categories import categories_of
from windtunnel.memory.lifetimes import lifetimes_of
from windtunnel.memory.oom import OutOfMemory
from windtunnel.memory.overhead import usable_bytes
from windtunnel.memory.replay import MemoryReplay, memory_result
from windtunnel.memory.workspace import BLAS_WORKSPACE_HOPPER_BYTES
from windtunnel.program.program import Category, Outcome, Phase
from windtunnel.program.work import Family
from windtunnel.units import GIB, MIB

CHIP = sample_chip()


def training_step() -> tuple[Script, dict[str, int]]:
    """Parameter, input, one activation, one temporary, one gradient, optimizer state, a reduced bucket."""
    script, names = Script(), {}
    script.op()
    names["parameter"] = script.new(8 * MIB, Category.PARAMETER)
    names["input"] = script.new(MIB, Category.INPUT)
    script.op(Phase.FORWARD)
    names["activation"] = script.new(100 * MIB)
    script.op(Phase.FORWARD, 2)
    names["temporary"] = script.new(50 * MIB)
    script.free(names["temporary"])
    script.op(Phase.BACKWARD)
    names["gradient"] = script.new(8 * MIB)
    script.op(Phase.RECOMPUTE)
    names["again"] = script.new(10 * MIB)
    script.free(names["again"])
    script.op(Phase.BACKWARD, 1)
    names["bucket"] = script.new(4 * MIB)
    script.free([names["bucket"], names["activation"]])
    script.op(Phase.OPTIMIZER)
    names["state"] = script.new(16 * MIB)
    names["scratch"] = script.new(2 * MIB)
    script.free(names["scratch"])
    script.op(Phase.OTHER)
    names["metric"] = script.new(512)
    script.op(Phase.FORWARD)
    script.free([names["gradient"], names["metric"]])
    return script, names


def test_categories_follow_from_birth_and_death() -> None:
    script, names = training_step()
    program = script.program()
    found = categories_of(program, lifetimes_of(program))
    assert {name: Category(int(found[number])).name for name, number in names.items()} == {
        "parameter": "PARAMETER",
        "input": "INPUT",
        "activation": "ACTIVATION",
        "temporary": "TEMPORARY",
        "gradient": "GRADIENT",
        "again": "ACTIVATION",
        "bucket": "COMMUNICATION",
        "state": "OPTIMIZER_STATE",
        "scratch": "TEMPORARY",
        "metric": "OTHER",
    }


def test_the_peak_and_what_stands_at_it() -> None:
    script, _ = training_step()
    result = memory_result(script.program(), CHIP)
    assert result.peak_active_bytes.value == (8 + 1 + 100 + 50) * MIB
    assert result.peak_at == "train.py:3 (aten.add)"
    assert dict(result.peak_by_category) == {
        "activation": 100 * MIB,
        "temporary": 50 * MIB,
        "parameter": 8 * MIB,
        "input": MIB,
    }
    assert [(row.bytes, row.line, row.op) for row in result.largest[:2]] == [
        (100 * MIB, "train.py:2", "aten.mm"),
        (50 * MIB, "train.py:3", "aten.add"),
    ]
    assert result.largest[0].module == "model.layer"
    # 8 MiB in a 20 MiB segment, 1 MiB in a small one, 100 and 50 MiB of their own
    assert result.peak_reserved_bytes.value >= (20 + 2 + 100 + 50) * MIB
    assert result.fits


def test_the_timeline_sums_to_live_bytes_and_holds_the_peak() -> None:
    script, _ = training_step()
    result = memory_result(script.program(), CHIP)
    assert max(sum(values) for _, values, _ in result.timeline) == result.peak_active_bytes.value
    assert all(sum(values) <= reserved for _, values, reserved in result.timeline)
    fractions = [at for at, _, _ in result.timeline]
    assert fractions == sorted(fractions)
    assert all(len(values) == len(result.categories) for _, values, _ in result.timeline)


def test_a_long_recording_keeps_its_peak_in_few_points() -> None:
    script = Script()
    rng = np.random.default_rng(0)
    live: list[int] = []
    for _ in range(6000):
        script.op()
        live.append(script.new(int(rng.integers(1, 3 * MIB))))
        if len(live) > 40:
            script.free(live.pop(int(rng.integers(len(live)))))
    result = memory_result(script.program(), CHIP)
    assert len(result.timeline) <= 2000
    assert max(sum(values) for _, values, _ in result.timeline) == result.peak_active_bytes.value


def test_too_much_names_the_line_that_did_not_fit_and_what_would_be_needed() -> None:
    script = Script()
    for _ in range(5):
        script.op()
        script.new(20 * GIB)
    result = memory_result(script.program(), CHIP)
    assert not result.fits
    assert result.out_of_memory_at == "train.py:4 (aten.mm)"
    assert result.peak_reserved_bytes.value == 100 * GIB
    assert result.usable_bytes == usable_bytes(CHIP) < 80 * GIB


def test_cached_memory_is_returned_before_a_program_fails() -> None:
    script = Script()
    script.op()
    script.free(script.new(50 * GIB))
    script.op(stream=1)
    script.new(60 * GIB)
    result = memory_result(script.program(), CHIP)
    assert result.fits
    assert result.peak_reserved_bytes.value == 60 * GIB


def test_a_recording_that_ran_out_of_memory_does_not_fit() -> None:
    script = Script()
    script.op()
    script.new(MIB)
    program = script.program(outcome=Outcome.OUT_OF_MEMORY, outcome_detail="train.py:9 (aten.mm)")
    assert memory_result(program, CHIP).out_of_memory_at == "train.py:9 (aten.mm)"


def test_matrix_products_take_a_workspace_on_each_stream() -> None:
    script = Script()
    for stream in (0, 1, 1):
        script.op(stream=stream)
        script.new(2 * MIB)
    plain = memory_result(script.program(), CHIP).peak_reserved_bytes.value
    products = memory_result(script.program(Family.GEMM), CHIP).peak_reserved_bytes.value
    assert products - plain == 2 * BLAS_WORKSPACE_HOPPER_BYTES


def test_an_empty_recording_takes_nothing() -> None:
    script = Script()
    script.op()
    result = memory_result(script.program(), CHIP)
    assert result.peak_reserved_bytes.value == 0
    assert result.fits


def test_the_live_replay_catches_up_in_pieces() -> None:
    script, _ = training_step()
    events, sizes = script.events, script.sizes
    whole, pieces = CachingAllocator(GIB), CachingAllocator(GIB)
    MemoryReplay(events, sizes, whole).catch_up()
    growing: list[int] = []
    replay = MemoryReplay(growing, sizes, pieces)
    for event in events:
        growing.append(event)
        replay.catch_up()
    assert pieces.stats() == whole.stats()
    live = [block.address for segment in pieces.snapshot() for block in segment.blocks]
    assert replay.address(0) in live


def test_the_live_replay_puts_allocations_on_their_stream_and_goes_on_after_running_out() -> None:
    script = Script()
    script.op()
    first = script.new(60 * MIB)
    script.free(first)
    script.op(stream=1)
    script.new(200 * MIB)
    script.new(60 * MIB)
    allocator = CachingAllocator(100 * MIB)
    replay = MemoryReplay(script.events, script.sizes, allocator, stream_of=[0, 1].__getitem__)
    with pytest.raises(OutOfMemory) as caught:
        replay.catch_up()
    assert caught.value.requested_bytes == 200 * MIB
    replay.catch_up()
    assert allocator.active_bytes == 60 * MIB
    assert allocator.snapshot()[0].stream == 1
