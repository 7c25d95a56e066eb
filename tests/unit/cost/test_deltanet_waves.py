"""Heads of Gated DeltaNet that a kernel walks one by one, each to its end."""

from __future__ import annotations

import numpy as np
import pytest

from windtunnel.cost import deltanet
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.specs.catalogue import chip
from windtunnel.validation.kernel_rows.deltanet import CHUNK, delta_rule

HOPPER = chip("h100-sxm")


def fit_of(library: str, **values: float) -> Fit:
    fit = choose("deltanet", HOPPER, library=library, precision="bf16", variant="chunk", repeated=True).fit
    return fit.with_values({**dict(fit.values), **values})


def seconds(fit: Fit, heads: float, length: float = 4096.0) -> float:
    one = np.ones(1)
    work = delta_rule(one, length * one, heads * one, heads * one, 128.0 * one, chunk=CHUNK)
    return float(deltanet.times(work, HOPPER, fit).seconds[0])


def test_one_head_more_than_multiprocessors_is_another_wave() -> None:
    fit = fit_of("flashinfer", floor_clocks=0.0, move=1e6, dram=1e6, issue=1e9)
    assert fit.value("whole") == 1.0
    one, two, three = (seconds(fit, heads) for heads in (132.0, 133.0, 264.0))
    assert two == pytest.approx(2.0 * one, rel=0.05)
    assert three == pytest.approx(two, rel=0.05)


def test_kernels_that_share_a_multiprocessor_have_no_such_steps() -> None:
    fit = fit_of("fla")
    assert fit.value("whole") == 0.0
    assert seconds(fit, 133.0) < 1.1 * seconds(fit, 132.0)


def test_memory_passes_while_heads_are_walked() -> None:
    fit = fit_of("flashinfer", floor_clocks=0.0)
    free = fit.with_values({**dict(fit.values), "begin_clocks": 0.0, "step_clocks": 0.0, "row_clocks": 0.0})
    walked = fit.with_values({**dict(fit.values), "move": 1e6, "dram": 1e6, "issue": 1e9})
    heads = 1024.0
    both = seconds(fit, heads)
    assert max(seconds(free, heads), seconds(walked, heads)) <= both
    assert both < 0.95 * (seconds(free, heads) + seconds(walked, heads))
