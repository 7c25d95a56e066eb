"""Values mode: products of half precision, FP8 and TF32 go through the chip's tensor-core arithmetic.

FP32 without TF32, FP64 and integers keep PyTorch's own CPU kernels, so that they equal the CPU bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from windtunnel.numerics.attention import AttentionResult, chip_attention, chip_attention_backward
from windtunnel.numerics.convolution import (
    ConvolutionShape,
    chip_convolution,
    chip_convolution_backward,
)
from windtunnel.numerics.grouped import chip_grouped_mm
from windtunnel.numerics.matmul import MathMode, chip_addmm, chip_matmul, default_mode
from windtunnel.numerics.profiles import NumericProfile, operand_of, profile_of
from windtunnel.numerics.scaled import chip_scaled_mm
from windtunnel.numerics.scaled_more import chip_scaled_grouped_mm, chip_scaled_mm_v2
from windtunnel.specs.schema import Chip, Vendor

if TYPE_CHECKING:
    from windtunnel.capture.state import State

aten = torch.ops.aten

_TF32_OVERRIDE = "TORCH_ALLOW_TF32_MUBLAS_OVERRIDE"


def default_tf32(chip: Chip) -> bool:
    """Whether FP32 products run in TF32 before the script says anything.

    On Moore Threads that depends on the adapter's version, which follows PyTorch's; the adapter reads the
    same environment variable.
    """
    if chip.vendor is Vendor.MOORE_THREADS and os.environ.get(_TF32_OVERRIDE) == "1":
        return "tf32" in chip.peak_flops
    return chip.tf32_by_default(torch.__version__)


class Arithmetic:
    """The chip's products, as replacements of CPU kernels. Arguments are CPU tensors with values."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.profile: NumericProfile = profile_of(state.chip)
        self._convolution_tf32 = default_mode(state.chip).tf32_convolution

    @property
    def mode(self) -> MathMode:
        """The switches as they stand now."""
        matmul = self.state.allow_tf32
        convolution = self._convolution_tf32 and self.state.chip.vendor is Vendor.NVIDIA
        return MathMode(tf32_matmul=matmul, tf32_convolution=convolution)

    def narrow(self, tensor: torch.Tensor, *, convolution: bool = False) -> bool:
        """Whether the chip multiplies this dtype on its tensor cores."""
        mode = self.mode
        tf32 = mode.tf32_convolution if convolution else mode.tf32_matmul
        return operand_of(tensor.dtype, tf32=tf32) is not None

    def kernels(self) -> dict[Any, Callable[..., Any]]:
        """Replacement by operator."""
        return {
            aten.mm.default: self._product(aten.mm.default),
            aten.bmm.default: self._product(aten.bmm.default),
            aten.addmm.default: self._sum(aten.addmm.default),
            aten.baddbmm.default: self._sum(aten.baddbmm.default),
            aten.convolution.default: self._convolution,
            aten.convolution_backward.default: self._convolution_backward,
            aten._grouped_mm.default: self._grouped,
            aten._scaled_mm.default: self._scaled,
            aten._scaled_mm_v2.default: self._scaled_v2,
            aten._scaled_grouped_mm.default: self._scaled_grouped,
        }

    def _product(self, original: Any) -> Callable[..., torch.Tensor]:
        def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            if not self.narrow(a):
                return original(a, b)  # type: ignore[no-any-return]
            return chip_matmul(a, b, profile=self.profile, mode=self.mode)

        return product

    def _sum(self, original: Any) -> Callable[..., torch.Tensor]:
        def product(
            addend: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
        ) -> torch.Tensor:
            if not self.narrow(a):
                return original(addend, a, b, beta=beta, alpha=alpha)  # type: ignore[no-any-return]
            return chip_addmm(
                addend,
                a,
                b,
                profile=self.profile,
                mode=self.mode,
                beta=float(beta),
                alpha=float(alpha),
            )

        return product

    def _convolution(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
    ) -> torch.Tensor:
        arguments = (stride, padding, dilation, transposed, output_padding, groups)
        if not self.narrow(x, convolution=True):
            return aten.convolution(x, weight, bias, *arguments)  # type: ignore[no-any-return]
        shape = _shape(x, *arguments)
        return chip_convolution(x, weight, bias, shape, profile=self.profile, mode=self.mode)

    def _convolution_backward(
        self,
        grad: torch.Tensor,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias_sizes: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
        output_mask: Any,
    ) -> Any:
        arguments = (stride, padding, dilation, transposed, output_padding, groups)
        if not self.narrow(x, convolution=True):
            return aten.convolution_backward(grad, x, weight, bias_sizes, *arguments, output_mask)
        shape = _shape(x, *arguments)
        found = chip_convolution_backward(grad, x, weight, shape, profile=self.profile, mode=self.mode)
        gradients = (found.input, found.weight, found.bias)
        return tuple(g if wanted else None for g, wanted in zip(gradients, output_mask, strict=True))

    def _grouped(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        offs: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        out = chip_grouped_mm(a, b, offs, profile=self.profile, mode=self.mode, out_dtype=out_dtype)
        return out if bias is None else out + bias

    def _scaled(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        scale_a: torch.Tensor,
        scale_b: torch.Tensor,
        bias: torch.Tensor | None = None,
        scale_result: torch.Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        use_fast_accum: bool = False,
    ) -> torch.Tensor:
        return chip_scaled_mm(
            a,
            b,
            scale_a,
            scale_b,
            profile=self.profile,
            bias=bias,
            scale_result=scale_result,
            out_dtype=out_dtype,
            use_fast_accum=use_fast_accum,
        )

    def _scaled_v2(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        scale_a: Any,
        recipe_a: Any,
        swizzle_a: Any,
        scale_b: Any,
        recipe_b: Any,
        swizzle_b: Any,
        bias: torch.Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        contraction_dim: Any = (),
        use_fast_accum: bool = False,
    ) -> torch.Tensor:
        return chip_scaled_mm_v2(
            a,
            b,
            scale_a,
            recipe_a,
            swizzle_a,
            scale_b,
            recipe_b,
            swizzle_b,
            profile=self.profile,
            bias=bias,
            out_dtype=out_dtype,
            use_fast_accum=use_fast_accum,
        )

    def _scaled_grouped(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        scale_a: torch.Tensor,
        scale_b: torch.Tensor,
        offs: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        scale_result: torch.Tensor | None = None,
        out_dtype: torch.dtype | None = None,
        use_fast_accum: bool = False,
    ) -> torch.Tensor:
        out = chip_scaled_grouped_mm(
            a,
            b,
            scale_a,
            scale_b,
            offs,
            profile=self.profile,
            out_dtype=out_dtype,
            use_fast_accum=use_fast_accum,
        )
        return out if bias is None else out + bias

    def attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float | None,
        keep: torch.Tensor | None,
        dropout: float,
    ) -> AttentionResult:
        """Fused attention; ``keep`` is the dropout mask, None without dropout."""
        return chip_attention(
            query,
            key,
            value,
            mask,
            profile=self.profile,
            mode=self.mode,
            is_causal=causal,
            scale=scale,
            enable_gqa=key.shape[-3] != query.shape[-3],
            keep=keep,
            dropout=dropout,
        )

    def attention_backward(
        self,
        grad: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        result: AttentionResult,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float | None,
        mask_gradient: bool,
        keep: torch.Tensor | None,
        dropout: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Its gradients; that of the mask where it is wanted."""
        found = chip_attention_backward(
            grad,
            query,
            key,
            value,
            result,
            mask,
            profile=self.profile,
            mode=self.mode,
            is_causal=causal,
            scale=scale,
            enable_gqa=key.shape[-3] != query.shape[-3],
            mask_gradient=mask_gradient,
            keep=keep,
            dropout=dropout,
        )
        return found.query, found.key, found.value, found.mask


def _shape(
    x: torch.Tensor,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> ConvolutionShape:
    def each(values: Any) -> list[int]:
        items = list(values)
        return items * (x.dim() - 2) if len(items) == 1 else items

    return ConvolutionShape(
        each(stride), each(padding), each(dilation), bool(transposed), each(output_padding), int(groups)
    )
