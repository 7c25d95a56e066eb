"""Works of round sizes for tests of cost models."""

from __future__ import annotations

from windtunnel.program.work import Family, Work


def gemm(m: int, n: int, k: int, precision: str = "bf16") -> Work:
    return Work(
        family=Family.GEMM,
        flops=2.0 * m * n * k,
        bytes_read=2.0 * (m * k + n * k),
        bytes_written=2.0 * m * n,
        precision=precision,
        dims=(("m", m), ("n", n), ("k", k), ("batch", 1)),
    )


def grouped(tokens: int, experts: int, active: int, n: int = 2048, k: int = 4096) -> Work:
    return Work(
        family=Family.GROUPED_GEMM,
        flops=2.0 * tokens * n * k,
        bytes_read=2.0 * (tokens * k + experts * n * k),
        bytes_written=2.0 * tokens * n,
        precision="bf16",
        dims=(("tokens", tokens), ("n", n), ("k", k), ("experts", experts), ("active", active)),
    )


def prefill(
    batch: int, length: int, *, causal: bool, family: Family = Family.ATTENTION, variant: str = "flash"
) -> Work:
    heads, dim = 32, 128
    products = 2.5 if family is Family.ATTENTION_BACKWARD else 1.0
    return Work(
        family=family,
        flops=4.0 * batch * heads * length * length * dim * products,
        bytes_read=6.0 * batch * length * heads * dim,
        bytes_written=2.0 * batch * length * heads * dim,
        precision="bf16",
        variant=variant,
        dims=(
            ("batch", batch), ("heads", heads), ("kv_heads", heads), ("q_len", length), ("kv_len", length),
            ("qk_dim", dim), ("v_dim", dim), ("causal", float(causal)), ("window", 0),
        ),
    )  # fmt: skip


def decode(batch: int, kv_len: int) -> Work:
    return Work(
        family=Family.DECODE_ATTENTION,
        bytes_read=batch * kv_len * 4096.0,
        bytes_written=8192.0 * batch,
        precision="bf16",
        dims=(
            ("batch", batch), ("heads", 32), ("kv_heads", 8), ("q_len", 1), ("kv_len", kv_len),
            ("qk_dim", 128), ("v_dim", 128), ("kv_bytes_per_token", 4096),
        ),
    )  # fmt: skip


def streamed(family: Family, nbytes: float) -> Work:
    return Work(family=family, bytes_read=nbytes / 2, bytes_written=nbytes / 2, precision="bf16")


def rows_of(family: Family, rows: int, columns: int) -> Work:
    moved = 2.0 * rows * columns
    return Work(
        family=family,
        bytes_read=moved,
        bytes_written=moved,
        precision="bf16",
        dims=(("rows", rows), ("columns", columns)),
    )
