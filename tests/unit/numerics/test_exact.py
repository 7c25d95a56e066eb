"""The exact product: against mmasim, between its two engines, at its edges, and by its laws."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.numerics import casts, compiled
from windtunnel.numerics.accumulators import Accumulator, Rounding
from windtunnel.numerics.exact import Engine, exact_matmul
from windtunnel.numerics.formats import BF16, E4M3, E5M2, FP16, TF32, FloatFormat
from windtunnel.numerics.profiles import ADA, AMPERE, BLACKWELL, HOPPER, S5000, VOLTA, Operand

FORMATS = {
    Operand.FP8: (E4M3, E5M2),
    Operand.FP16: (FP16, FP16),
    Operand.BF16: (BF16, BF16),
    Operand.TF32: (TF32, TF32),
}
CASES = [
    (profile, operand)
    for profile in (VOLTA, AMPERE, ADA, HOPPER, BLACKWELL, S5000)
    for operand in profile.accumulators
    if operand in FORMATS
]
every_case = pytest.mark.parametrize(
    ("profile", "operand"), CASES, ids=[f"{profile.name}-{operand}" for profile, operand in CASES]
)
needs_compiler = pytest.mark.skipif(compiled.library() is None, reason="no C compiler here")


def operands(
    formats: tuple[FloatFormat, FloatFormat], shape: tuple[int, int, int], kind: str, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of two formats: gaussian, spread over the whole range, cancelling, or any bit pattern."""
    rows, depth, columns = shape
    draw = torch.Generator().manual_seed(seed)
    made = []
    for fmt, size in zip(formats, ((rows, depth), (depth, columns)), strict=True):
        x = torch.randn(size, generator=draw)
        if kind == "spread":
            low, high = max(fmt.min_exponent - fmt.mantissa_bits - 1, -126), min(fmt.max_exponent, 60)
            x = x * torch.exp2(torch.randint(low, high, size, generator=draw).float())
            x = x * (torch.rand(size, generator=draw) > 0.2)
        if kind == "cancelling":
            x = x * torch.exp2(torch.randint(-3, 4, size, generator=draw).float())
            flat = x if size[0] == rows else x.t()
            flat[:, 1::2] = -flat[:, ::2] if size[0] == rows else flat[:, ::2]
        if kind == "bits":
            x = torch.randint(-(2**31), 2**31 - 1, size, generator=draw).to(torch.int32).view(torch.float32)
        made.append(casts.round_to(x, fmt))
    return made[0], made[1]


def same_bits(x: torch.Tensor, y: torch.Tensor) -> bool:
    return bool(((x.view(torch.int32) == y.view(torch.int32)) | (x.isnan() & y.isnan())).all())


@needs_compiler
@every_case
@pytest.mark.parametrize("kind", ["gaussian", "spread", "cancelling", "bits"])
@pytest.mark.parametrize("fp16_register", [False, True], ids=["fp32", "fp16"])
def test_both_engines_give_the_same_bits(profile, operand, kind, fp16_register) -> None:
    accumulator = profile.accumulators[operand]
    accumulator = accumulator.with_fp16_register() if fp16_register else accumulator
    a, b = operands(FORMATS[operand], (19, 150, 37), kind, seed=5)
    start = torch.randn(19, 37, generator=torch.Generator().manual_seed(1))
    start = start.half().float() if fp16_register else start
    results = [
        exact_matmul(a, b, accumulator, FORMATS[operand], start=start, engine=engine)
        for engine in (Engine.COMPILED, Engine.TORCH)
    ]
    assert same_bits(*results)


@needs_compiler
@pytest.mark.parametrize("rounding", [Rounding.TRUNCATE, Rounding.NEAREST])
@pytest.mark.parametrize(("fraction", "register"), [(12, 12), (14, 10), (18, 18), (23, 23), (25, 20)])
@pytest.mark.parametrize("terms", [4, 64, 128])
def test_engines_agree_on_every_setting(rounding, fraction, register, terms) -> None:
    accumulator = Accumulator(fraction, terms, -133, register, rounding, promotion=128)
    a, b = operands((E4M3, E5M2), (9, 300, 40), "spread", seed=terms)
    scales = (torch.rand(9, 3) + 0.5, torch.rand(3, 40) + 0.5)
    for given_scales in (None, scales):
        results = [
            exact_matmul(a, b, accumulator, (E4M3, E5M2), scales=given_scales, engine=engine)
            for engine in (Engine.COMPILED, Engine.TORCH)
        ]
        assert same_bits(*results)


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.TORCH])
def test_published_probes(engine: Engine) -> None:
    # FTTN (arXiv 2403.00232): 2^k products that a short accumulator loses. DeepGEMM issue 37: a small term
    # next to a large one survives in FP32 and not with 14 bits.
    a = torch.tensor([[448.0, 7.5] + [0.0] * 30])
    b = torch.tensor([[448.0], [0.125 * 0.125]] + [[0.0]] * 30)
    exact = 448.0 * 448.0 + 7.5 / 64
    hopper = exact_matmul(a, b, HOPPER.accumulators[Operand.FP8], (E4M3, E4M3), engine=engine)
    s5000 = exact_matmul(a, b, S5000.accumulators[Operand.FP8], (E4M3, E4M3), engine=engine)
    assert float(hopper) == 448.0 * 448.0
    assert abs(float(s5000) - exact) <= 2.0**-6
    assert float(s5000) != float(hopper)


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.TORCH])
def test_specials(engine: Engine) -> None:
    inf, nan = torch.inf, torch.nan
    a = torch.tensor([[1.0, inf], [inf, 1.0], [nan, 1.0], [1.0, 2.0], [-inf, 1.0]])
    b = torch.tensor([[1.0, inf, 0.0], [2.0, -inf, 1.0]])
    got = exact_matmul(a, b, AMPERE.accumulators[Operand.BF16], (BF16, BF16), engine=engine)
    want = a @ b
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got[~got.isnan()], want[~want.isnan()])
    huge = torch.full((1, 4), 3e38)
    overflow = exact_matmul(huge, huge.t(), AMPERE.accumulators[Operand.BF16], (BF16, BF16), engine=engine)
    assert float(overflow) == inf


@pytest.mark.parametrize("shape", [(0, 4, 3), (3, 0, 4), (2, 4, 0), (1, 1, 1), (3, 7, 33), (1, 129, 31)])
def test_empty_and_ragged_shapes(shape: tuple[int, int, int]) -> None:
    a, b = operands((E4M3, E4M3), shape, "gaussian", seed=2)
    got = exact_matmul(a, b, HOPPER.accumulator(Operand.FP8), (E4M3, E4M3))
    assert got.shape == (shape[0], shape[2])
    assert torch.allclose(got, a @ b, rtol=1e-2, atol=1e-2)


def test_thread_count_does_not_change_a_bit() -> None:
    a, b = operands((E4M3, E4M3), (70, 256, 50), "gaussian", seed=3)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(exact_matmul(a, b, HOPPER.accumulator(Operand.FP8), (E4M3, E4M3)))
    finally:
        torch.set_num_threads(before)
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    a, b = operands((E4M3, E4M3), (64, 64, 64), "gaussian", seed=3)
    accumulator = HOPPER.accumulator(Operand.FP8)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        want = exact_matmul(a, b, accumulator, (E4M3, E4M3), engine=Engine.COMPILED)
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a deadlock ends the child, and the test fails
            same = same_bits(want, exact_matmul(a, b, accumulator, (E4M3, E4M3), engine=Engine.COMPILED))
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


@settings(max_examples=30, deadline=None)
@given(
    shift=st.integers(-3, 3),
    seed=st.integers(0, 2**16),
    width=st.sampled_from([(13, 13), (23, 23), (25, 23)]),
)
def test_scaling_by_a_power_of_two_scales_the_result(shift: int, seed: int, width: tuple[int, int]) -> None:
    accumulator = Accumulator(width[0], 32, -133, width[1])
    a, b = operands((FP16, FP16), (5, 64, 6), "gaussian", seed)
    got = exact_matmul(a * 2.0**shift, b, accumulator, (FP16, FP16))
    assert same_bits(got, exact_matmul(a, b, accumulator, (FP16, FP16)) * 2.0**shift)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), terms=st.sampled_from([8, 16, 32]))
def test_order_within_a_chunk_does_not_matter(seed: int, terms: int) -> None:
    accumulator = Accumulator(13, terms, -133, 13)
    a, b = operands((E4M3, E4M3), (4, 64, 5), "gaussian", seed)
    order = torch.cat([torch.randperm(terms) + start for start in range(0, 64, terms)])
    first = exact_matmul(a, b, accumulator, (E4M3, E4M3))
    assert same_bits(first, exact_matmul(a[:, order], b[order], accumulator, (E4M3, E4M3)))


def test_truncation_is_one_sided_and_widening_helps() -> None:
    a, b = torch.rand(16, 2048), torch.rand(2048, 16)
    a, b = casts.round_to(a, E4M3), casts.round_to(b, E4M3)
    true = a.double() @ b.double()
    worst = []
    for bits in (10, 13, 16, 20):
        got = exact_matmul(a, b, Accumulator(bits, 32, -133, bits), (E4M3, E4M3)).double()
        assert bool((got <= true).all())
        worst.append(float(((true - got) / true).max()))
    assert worst == sorted(worst, reverse=True)
    assert worst[0] > 8 * worst[-1]


def test_settings_out_of_range_are_refused() -> None:
    good = HOPPER.accumulators[Operand.FP8]
    with pytest.raises(ValueError, match="fraction_bits"):
        replace(good, fraction_bits=26)
    with pytest.raises(ValueError, match="multiple of terms"):
        good.promoted_every(100)
    with pytest.raises(ValueError, match="register_bits"):
        replace(good, register_bits=24)


@needs_compiler
def test_flushed_subnormals_of_the_caller_do_not_matter() -> None:
    a, b = operands((BF16, BF16), (8, 64, 40), "gaussian", seed=9)
    a = a * 2.0**-120
    b = b * 2.0**-12
    accumulator = HOPPER.accumulators[Operand.BF16]
    plain = exact_matmul(a, b, accumulator, (BF16, BF16), engine=Engine.COMPILED)
    assert bool(((plain.abs() < 2.0**-126) & (plain != 0)).any())
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals")
    try:
        flushed = exact_matmul(a, b, accumulator, (BF16, BF16), engine=Engine.COMPILED)
        bits = flushed.view(torch.int32).clone()
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(bits, plain.view(torch.int32))


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.TORCH])
def test_batches_and_strides(engine: Engine) -> None:
    accumulator = HOPPER.accumulator(Operand.FP8)
    a = casts.round_to(torch.randn(40, 3, 7), E4M3).permute(1, 2, 0)
    b = casts.round_to(torch.randn(3, 33, 40), E4M3).transpose(1, 2)
    start = torch.randn(3, 7, 33)
    got = exact_matmul(a, b, accumulator, (E4M3, E4M3), start=start, engine=engine)
    for index in range(3):
        one = exact_matmul(
            a[index].contiguous(), b[index].contiguous(), accumulator, (E4M3, E4M3), start=start[index]
        )
        assert same_bits(got[index], one)
    spread = exact_matmul(a[:1].expand(3, -1, -1), b, accumulator, (E4M3, E4M3), engine=engine)
    assert same_bits(spread[2], exact_matmul(a[0], b[2], accumulator, (E4M3, E4M3)))
