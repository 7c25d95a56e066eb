"""Measures of distance: known values, symmetry, specials, empties."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.align.metrics import compare, compare_all, global_relative_l2
from windtunnel.errors import WindtunnelError


def test_identical() -> None:
    x = torch.randn(5, 7)
    found = compare(x, x.clone())
    assert found.identical
    assert (found.relative_l2, found.max_absolute, found.ulp_max, found.special_mismatches) == (0, 0, 0, 0)
    assert found.cosine == pytest.approx(1)
    assert found.norm_ratio == 1


def test_known_distances() -> None:
    x = torch.tensor([3.0, 4.0])
    found = compare(x, torch.tensor([3.0, 4.5]))
    assert found.relative_l2 == pytest.approx(0.1)
    assert found.max_absolute == 0.5
    assert found.bit_equal == 0.5
    assert found.norm_ratio == pytest.approx(math.hypot(3, 4.5) / 5)
    assert compare(x, -x).cosine == pytest.approx(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_ulps_count_steps_between_neighbours(dtype: torch.dtype) -> None:
    x = torch.tensor([1.0, -1.0, 0.0, 1.0], dtype=dtype)
    y = x.clone()
    for _ in range(3):
        y = torch.nextafter(y, torch.full_like(y, 10.0))
    found = compare(x, y)
    assert (found.ulp_p50, found.ulp_max) == (3, 3)
    signs = compare(torch.tensor([-0.0], dtype=dtype), torch.tensor([0.0], dtype=dtype))
    assert (signs.ulp_max, signs.bit_equal) == (0, 0)
    across = torch.tensor([torch.finfo(dtype).smallest_normal], dtype=dtype)
    assert compare(across, -across).ulp_max == 2 * compare(torch.zeros_like(across), across).ulp_max


def test_specials_are_counted_not_averaged() -> None:
    x = torch.tensor([1.0, torch.nan, torch.inf, torch.inf, 2.0])
    y = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf, torch.nan])
    found = compare(x, y)
    assert found.special_mismatches == 2
    assert found.relative_l2 == 0


def test_zeros_and_empties() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert compare(zero, zero).relative_l2 == 0
    assert compare(zero, one).relative_l2 == math.inf
    assert compare(zero, one).cosine == 0
    assert compare(one, zero).norm_ratio == 0
    assert compare(torch.empty(0), torch.empty(0)).identical


def test_candidate_is_rounded_to_the_reference() -> None:
    x = torch.randn(64).bfloat16()
    assert compare(x, x.double() * (1 + 1e-6)).identical


def test_one_vector_of_all_tensors() -> None:
    reference = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    found = compare_all(reference, {"a": torch.tensor([3.0]), "b": torch.tensor([4.5])})
    assert list(found) == ["a", "b"]
    assert global_relative_l2(found) == pytest.approx(0.1)


def test_what_does_not_correspond_is_refused() -> None:
    x = torch.ones(2)
    for call in (
        lambda: compare(x, torch.ones(3)),
        lambda: compare_all({"a": x}, {"b": x}),
    ):
        with pytest.raises(WindtunnelError) as caught:
            call()
        assert caught.value.code == "E711"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), noise=st.floats(1e-6, 1e-3), scale=st.sampled_from([2.0**-40, 1.0, 2.0**40])
)
def test_scaling_both_changes_nothing_relative(seed: int, noise: float, scale: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    x, error = torch.randn(2, 50, generator=draw).unbind()
    plain, scaled = compare(x, x + noise * error), compare(x * scale, (x + noise * error) * scale)
    assert scaled.relative_l2 == pytest.approx(plain.relative_l2)
    assert scaled.cosine == pytest.approx(plain.cosine)
    assert scaled.ulp_p50 == plain.ulp_p50
