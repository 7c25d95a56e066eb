"""Laws of the engine's price, and the chip that its constants never saw."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest

from windtunnel.estimate import Estimate, Source
from windtunnel.specs.catalogue import chip
from windtunnel.workloads.md import fit_engine
from windtunnel.workloads.md.engine_kernels import MdShape, solvated, step_kernels
from windtunnel.workloads.science.curve import Curve, Point, ratios
from windtunnel.workloads.science.engine import assumed_facts, engine_step, parameters
from windtunnel.workloads.science.kernel import EngineKernel

KERNEL = EngineKernel(name="k", instructions=1e9, cache_bytes=1e8, memory_bytes=1e9, round_trips=10)


@pytest.mark.parametrize("field", ["instructions", "cache_bytes", "memory_bytes", "round_trips", "launches"])
def test_more_work_takes_longer(field: str) -> None:
    more = replace(KERNEL, **{field: 4.0 * getattr(KERNEL, field)})
    card = chip("h100")
    assert engine_step([more], card).seconds.value > engine_step([KERNEL], card).seconds.value


def test_fp64_costs_what_the_chip_has() -> None:
    work = EngineKernel(name="k", fp64_flops=1e12)
    times = {name: engine_step([work], chip(name)).seconds.value for name in ("h100", "rtx-4080")}
    assert times["rtx-4080"] / times["h100"] == pytest.approx(33.5e12 / 760e9, rel=0.01)


def test_a_faster_clock_shortens_latency_and_nothing_else_does() -> None:
    chain = EngineKernel(name="k", round_trips=100, launches=0)
    card = chip("a100-80g")
    wider = replace(card, multiprocessors=replace(card.multiprocessors, value=216))
    assert engine_step([chain], wider).seconds.value == engine_step([chain], card).seconds.value
    faster = replace(card, clock_hz=replace(card.clock_hz, value=2.82e9))
    assert engine_step([chain], faster).seconds.value < 0.51 * engine_step([chain], card).seconds.value


def test_many_small_launches_wait_for_the_host() -> None:
    step = engine_step([EngineKernel(name="k", launches=1000)], chip("s5000"), streams=100)
    assert step.limit == "launch"
    assert step.seconds.value == pytest.approx(1000 * 6.258e-6)


def test_h100_is_right_without_having_been_fitted() -> None:
    held_out = [row for row in fit_engine.rows() if row.chip == "h100-sxm"]
    errors = [abs(math.exp(fit_engine.log_error(row, parameters())) - 1) for row in held_out]
    assert len(errors) == 4
    assert statistics.median(errors) <= 0.15


def test_a_gaming_card_beats_h100_on_small_systems_and_loses_on_large_ones() -> None:
    def rate(name: str, atoms: int, solute: float) -> float:
        return 1.0 / engine_step(step_kernels(solvated(atoms, solute=solute)), chip(name)).seconds.value

    assert rate("rtx-4080", 23558, 0.106) > rate("h100", 23558, 0.106)
    assert rate("rtx-4080", 1067095, 0.156) < rate("h100", 1067095, 0.156)


def test_the_constants_are_what_the_fit_gives() -> None:
    fitted = [row for row in fit_engine.rows() if row.fitted]
    assert {row.chip for row in fitted} == {"a100-80g", "l40s", "rtx-4080"}
    found, shipped = fit_engine.fit(fitted), parameters()
    for name in fit_engine.PRIOR:
        assert getattr(shipped, name) == pytest.approx(getattr(found, name), rel=1e-4)
    assert shipped.spread == pytest.approx(fit_engine.spread(fitted), rel=1e-2)


def test_what_is_undisclosed_about_the_s5000_is_named_and_widens() -> None:
    step = engine_step(step_kernels(solvated(100_000)), chip("s5000"))
    assert step.seconds.source is Source.ASSUMED
    assert {"clock_hz", "issue"} <= set(assumed_facts(chip("s5000")))
    assert assumed_facts(chip("h100")) == {}
    known = engine_step(step_kernels(solvated(100_000)), chip("h100")).seconds
    assert step.seconds.high / step.seconds.value > known.high / known.value


def test_pairs_are_never_more_than_all() -> None:
    assert MdShape(atoms=10).pairs == 45
    assert MdShape(atoms=100_000).pairs == pytest.approx(100_000 * 152.7, rel=0.01)


def test_a_ratio_holds_both_intervals() -> None:
    def curve(name: str, value: float) -> Curve:
        point = Point(1.0, Estimate.within(value, 0.2, Source.CALIBRATED), "issue")
        return Curve(name, "fused", "atoms", "ns/day", (point,))

    (point,) = ratios(curve("a", 6.0), curve("b", 3.0))
    assert point.rate.value == pytest.approx(2.0)
    assert point.rate.high == pytest.approx(2.0 * math.exp(math.sqrt(2) * math.log(1.2)))
