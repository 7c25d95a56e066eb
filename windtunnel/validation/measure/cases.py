"""Kernels to be measured: each case is a row of a table and the work that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from windtunnel.capture.tensor import VirtualTensor
from windtunnel.validation.measure.timer import Work

Row = dict[str, str]

TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "tf32": torch.float32}


@dataclass(frozen=True, slots=True)
class Case:
    """One row to be measured. ``make`` prepares the tensors and answers the work; ``nbytes``: what they take."""

    table: str
    row: Row
    target: str
    make: Callable[[], Work]
    nbytes: float
    tf32: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Which shapes. ``full`` takes some minutes on a data-centre card, ``quick`` seconds on anything."""

    full: bool

    def pick(self, quick: tuple[int, ...], full: tuple[int, ...]) -> tuple[int, ...]:
        """One of two lists."""
        return full if self.full else quick


def kernel_cases(families: set[str], grid: Grid, gpu: str, device: torch.device) -> Iterator[Case]:
    """The cases of the families asked for, in a fixed order."""
    makers = {"gemm": _gemm, "attention": _attention, "ops": _ops}
    for name, maker in makers.items():
        if name in families:
            yield from maker(grid, gpu, device)


def _gemm(grid: Grid, gpu: str, device: torch.device) -> Iterator[Case]:
    sides = ((1024, 1024), (2048, 512)) if not grid.full else (
        (4096, 4096), (4096, 14336), (14336, 4096), (8192, 8192), (6144, 4096), (7168, 2048), (2048, 7168),
    )  # fmt: skip
    tokens = grid.pick((16, 512), (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384))
    virtual = isinstance(
        torch.empty((), device=device), VirtualTensor
    )  # prices FP32 products one way in a run
    for dtype in ("bf16", "fp16", "fp8", *(() if virtual else ("tf32",)), "fp32"):
        for n, k in sides:
            for m in tokens:
                width = {"fp8": 1, "bf16": 2, "fp16": 2}.get(dtype, 4)
                if dtype == "fp8" and m % 16:  # the scaled product takes whole tiles only
                    continue
                row = {
                    "gpu_system": gpu, "library": "torch", "library_version": torch.__version__,
                    "kernel_source": "torch", "dtype": dtype, "m": str(m), "n": str(n), "k": str(k),
                }  # fmt: skip
                make = _make_product(m, n, k, dtype, device)
                nbytes = width * (m * k + n * k) + 2 * m * n
                yield Case("kernel_aic_gemm", row, "latency_seconds", make, nbytes, dtype == "tf32")


def _make_product(m: int, n: int, k: int, dtype: str, device: torch.device) -> Callable[[], Work]:
    def make() -> Work:
        if dtype != "fp8":
            kind = TORCH_DTYPES[dtype]
            a, b = torch.randn(m, k, device=device, dtype=kind), torch.randn(k, n, device=device, dtype=kind)
            return lambda: a @ b
        e4m3 = torch.float8_e4m3fn
        left = torch.randn(m, k, device=device, dtype=torch.bfloat16).to(e4m3)
        right = torch.randn(n, k, device=device, dtype=torch.bfloat16).to(e4m3).t()
        one = torch.ones((), device=device)
        product = torch._scaled_mm
        return lambda: product(left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    return make


def _attention(grid: Grid, gpu: str, device: torch.device) -> Iterator[Case]:
    shapes = ((8, 2, 64),) if not grid.full else ((32, 8, 128), (64, 8, 128), (16, 16, 64), (40, 8, 128))
    for heads, kv_heads, dim in shapes:
        for length in grid.pick((256,), (512, 1024, 2048, 4096, 8192, 16384)):
            batch = max(1, (16384 if grid.full else 512) // length)
            for phase in ("forward", "forward+backward"):
                row = {
                    "gpu": gpu, "implementation": "PyTorch SDPA", "phase": phase, "dtype": "bf16",
                    "causal": "True", "batch_size": str(batch), "sequence_length_tokens": str(length),
                    "query_heads": str(heads), "kv_heads": str(kv_heads), "head_dim": str(dim),
                }  # fmt: skip
                sizes = (batch, heads, kv_heads, length, dim)
                make = _make_attention(*sizes, phase != "forward", device)
                yield Case(
                    "kernel_flash_attention", row, "latency_seconds", make, 8.0 * batch * heads * length * dim
                )
        for batch in grid.pick((4,), (1, 8, 32, 128)):
            for length in grid.pick((512,), (1024, 4096, 16384)):
                row = {
                    "gpu_system": gpu, "library": "torch", "kernel_source": "torch", "attn_dtype": "bf16",
                    "kv_cache_dtype": "bf16", "batch_size": str(batch), "isl": str(length), "step": "0",
                    "num_heads": str(heads), "num_key_value_heads": str(kv_heads), "head_dim": str(dim),
                }  # fmt: skip
                make = _make_decode(batch, heads, kv_heads, length, dim, device)
                nbytes = 4.0 * batch * kv_heads * length * dim
                yield Case("kernel_aic_generation_attention", row, "latency_seconds", make, nbytes)


def _heads(batch: int, heads: int, length: int, dim: int, device: torch.device) -> torch.Tensor:
    return torch.randn(batch, heads, length, dim, device=device, dtype=torch.bfloat16)


def _make_attention(
    batch: int, heads: int, kv_heads: int, length: int, dim: int, backward: bool, device: torch.device
) -> Callable[[], Work]:
    def make() -> Work:
        q = _heads(batch, heads, length, dim, device).requires_grad_(backward)
        k = _heads(batch, kv_heads, length, dim, device).requires_grad_(backward)
        v = _heads(batch, kv_heads, length, dim, device).requires_grad_(backward)
        grad = _heads(batch, heads, length, dim, device)

        def run() -> object:
            out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return torch.autograd.grad(out, (q, k, v), grad) if backward else out

        return run

    return make


def _make_decode(
    batch: int, heads: int, kv_heads: int, length: int, dim: int, device: torch.device
) -> Callable[[], Work]:
    def make() -> Work:
        q = _heads(batch, heads, 1, dim, device)
        k, v = (_heads(batch, kv_heads, length, dim, device) for _ in range(2))
        return lambda: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    return make


def _ops(grid: Grid, gpu: str, device: torch.device) -> Iterator[Case]:
    from windtunnel.validation.measure.torch_work import make_op

    rows, columns = grid.pick((1024,), (1024, 8192, 65536)), grid.pick((512,), (1024, 4096, 8192))
    elements = grid.pick((1 << 20,), (1 << 20, 1 << 24, 1 << 27))
    sizes: list[tuple[str, str, dict[str, int]]] = []
    for name in ("layer_norm", "softmax", "sum"):
        sizes += [(name, "bf16", {"rows": r, "columns": c}) for r in rows for c in columns]
    sizes += [
        ("embedding", "bf16", {"rows": r, "columns": c, "entries": 32768}) for r in rows for c in columns
    ]
    for name in ("silu", "add", "copy"):
        sizes += [(name, dtype, {"elements": e}) for dtype in ("bf16", "fp32") for e in elements]
    sizes += [("adamw", "fp32", {"elements": e}) for e in elements]
    for tokens in grid.pick((256,), (1024, 8192, 65536)):
        n, k = (256, 512) if not grid.full else (2048, 4096)
        sizes.append(("grouped_mm", "bf16", {"tokens": tokens, "n": n, "k": k, "experts": 8}))
    for name, dtype, dims in sizes:
        row = {
            "gpu": gpu, "op": name, "dtype": dtype, "torch_version": torch.__version__,
            **{size: str(dims.get(size, "")) for size in _SIZES},
        }  # fmt: skip
        nbytes = 4.0 * max(dims.get("elements", 0), dims.get("rows", 0) * dims.get("columns", 0))
        yield Case("kernel_torch_ops", row, "latency_seconds", make_op(name, dims, dtype, device), nbytes)


_SIZES = ("rows", "columns", "entries", "elements", "tokens", "n", "k", "experts")
