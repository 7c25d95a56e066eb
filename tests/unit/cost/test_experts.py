"""Layers of experts: tiles by how rows are spread, weights from the cache where a benchmark repeats one layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from windtunnel.cost.batch import Batch
from windtunnel.cost.choose import choose
from windtunnel.cost.fit import Fit
from windtunnel.cost.grouped_gemm import times
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.measured import batch

H100 = chip("h100-sxm")


def layer(rows: float, experts: float = 8.0, **more: float) -> Batch:
    n, k = 4096.0, 4096.0
    return batch(
        Family.GROUPED_GEMM, "bf16", {"tokens": rows, "n": n, "k": k, "experts": experts, "active": experts, **more},
        flops=2.0 * rows * n * k, bytes_read=2.0 * (rows * k + experts * n * k), bytes_written=2.0 * rows * n,
    )  # fmt: skip


def fit(**values: float) -> Fit:
    found = choose("grouped_gemm", H100, library="triton@vllm", precision="bf16", repeated=True).fit
    return found.with_values({**dict(found.values), **values})


def seconds(work: Batch, given: Fit) -> float:
    return float(times(work, H100, given).seconds[0])


def test_one_expert_with_most_of_the_rows_takes_longer_than_an_even_spread() -> None:
    even = layer(8192, group0_experts=8.0, group0_rows=1024.0)
    spread = {f"group{i}_experts": 1.0 for i in range(8)} | {f"group{i}_rows": 8.0 for i in range(1, 8)}
    skewed = layer(8192, **{**spread, "group0_rows": 8192.0 - 7 * 8.0})
    barely = layer(8 * 65.0, group0_experts=8.0, group0_rows=65.0)
    assert seconds(even, fit()) <= seconds(skewed, fit())
    assert seconds(barely, fit()) < seconds(even, fit())


def test_a_repeated_layer_that_fits_the_cache_is_read_from_it() -> None:
    small = layer(8, touched_bytes=1e6)
    large = layer(8, touched_bytes=1e10)
    assert seconds(small, fit(repeats=1.0)) < 0.8 * seconds(large, fit(repeats=1.0))
    assert seconds(small, fit(repeats=0.0)) == seconds(large, fit(repeats=0.0))


def test_a_layer_that_does_not_say_what_it_touches_is_never_taken_for_cached() -> None:
    assert seconds(layer(8), fit(repeats=1.0)) == seconds(layer(8), fit(repeats=0.0))


def test_generated_kernels_choose_tiles_by_the_rows_they_expect() -> None:
    b200 = chip("b200")
    tuned = choose(
        "grouped_gemm", b200, library="trtllm_gen@trtllm", precision="fp8", variant="w4a8", repeated=True
    ).fit

    def took(expected: float) -> float:
        work = replace(layer(8, experts=2.0, expected_rows=expected), precision="fp8", variant="w4a8")
        return float(times(work, b200, tuned).seconds[0])

    assert took(8.0) < took(256.0)
    assert took(256.0) == took(4096.0)
    assert np.isfinite(took(1.0))
