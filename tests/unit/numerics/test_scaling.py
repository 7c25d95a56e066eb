"""Quantisers against plain loops over tiles that restate the public reference code, casts by ml_dtypes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from windtunnel.numerics import casts
from windtunnel.numerics.compiled import Engine
from windtunnel.numerics.formats import E2M1, E4M3, E5M2, FloatFormat
from windtunnel.numerics.scaling import (
    ACTIVATION,
    ROW,
    S5000_BLOCK,
    TE_BLOCK,
    TE_CURRENT,
    TENSOR,
    WEIGHT,
    DelayedScale,
    Quantised,
    ScaleRule,
    quantise,
    quantise_mx,
    quantise_nvfp4,
    quantise_with,
)

ml_dtypes = pytest.importorskip("ml_dtypes")
F32 = np.float32
CAST = {E4M3: ml_dtypes.float8_e4m3fn, E5M2: ml_dtypes.float8_e5m2, E2M1: ml_dtypes.float4_e2m1fn}


@np.errstate(all="ignore")
def loop_quantise(x: torch.Tensor, fmt: FloatFormat, tile: tuple[int, int], rule: ScaleRule) -> tuple:
    data = x.float().numpy()
    rows, columns = tile[0] or data.shape[0], tile[1] or data.shape[1]
    values = np.zeros_like(data)
    scales = []
    for i in range(0, data.shape[0], rows):
        line = []
        for j in range(0, data.shape[1], columns):
            block = data[i : i + rows, j : j + columns]
            amax = max(F32(np.abs(block).max()), F32(rule.floor))
            scale = F32(1) if amax == 0 else F32(fmt.max) / amax
            if np.isinf(scale):
                scale = np.finfo(F32).max
            if rule.power_of_two and amax != 0:
                scale = F32(2.0 ** (np.frexp(scale)[1] - 1))
            scaled = np.clip(block * scale, F32(-fmt.max), F32(fmt.max))
            values[i : i + rows, j : j + columns] = scaled.astype(CAST[fmt]).astype(F32)
            line.append(amax / F32(fmt.max) if rule.inverse_from_amax else F32(1) / scale)
        scales.append(line)
    return torch.from_numpy(values), torch.tensor(np.array(scales, dtype=F32))


def sample(kind: str, shape: tuple[int, int]) -> torch.Tensor:
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(shape, generator=draw)
    if kind == "zeros":
        x[: shape[0] // 2] = 0
    if kind == "tiny":
        x *= 1e-5
    if kind == "wide":
        x *= torch.exp(4 * torch.randn(shape, generator=draw))
    if kind == "subnormal":
        x *= 1e-38
    return x


@pytest.mark.parametrize("fmt", [E4M3, E5M2], ids=lambda fmt: fmt.name)
@pytest.mark.parametrize("rule", [TE_CURRENT, TE_BLOCK, S5000_BLOCK], ids=["te-current", "te-block", "s5000"])
@pytest.mark.parametrize("tile", [TENSOR, ROW, ACTIVATION, WEIGHT, (128, 1)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "zeros", "tiny", "wide", "subnormal"])
@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.TORCH])
def test_values_and_scales_bit_for_bit(
    fmt: FloatFormat, rule: ScaleRule, tile: tuple[int, int], kind: str, engine: Engine
) -> None:
    for shape in ((128, 256), (37, 200)):
        x = sample(kind, shape)
        got = quantise(x, fmt, tile, rule, engine=engine)
        values, scale = loop_quantise(x, fmt, tile, rule)
        assert torch.equal(got.scale, scale)
        assert torch.equal(got.values, values)


def test_the_two_block_recipes_differ() -> None:
    x = sample("wide", (64, 256))
    ours, theirs = quantise(x, E4M3, ACTIVATION, S5000_BLOCK), quantise(x, E4M3, ACTIVATION, TE_BLOCK)
    assert not torch.equal(ours.values, theirs.values)
    assert torch.equal(theirs.scale, casts.power_of_two_floor(theirs.scale))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype: torch.dtype) -> None:
    x = sample("plain", (33, 130)).to(dtype)
    assert torch.equal(quantise(x, E4M3, ACTIVATION).values, quantise(x.float(), E4M3, ACTIVATION).values)


@pytest.mark.parametrize("tile", [TENSOR, ROW, ACTIVATION, WEIGHT])
def test_empty(tile: tuple[int, int]) -> None:
    for shape in ((0, 128), (4, 0), (0, 0)):
        got = quantise(torch.empty(shape), E4M3, tile)
        assert got.values.shape == shape


@pytest.mark.parametrize("engine", [Engine.AUTO, Engine.TORCH])
@pytest.mark.parametrize("rule", [TE_CURRENT, S5000_BLOCK], ids=["te-current", "s5000"])
def test_nan_and_infinity_stay_in_their_tile(engine: Engine, rule: ScaleRule) -> None:
    x = torch.ones(4, 256)
    x[0, 3], x[1, 200] = torch.nan, torch.inf
    got = quantise(x, E4M3, ACTIVATION, rule, engine=engine)
    assert bool(quantise(x, E4M3, ACTIVATION, TE_BLOCK, engine=engine).values[0, :128].isnan().all())
    assert bool(got.values[0, :128].isnan().all())
    assert bool(got.values[1, 200].isnan())
    assert bool((got.values[1, 128:200] == 0).all())
    assert bool((got.values[2:] == 448).all())
    assert bool((got.values[0, 128:] == 448).all())


def test_dequantised_is_close() -> None:
    x = sample("plain", (130, 300))
    for tile in (ACTIVATION, WEIGHT):
        for rule in (TE_BLOCK, S5000_BLOCK):
            error = (quantise(x, E4M3, tile, rule).dequantised() - x).norm() / x.norm()
            assert 0.005 < float(error) < 0.04


def test_delayed_scaling_lags_and_saturates() -> None:
    scale = DelayedScale(E4M3, history=2)
    first = scale.quantise(torch.full((2, 2), 4.0))
    assert bool((first.values == 4).all())
    scale.step()
    assert float(scale.multiplier) == 448 / 4
    burst = scale.quantise(torch.full((2, 2), 8.0))
    assert bool((burst.values == 448).all())
    assert float(burst.dequantised()[0, 0]) == 4.0
    scale.step()
    assert float(scale.multiplier) == 448 / 8
    scale.step()
    scale.step()  # no finite history left: the multiplier stays
    assert float(scale.multiplier) == 448 / 8
    assert float(DelayedScale(E4M3, margin=1).multiplier) == 1.0


def test_quantise_with_a_given_multiplier() -> None:
    got = quantise_with(torch.tensor([[1.0, 1000.0]]), E5M2, torch.tensor(64.0))
    assert got.values.tolist() == [[64.0, 57344.0]]
    assert float(got.scale) == 1 / 64


@pytest.mark.parametrize("fmt", [E4M3, E5M2, E2M1], ids=lambda fmt: fmt.name)
def test_mx_scales_are_floor_or_ceiling_powers(fmt: FloatFormat) -> None:
    x = sample("wide", (8, 96))
    floor, ceiling = quantise_mx(x, fmt), quantise_mx(x, fmt, round_up=True)
    amax = x.reshape(8, 3, 32).abs().amax(-1).numpy().astype(np.float64)
    want_floor = 2.0 ** (np.floor(np.log2(amax)) - fmt.max_exponent)
    want_ceiling = 2.0 ** np.ceil(np.log2(amax / fmt.max))
    assert torch.equal(floor.scale.double(), torch.from_numpy(want_floor))
    assert torch.equal(ceiling.scale.double(), torch.from_numpy(want_ceiling))
    assert bool((ceiling.values.abs() <= fmt.max).all())
    scaled = (x.reshape(8, 3, 32) / floor.scale[:, :, None]).clamp(-fmt.max, fmt.max).reshape(8, 96)
    assert torch.equal(floor.values, torch.from_numpy(scaled.numpy().astype(CAST[fmt]).astype(F32)))


def test_mx_of_zeros_and_specials() -> None:
    x = torch.zeros(1, 64)
    x[0, 40] = torch.nan
    got = quantise_mx(x, E4M3)
    assert float(got.scale[0, 0]) == 2.0**-127
    assert bool((got.values[0, :32] == 0).all())
    assert bool(got.dequantised()[0, 32:].isnan().all())


def test_nvfp4_uses_both_levels() -> None:
    x = sample("plain", (32, 64)) * 1e-3
    got, whole = quantise_nvfp4(x)
    assert isinstance(got, Quantised)
    assert torch.equal(got.scale, casts.round_to(got.scale, E4M3))
    assert set(got.values.abs().unique().tolist()) <= {0, 0.5, 1, 1.5, 2, 3, 4, 6}
    error = (got.dequantised() * whole - x).norm() / x.norm()
    assert float(error) < 0.11
    zeros, one = quantise_nvfp4(torch.zeros(2, 16))
    assert bool((zeros.values == 0).all())
    assert float(one) == 1.0
