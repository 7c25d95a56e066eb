"""DeepGEMM's FP8 products on virtual kernels. Each writes its result into the last argument."""

from __future__ import annotations

import torch

from windtunnel.capture.virtual_ops import matmul as ops

__version__ = "2.1.0"

Scaled = tuple[torch.Tensor, torch.Tensor]


def _check(a: torch.Tensor, b: torch.Tensor) -> None:
    if a.dtype is not torch.float8_e4m3fn or b.dtype is not torch.float8_e4m3fn:
        raise AssertionError("both operands must be float8_e4m3fn")


def fp8_gemm_nt(lhs: Scaled, rhs: Scaled, out: torch.Tensor) -> None:
    """out (m, n) = lhs (m, k) × rhs (n, k) transposed, with 1×128 and 128×128 scales."""
    _check(lhs[0], rhs[0])
    out.copy_(ops.block_scaled_gemm(lhs[0], rhs[0], lhs[1], rhs[1], ops.BLOCK))


gemm_fp8_fp8_bf16_nt = fp8_gemm_nt


def m_grouped_fp8_gemm_nt_contiguous(
    lhs: Scaled, rhs: Scaled, out: torch.Tensor, m_indices: torch.Tensor
) -> None:
    """Rows of lhs belong to the expert that ``m_indices`` names, in ascending order."""
    _check(lhs[0], rhs[0])
    experts = rhs[0].shape[0]
    counts = torch.bincount(m_indices.long(), minlength=experts).tolist()
    out.copy_(ops.scaled_grouped_gemm(lhs[0], rhs[0], lhs[1], rhs[1], counts))


m_grouped_gemm_fp8_fp8_bf16_nt_contiguous = m_grouped_fp8_gemm_nt_contiguous
