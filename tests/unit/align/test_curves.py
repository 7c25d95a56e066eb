"""Deviation by definition, and judgement against a floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.align.curves import deviations, smoothed
from windtunnel.align.noise import judge, perturb
from windtunnel.errors import AnswerIsNo, WindtunnelError


def by_name(found) -> dict:
    return {item.name: item.value for item in found}


def test_a_constant_offset() -> None:
    reference = np.linspace(4.0, 2.0, 250)
    found = by_name(deviations(reference, reference * 1.01))
    for name in ("mean", "max", "bias", "first", "smoothed", "final_smoothed", "tail", "sum"):
        assert found[name] == pytest.approx(0.01)
    assert found["tail_gap_nats"] == pytest.approx(0.01 * reference[-100:].mean())


def test_definitions_disagree_on_noise() -> None:
    draw = np.random.default_rng(0)
    reference = np.full(2000, 2.0)
    found = by_name(deviations(reference, reference * (1 + 0.05 * draw.standard_normal(2000))))
    assert found["max"] > 3 * found["mean"]
    assert found["mean"] > 3 * found["smoothed"]
    assert abs(found["bias"]) < 0.1 * found["mean"]


def test_short_curves_and_smoothing() -> None:
    assert by_name(deviations([2.0], [2.2]))["tail"] == pytest.approx(0.1)
    assert smoothed(np.full(5, 3.0)) == pytest.approx(np.full(5, 3.0))
    assert smoothed(np.array([1.0, 0.0]), 0.5) == pytest.approx([1.0, 1 / 3])


@pytest.mark.parametrize(
    ("code", "reference", "candidate"),
    [
        ("E712", [], []),
        ("E712", [1.0, 2.0], [1.0]),
        ("E713", [1.0, 2.0], [1.0, math.nan]),
        ("E713", [math.inf, 2.0], [1.0, 1.0]),
    ],
)
def test_curves_that_cannot_be_compared(code: str, reference: list, candidate: list) -> None:
    with pytest.raises(WindtunnelError) as caught:
        deviations(reference, candidate)
    assert caught.value.code == code
    assert isinstance(caught.value, AnswerIsNo) is (code == "E713")


def noisy(seed: int, bias: float = 0.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    base = 3 * np.exp(-np.arange(400) / 150) + 1
    return base * (1 + bias + 0.02 * draw.standard_normal(400))


def test_a_replica_is_inside_and_a_bias_is_outside() -> None:
    reference = noisy(0)
    replicas = [noisy(seed) for seed in range(1, 6)]
    inside = {item.deviation.name: item for item in judge(reference, noisy(99), replicas)}
    outside = {item.deviation.name: item for item in judge(reference, noisy(99, 0.02), replicas)}
    assert inside["mean"].inside
    assert inside["tail"].inside
    assert not outside["bias"].inside
    assert not outside["sum"].inside
    assert outside["bias"].z > 4 > abs(inside["bias"].z)


def test_better_than_the_floor_is_inside() -> None:
    reference = noisy(0)
    judged = {
        item.deviation.name: item for item in judge(reference, reference, [noisy(s) for s in (1, 2, 3)])
    }
    assert judged["mean"].z < 0
    assert judged["mean"].inside


def test_replicas_without_spread() -> None:
    reference = [2.0, 1.0]
    same = [reference] * 3
    assert all(item.z == 0 and item.inside for item in judge(reference, reference, same))
    worse = {item.deviation.name: item for item in judge(reference, [2.1, 1.0], same)}
    assert worse["mean"].z == math.inf
    assert not worse["mean"].inside


def test_few_replicas_are_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        judge([1.0], [1.0], [[1.0]] * 2)
    assert caught.value.code == "E714"


def test_coverage_of_the_interval() -> None:
    draw = np.random.default_rng(3)
    inside = 0
    for _ in range(300):
        reference = np.full(20, 2.0)
        curves = reference * (1 + 0.05 * draw.standard_normal((5, 1)))
        judged = {item.deviation.name: item for item in judge(reference, curves[0], curves[1:])}
        inside += judged["bias"].inside
    assert 0.92 <= inside / 300 <= 0.98


def test_perturbation_is_small_seeded_and_in_place() -> None:
    weights = [torch.ones(1000), torch.ones(10, 10).bfloat16()]
    perturb(weights, seed=1)
    again = [torch.ones(1000), torch.ones(10, 10).bfloat16()]
    perturb(again, seed=1)
    assert torch.equal(weights[0], again[0])
    assert 5e-7 < float((weights[0] - 1).std()) < 2e-6
    other = [torch.ones(1000)]
    perturb(other, seed=2)
    assert not torch.equal(weights[0], other[0])


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.1, 10.0), seed=st.integers(0, 100))
def test_units_of_the_loss_do_not_matter(factor: float, seed: int) -> None:
    plain, scaled = (deviations(noisy(seed) * unit, noisy(seed + 1) * unit) for unit in (1.0, factor))
    for ours, theirs in zip(plain, scaled, strict=True):
        if ours.name != "tail_gap_nats":
            assert theirs.value == pytest.approx(ours.value, abs=1e-12)
