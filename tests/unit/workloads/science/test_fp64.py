"""Double precision on the card: right to the last digits, and priced with what each chip has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from windtunnel.api import predict, record
from windtunnel.program.program import Program

N = 96


def matrix() -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(N, N, dtype=torch.float64, generator=draw)
    return a @ a.T + N * torch.eye(N, dtype=torch.float64)


WORK: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "product": lambda a: a @ a,
    "cholesky": torch.linalg.cholesky,
    "solve": lambda a: torch.linalg.solve(a, a[:, :3]),
    "triangular": lambda a: torch.linalg.solve_triangular(a.tril(), a[:, :3], upper=False),
    "eigenvalues": torch.linalg.eigvalsh,
    "singular values": torch.linalg.svdvals,
    "qr": lambda a: torch.linalg.qr(a).R.abs(),
    "determinant": lambda a: torch.linalg.slogdet(a)[1],
    "fft": lambda a: torch.fft.irfftn(torch.fft.rfftn(a).conj(), s=a.shape),
    "complex fft": lambda a: torch.fft.fft2(a).abs(),
    "scatter": lambda a: torch.zeros_like(a).index_add_(0, torch.arange(N, device=a.device) % 7, a),
    "scatter elements": lambda a: torch.zeros_like(a).scatter_add_(1, (a > 0).long(), a),
    "put": lambda a: torch.zeros_like(a).index_put_(
        (torch.arange(N, device=a.device) % 5,), a, accumulate=True
    ),
    "erfc": lambda a: torch.erfc(a / 100),
}


def on_card(call: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, Program]:
    with record("mtt-s5000", values=True) as session:
        found = call(matrix().to("cuda")).cpu()
        return found, session.program()


@pytest.mark.parametrize("name", WORK)
def test_values_are_those_of_the_cpu(name: str) -> None:
    found, program = on_card(WORK[name])
    expected = WORK[name](matrix())
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-12 * scale
    assert all(work.family.value != "unknown" for work in program.works)
    assert any(work.precision == "fp64" for work in program.works)


@pytest.mark.parametrize("name", ["product", "cholesky", "fft", "scatter", "erfc"])
def test_an_undisclosed_rate_shows_where_it_is_used(name: str) -> None:
    _, program = on_card(WORK[name])
    assert any("fp64" in fact for fact in predict(program, "mtt-s5000").assumptions)
    assert not any("fp64" in fact for fact in predict(program, "h100-sxm").assumptions)


def test_a_large_product_takes_as_long_as_the_peak_says() -> None:
    with record("h100-sxm") as session:
        a = torch.empty(8192, 8192, dtype=torch.float64, device="cuda")
        a @ a
        program = session.program()
    flops = 2.0 * 8192**3
    tensor_cores = predict(program, "h100-sxm").step_time_s.value
    assert flops / 66.9e12 < tensor_cores < 2.0 * flops / 66.9e12
    vector_units = predict(program, "mtt-s5000").step_time_s.value
    assert flops / 0.5e12 < vector_units < 2.0 * flops / 0.5e12
    gaming = predict(program, "rtx-4080").step_time_s.value
    assert gaming > flops / 0.76e12
