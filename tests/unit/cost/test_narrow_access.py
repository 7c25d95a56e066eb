"""Rows that start at odd places: products of a vocabulary nobody padded."""

from __future__ import annotations

import pytest

from windtunnel.cost.model import CostModel
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.work import Work
from windtunnel.specs.catalogue import chip

TOKENS, HIDDEN = 8192, 768


def logits(vocabulary: int, dtype: str = "bfloat16") -> Work:
    x, w = TensorSpec(dtype, (TOKENS, HIDDEN)), TensorSpec(dtype, (HIDDEN, vocabulary), (1, HIDDEN))
    return work_of(OpSpec("aten.mm.default", (x, w), (TensorSpec(dtype, (TOKENS, vocabulary)),)))


def seconds(work: Work, name: str = "a100-80g") -> float:
    return CostModel(chip(name)).kernel_time(work).seconds


@pytest.mark.parametrize(
    ("vocabulary", "access"), [(50257, 2), (50258, 4), (50260, 8), (50264, 0), (50304, 0)]
)
def test_work_says_at_how_many_bytes_rows_start(vocabulary: int, access: int) -> None:
    assert logits(vocabulary).dim("access") == access


def test_only_matrices_read_by_rows_count_and_columns_are_rows_turned() -> None:
    odd = TensorSpec("float16", (50257, 4096), (1, 50257))
    x, out = TensorSpec("float16", (4096, 1024)), TensorSpec("float16", (50257, 1024))
    assert work_of(OpSpec("aten.mm.default", (odd, x), (out,))).dim("access") == 2
    assert (
        work_of(OpSpec("aten.mm.default", (TensorSpec("float16", (50257, 4096)), x), (out,))).dim("access")
        == 0
    )


def test_padding_an_odd_vocabulary_pays() -> None:
    """GPT-2's 50,257: padded to 50,304 its logits take well under half, and everything between costs a little more."""
    odd, padded = seconds(logits(50257)), seconds(logits(50304))
    assert 2.0 < odd / padded < 3.5
    steps = [seconds(logits(vocabulary)) for vocabulary in (50304, 50260, 50258, 50257)]
    assert steps == sorted(steps)
    assert steps[1] / steps[0] < 1.2


def test_a_card_whose_units_are_not_known_is_left_alone() -> None:
    odd, padded = seconds(logits(50257), "mtt-s5000"), seconds(logits(50304), "mtt-s5000")
    assert odd == pytest.approx(padded, rel=0.01)
