"""The published growth of accumulation error, and what the undisclosed part of the S5000 is worth."""

from __future__ import annotations

import pytest

from windtunnel.numerics.profiles import HOPPER, S5000, Operand
from windtunnel.numerics.sensitivity import (
    Inputs,
    accumulation_errors,
    undisclosed_variants,
    width_sweep,
)

SHORT = HOPPER.accumulators[Operand.FP8]


def test_error_of_13_bits_grows_with_k_as_published() -> None:
    # DeepSeek-V3 (arXiv 2412.19437, 3.3.2) reports close to 2 % at K = 4096 for its own operands; U[0, 1) is
    # the worst case, all errors having one sign.
    errors = accumulation_errors(SHORT)
    worst = [error.max_relative for error in errors]
    assert worst == pytest.approx([0.0013, 0.0068, 0.015, 0.070, 0.26], rel=0.1)
    assert all(error.bias < 0 for error in errors)


def test_promotion_stops_the_growth() -> None:
    errors = accumulation_errors(SHORT.promoted_every(128))
    assert [error.max_relative for error in errors] == pytest.approx(
        [13e-4, 8e-4, 7e-4, 6e-4, 5e-4], rel=0.15
    )


def test_short_inner_dimensions_show_nothing() -> None:
    plain, promoted = (
        accumulation_errors(accumulator, Inputs.NORMAL, (128, 4096))
        for accumulator in (SHORT, SHORT.promoted_every(128))
    )
    assert plain[0].relative_norm == promoted[0].relative_norm
    assert plain[1].relative_norm > 5 * promoted[1].relative_norm


def test_what_the_s5000_does_not_disclose_is_worth_less_than_its_width() -> None:
    stated = S5000.accumulators[Operand.FP8]
    results = {row.accumulator: row for row in width_sweep(undisclosed_variants(stated))}
    same_width = [row for row in results.values() if row.accumulator.fraction_bits == 23]
    assert len(same_width) == 5
    assert all(row.passes_gate and row.change < 1e-5 for row in same_width)
    by_width = {row.accumulator.fraction_bits: row for row in results.values()}
    assert by_width[20].passes_gate
    assert not by_width[18].passes_gate
    assert by_width[13].error.max_relative == pytest.approx(0.18, rel=0.1)
    errors = [by_width[bits].error.max_relative for bits in (24, 22, 20, 18, 16, 14)]
    assert errors == sorted(errors)
