"""Block-scaled products of Blackwell: FP4 and MXFP8 against mmasim, and the definition."""

from __future__ import annotations

import warnings

import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.numerics import casts
from windtunnel.numerics.exact import exact_matmul
from windtunnel.numerics.formats import E2M1, E4M3
from windtunnel.numerics.fp4 import chip_fp4_mm, fp4_exact
from windtunnel.numerics.profiles import BLACKWELL, HOPPER, S5000, Operand
from windtunnel.numerics.scaling import (
    ACTIVATION,
    Quantised,
    expand_tiles,
    quantise,
    quantise_mx,
    quantise_nvfp4,
)

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmasim.nv_ptx as nv
except Exception:  # it builds an extension when imported
    nv = None
needs_mmasim = pytest.mark.skipif(nv is None, reason="mmasim cannot be loaded")
ROWS, DEPTH = 128, 256


def tensors(kind: str, block: int, seed: int) -> Quantised:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (ROWS, DEPTH), generator=draw).to(torch.uint8)
    if kind == "sparse":
        codes[torch.rand(ROWS, DEPTH, generator=draw) < 0.9] = 0
        codes[:, 64:128] = 0
    shape = (ROWS, DEPTH // block)
    if block == 16:
        scale = casts.decode(torch.randint(0, 127, shape, generator=draw).to(torch.uint8), E4M3)
    else:
        low, high = (-60, 60) if kind == "wide" else (-4, 5)
        scale = torch.exp2(torch.randint(low, high, shape, generator=draw).float())
    return Quantised(casts.decode(codes, E2M1), scale, E2M1, (1, block))


def packed(x: Quantised) -> torch.Tensor:
    codes = casts.encode(x.values, E2M1)
    return codes[:, ::2] << 4 | codes[:, 1::2]


@needs_mmasim
@pytest.mark.parametrize("kind", ["any", "sparse", "wide"])
@pytest.mark.parametrize(
    ("block", "name"),
    [
        (16, "kind::mxf4nvf4.block16.f32.e2m1.e2m1.ue4m3"),
        (32, "kind::mxf4.block32.f32.e2m1.e2m1.ue8m0"),
    ],
)
def test_fp4_equals_mmasim(kind: str, block: int, name: str) -> None:
    a, b = tensors(kind, block, 1), tensors(kind, block, 2)
    operation = nv.TCGen05MMABlockScale("Blackwell", f"m128n{ROWS}k64.{name}")
    kind_of_scale = torch.float8_e4m3fn if block == 16 else torch.float8_e8m0fnu
    start = torch.randn(ROWS, ROWS, generator=torch.Generator().manual_seed(3))
    want = start
    for k in range(0, DEPTH, 64):
        blocks = slice(k // block, (k + 64) // block)
        want = operation(
            packed(a)[:, k // 2 : (k + 64) // 2],
            packed(b)[:, k // 2 : (k + 64) // 2].t(),
            want,
            a.scale[:, blocks].to(kind_of_scale),
            b.scale[:, blocks].t().to(kind_of_scale),
        )
    got = fp4_exact(a, b, BLACKWELL.fp4, start)
    assert torch.equal(got.view(torch.int32), want.view(torch.int32))


@needs_mmasim
@pytest.mark.parametrize("spread", [4, 60])
def test_mxfp8_equals_mmasim(spread: int) -> None:
    draw = torch.Generator().manual_seed(4)
    a, b = (casts.round_to(torch.randn(ROWS, DEPTH, generator=draw) * 8, E4M3) for _ in range(2))
    scales = [torch.exp2(torch.randint(-spread, spread, (ROWS, 8), generator=draw).float()) for _ in range(2)]
    operation = nv.TCGen05MMABlockScale(
        "Blackwell", f"m128n{ROWS}k32.kind::mxf8f6f4.block32.f32.e4m3.e4m3.ue8m0"
    )
    want = torch.zeros(ROWS, ROWS)
    for k in range(8):
        part = slice(32 * k, 32 * k + 32)
        want = operation(
            a[:, part].to(torch.float8_e4m3fn),
            b[:, part].t().to(torch.float8_e4m3fn),
            want,
            scales[0][:, k : k + 1].to(torch.float8_e8m0fnu),
            scales[1][:, k : k + 1].t().to(torch.float8_e8m0fnu),
        )
    factors = [expand_tiles(scale, (1, 32), ROWS, DEPTH) for scale in scales]
    accumulator = BLACKWELL.accumulators[Operand.FP8]
    got = exact_matmul(a, b.t(), accumulator, (E4M3, E4M3), block_scales=(factors[0], factors[1].t()))
    assert torch.equal(got.view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("profile", [BLACKWELL, BLACKWELL.idealised()], ids=["exact", "ideal"])
def test_products_are_close_to_the_dequantised_ones(profile) -> None:
    draw = torch.Generator().manual_seed(5)
    x, w = torch.randn(20, 200, generator=draw), torch.randn(30, 200, generator=draw)
    (a, whole_a), (b, whole_b) = quantise_nvfp4(x), quantise_nvfp4(w)
    got = chip_fp4_mm(a, b, profile=profile, whole=whole_a * whole_b, out_dtype=torch.float32)
    want = (a.dequantised().double() @ b.dequantised().double().t()) * float(whole_a * whole_b)
    assert torch.allclose(got.double(), want, rtol=1e-5, atol=1e-4)
    assert float((got - x @ w.t()).norm() / (x @ w.t()).norm()) < 0.2
    mx = [quantise_mx(tensor, E2M1) for tensor in (x, w)]
    got = chip_fp4_mm(*mx, profile=profile, out_dtype=torch.float32)
    assert torch.allclose(got, mx[0].dequantised() @ mx[1].dequantised().t(), rtol=1e-5, atol=1e-4)


def test_refusals() -> None:
    good, _ = quantise_nvfp4(torch.ones(4, 64))
    longer, _ = quantise_nvfp4(torch.ones(4, 80))
    other = quantise(torch.ones(4, 64), E4M3, ACTIVATION)
    for code, a, b, profile in (
        ("E702", good, good, S5000),
        ("E702", good, good, HOPPER),
        ("E704", good, longer, BLACKWELL),
        ("E707", good, other, BLACKWELL),
        ("E707", good, quantise_mx(torch.ones(4, 64), E2M1), BLACKWELL),
    ):
        with pytest.raises(WindtunnelError) as caught:
            chip_fp4_mm(a, b, profile=profile)
        assert caught.value.code == code
