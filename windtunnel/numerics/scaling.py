"""Scaling recipes: how a tensor of FP32, BF16 or FP16 becomes narrow values and the scales to undo it.

Every recipe ends in a ``Quantised``: values of the format in FP32, and the factor for each tile that a
matrix product multiplies back. The order of FP32 operations is that of the public reference code named at
each recipe, so that codes and scales agree bit for bit with it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.numerics import casts
from windtunnel.numerics.compiled import Engine, Quantiser, library
from windtunnel.numerics.formats import E2M1, E4M3, FloatFormat, Overflow


@dataclass(frozen=True, slots=True)
class Quantised:
    """A narrow tensor.

    Attributes:
        values: FP32 [M, K], values of ``fmt``.
        scale: FP32, one factor per tile: [ceil(M / rows), ceil(K / columns)]. values × scale ≈ the original.
        tile: rows and columns of a tile; 0 stands for the whole length.
    """

    values: Tensor
    scale: Tensor
    fmt: FloatFormat
    tile: tuple[int, int]

    def dequantised(self) -> Tensor:
        """FP32 [M, K]."""
        rows, columns = self.values.shape
        return self.values * expand_tiles(self.scale, self.tile, rows, columns)


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """How a tile's largest magnitude becomes its scale.

    Attributes:
        power_of_two: round the multiplier down to a power of two.
        floor: the largest magnitude counts as at least this.
        inverse_from_amax: the stored factor is amax / max, not the reciprocal of max / amax; the two
            differ in the last bit.
    """

    power_of_two: bool = False
    floor: float = 0.0
    inverse_from_amax: bool = False


# TransformerEngine tests/pytorch/references/quantize_scale_calc.py; Float8BlockScaling uses powers of two.
TE_CURRENT = ScaleRule()
TE_BLOCK = ScaleRule(power_of_two=True)
# MT-TransformerEngine tests of MTFP8BlockScaling: amax at least 1e-4, stored factor amax / max.
S5000_BLOCK = ScaleRule(floor=1e-4, inverse_from_amax=True)

ROW = (1, 0)
TENSOR = (0, 0)
ACTIVATION = (1, 128)
WEIGHT = (128, 128)


def quantise(
    x: Tensor,
    fmt: FloatFormat,
    tile: tuple[int, int],
    rule: ScaleRule = TE_CURRENT,
    *,
    engine: Engine = Engine.AUTO,
) -> Quantised:
    """Current scaling: every tile by its own largest magnitude.

    Args:
        x: [M, K], FP32, BF16 or FP16.
        tile: ``TENSOR``, ``ROW``, ``ACTIVATION`` (1×128), ``WEIGHT`` (128×128) or any other; ragged edges
            count as padded with zeros.

    Returns:
        values that saturate at the format's largest. A tile that holds NaN becomes NaN throughout, one
        that holds an infinity becomes NaN where it is infinite and zero elsewhere (its multiplier is 0), as
        the reference code has it.
    """
    kernel = library() if engine is not Engine.TORCH and fmt.has_nan and x.numel() else None
    if kernel is not None:
        return _by_kernel(kernel, x, fmt, tile, rule)
    multiplier, inverse = _scales(_tile_amax(x, tile), fmt, rule)
    return Quantised(_apply(x, multiplier, fmt, tile), inverse, fmt, tile)


def quantise_with(x: Tensor, fmt: FloatFormat, multiplier: Tensor) -> Quantised:
    """Quantise a whole tensor by a given multiplier (delayed scaling); what is too big saturates."""
    scale = multiplier.float().reshape(1, 1)
    return Quantised(_apply(x, scale, fmt, TENSOR), scale.reciprocal(), fmt, TENSOR)


class DelayedScale:
    """The multiplier of TransformerEngine's DelayedScaling: from the largest magnitudes of past steps."""

    def __init__(self, fmt: FloatFormat, history: int = 1024, margin: int = 0) -> None:
        self.fmt = fmt
        self.margin = margin
        self.multiplier = torch.ones(())
        self.amax_history = torch.zeros(history)

    def quantise(self, x: Tensor) -> Quantised:
        """Quantise by the present multiplier and remember this tensor's largest magnitude."""
        result = quantise_with(x, self.fmt, self.multiplier)
        if x.numel():
            self.amax_history[0] = torch.maximum(self.amax_history[0], x.abs().amax().float())
        return result

    def step(self) -> None:
        """End of a training step: new multiplier from the history, which then moves on by one.

        An amax of zero or not finite leaves the multiplier as it was.
        """
        amax = self.amax_history.amax()
        found = _divide(self.fmt.max, amax) / 2.0**self.margin
        usable = (amax > 0) & amax.isfinite()
        self.multiplier = torch.where(
            usable, found.clamp(max=torch.finfo(torch.float32).max), self.multiplier
        )
        self.amax_history = self.amax_history.roll(-1)
        self.amax_history[0] = 0.0


def quantise_mx(x: Tensor, fmt: FloatFormat, *, round_up: bool = False) -> Quantised:
    """OCP MX: blocks of 32 along K share a power of two, stored as E8M0.

    ``round_up`` False: the exponent of the block's largest magnitude less that of the format's largest
    number (OCP MX 1.0, section 6.3), which may saturate. True: the smallest power of two that does not
    (TransformerEngine's and torchao's RCEIL). A block of zeros has the smallest scale, 2^-127.
    """
    amax = _tile_amax(x, (1, 32))
    if round_up:
        ratio = amax / fmt.max
        fraction, exponent = torch.frexp(ratio)
        exponent = exponent - (fraction == 0.5).int()
    else:
        exponent = torch.frexp(amax).exponent - 1 - fmt.max_exponent
    exponent = torch.where(amax == 0, -127, exponent).clamp(-127, 127)
    scale = _power_of_two(exponent)
    scale = torch.where(amax.isfinite(), scale, torch.nan)
    return Quantised(_apply(x, _power_of_two(-exponent), fmt, (1, 32)), scale, fmt, (1, 32))


def quantise_nvfp4(x: Tensor) -> tuple[Quantised, Tensor]:
    """NVFP4: blocks of 16 of E2M1 with an E4M3 scale each, and one FP32 scale for the tensor.

    Returns:
        the quantised tensor, its ``scale`` holding E4M3 values, and the FP32 scale of the whole: the
        original ≈ values × scale × whole. The order of operations is TransformerEngine's NVFP4 reference.
    """
    whole_amax = x.abs().amax().float() if x.numel() else torch.zeros(())
    encode = _divide(E4M3.max * E2M1.max, whole_amax).clamp(max=torch.finfo(torch.float32).max)
    encode = torch.where(whole_amax == 0, 1.0, encode)
    amax = _tile_amax(x, (1, 16))
    block = casts.round_to(amax / E2M1.max * encode, E4M3)
    multiplier = torch.where(block == 0, 0.0, encode / block)
    return Quantised(_apply(x, multiplier, E2M1, (1, 16)), block, E2M1, (1, 16)), encode.reciprocal()


def swizzled(scale: Tensor) -> Tensor:
    """Scales [rows, blocks of K] in the order that cuBLAS reads: tiles of 128 rows by 4 blocks (1-D result).

    Within a tile, element (row, block) lies at 16 (row mod 32) + 4 (row / 32) + block (cuBLAS documentation,
    "1D block scaling factors layout").
    """
    padded = torch.nn.functional.pad(scale, (0, -scale.shape[1] % 4, 0, -scale.shape[0] % 128))
    tiles = padded.reshape(padded.shape[0] // 128, 4, 32, padded.shape[1] // 4, 4)
    return tiles.permute(0, 3, 2, 1, 4).reshape(-1)


def unswizzled(scale: Tensor, rows: int, depth: int, block: int = 32) -> Tensor:
    """Undo ``swizzled`` for an operand [rows, depth]: [rows, ceil(depth / block)]."""
    blocks = -(-depth // block)
    tiles = scale.reshape(-(-rows // 128), -(-blocks // 4), 32, 4, 4).permute(0, 3, 2, 1, 4)
    return tiles.reshape(-(-rows // 128) * 128, -(-blocks // 4) * 4)[:rows, :blocks]


def expand_tiles(scale: Tensor, tile: tuple[int, int], rows: int, columns: int) -> Tensor:
    """One factor per element (or broadcastable to it) from one factor per tile."""
    if tile[0] > 1:
        scale = scale.repeat_interleave(tile[0], dim=0)[:rows]
    if tile[1] > 1:
        scale = scale.repeat_interleave(tile[1], dim=1)[:, :columns]
    return scale


def _by_kernel(
    kernel: ctypes.CDLL, x: Tensor, fmt: FloatFormat, tile: tuple[int, int], rule: ScaleRule
) -> Quantised:
    data = x.detach().float().contiguous()
    rows, columns = data.shape
    size = (tile[0] or rows, tile[1] or columns)
    values = torch.empty_like(data)
    scale = torch.empty(-(-rows // size[0]), -(-columns // size[1]))
    quantiser = Quantiser(
        rows, columns, *size, fmt.max, 2.0**fmt.min_exponent, 1.5 * 2.0 ** (23 - fmt.mantissa_bits),
        rule.floor, rule.power_of_two, rule.inverse_from_amax,
    )  # fmt: skip
    if kernel.wt_quantise(ctypes.byref(quantiser), data.data_ptr(), values.data_ptr(), scale.data_ptr()):
        raise MemoryError
    return Quantised(values, scale, fmt, tile)


def _scales(amax: Tensor, fmt: FloatFormat, rule: ScaleRule) -> tuple[Tensor, Tensor]:
    amax = amax.clamp(min=rule.floor) if rule.floor else amax
    multiplier = _divide(fmt.max, amax).clamp(max=torch.finfo(torch.float32).max)
    if rule.power_of_two:
        multiplier = casts.power_of_two_floor(multiplier)
    multiplier = torch.where(amax == 0, 1.0, multiplier)
    return multiplier, amax / fmt.max if rule.inverse_from_amax else multiplier.reciprocal()


def _divide(number: float, x: Tensor) -> Tensor:
    # ``number / tensor`` multiplies by a reciprocal in PyTorch: two roundings.
    return torch.full_like(x, number).div_(x)


def _tile_amax(x: Tensor, tile: tuple[int, int]) -> Tensor:
    tiled = _tiled(x, tile)
    if x.numel():
        return tiled.abs().amax(dim=(1, 3)).float()
    # Nothing to look at; a scale for the whole length is there all the same.
    return torch.zeros(tiled.shape[0] if tile[0] else 1, tiled.shape[2] if tile[1] else 1)


def _apply(x: Tensor, multiplier: Tensor, fmt: FloatFormat, tile: tuple[int, int]) -> Tensor:
    tiled = _tiled(x, tile)
    scaled = tiled.float() * multiplier[:, None, :, None]
    padded = (tiled.shape[0] * tiled.shape[1], tiled.shape[2] * tiled.shape[3])
    whole = scaled.reshape(padded)[: x.shape[0], : x.shape[1]]
    return casts.round_to(whole, fmt, Overflow.SATURATE)


def _tiled(x: Tensor, tile: tuple[int, int]) -> Tensor:
    # [row tiles, rows of a tile, column tiles, columns of a tile]
    rows, columns = tile[0] or max(1, x.shape[0]), tile[1] or max(1, x.shape[1])
    padding = (0, -x.shape[1] % columns, 0, -x.shape[0] % rows)
    padded = torch.nn.functional.pad(x, padding) if any(padding) else x
    return padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)


def _power_of_two(exponent: Tensor) -> Tensor:
    # 2^-127 is subnormal in FP32, out of reach of a shifted exponent field.
    return torch.exp2(exponent.double()).float()
