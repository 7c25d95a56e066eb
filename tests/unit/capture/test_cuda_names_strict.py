"""``--strict`` refuses the first CUDA name; removing the redirections leaves PyTorch as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.cuda_names.pretence import library_code
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip


@pytest.fixture
def strict() -> Iterator[Session]:
    with Session(chip("mtt-s5000"), strict=True) as session, CudaNames(session):
        yield session


REFUSED: dict[str, Callable[[], object]] = {
    "is_available": lambda: torch.cuda.is_available(),
    "device_count": lambda: torch.cuda.device_count(),
    "synchronize": lambda: torch.cuda.synchronize(),
    "memory": lambda: torch.cuda.max_memory_allocated(),
    "stream": lambda: torch.cuda.Stream(),
    "event": lambda: torch.cuda.Event(),
    "factory": lambda: torch.zeros(2, device="cuda"),
    "to": lambda: torch.zeros(2).to("cuda:0"),
    "cuda": lambda: torch.zeros(2).cuda(),
    "module": lambda: nn.Linear(2, 2).cuda(),
    "generator": lambda: torch.Generator("cuda"),
    "autocast": lambda: torch.autocast("cuda"),
    "scaler": lambda: torch.amp.GradScaler("cuda"),
    "is_cuda": lambda: torch.zeros(2, device="musa").is_cuda,
    "typed": lambda: torch.cuda.FloatTensor(2),
    "nvtx": lambda: torch.cuda.nvtx.range_push("x"),
    "cudnn": lambda: torch.backends.cudnn.version(),
    "graph": lambda: torch.cuda.graph(torch.cuda.CUDAGraph()),
    "default device": lambda: torch.set_default_device("cuda"),
}


@pytest.mark.parametrize("use", REFUSED.values(), ids=REFUSED)
def test_a_cuda_name_is_refused_with_its_line(strict: Session, use: Callable[[], object]) -> None:
    with pytest.raises(WindtunnelError) as raised:
        use()
    assert raised.value.code == "E410"
    assert "test_cuda_names_strict.py:" in str(raised.value.values["line"])


def test_the_cards_own_names_are_not_refused(strict: Session) -> None:
    x = torch.ones(2, device="musa")
    assert x.device == torch.device("musa:0")
    with torch.autocast("musa", dtype=torch.bfloat16):
        assert (x[None] @ x[:, None]).dtype is torch.bfloat16
    torch.accelerator.synchronize()
    torch.musa.synchronize()  # type: ignore[attr-defined]


def test_libraries_find_no_cuda(strict: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    library_code.cache_clear()
    monkeypatch.setattr("windtunnel.capture.cuda_names.pretence._LIBRARIES", (__file__,))
    try:
        assert torch.cuda.is_available() is False
        assert torch.cuda.device_count() == 0
        torch.cuda.manual_seed_all(1)
        torch.cuda.empty_cache()
    finally:
        library_code.cache_clear()


@pytest.mark.parametrize("name", ["mtt-s5000", "h100-sxm"])
def test_sensors_are_refused_on_every_card(name: str) -> None:
    with (
        Session(chip(name), strict=True) as session,
        CudaNames(session),
        pytest.raises(WindtunnelError, match="no true answer") as raised,
    ):
        torch.cuda.power_draw()
    assert raised.value.code == "E411"


def test_cuda_names_are_an_nvidia_cards_own() -> None:
    with Session(chip("h100-sxm"), strict=True) as session, CudaNames(session):
        assert torch.cuda.is_available()
        assert torch.ones(2, device="cuda").is_cuda


def test_removing_restores_every_name() -> None:
    owners = (
        torch,
        torch.cuda,
        torch.cuda.memory,
        torch.cuda.random,
        torch.cuda.graphs,
        torch.cuda.nvtx,
        torch.backends.cuda,
        torch.Tensor,
        torch.version,
        torch._C,
    )
    with Session(chip("mtt-s5000")) as session:
        before = [dict(vars(owner)) for owner in owners]
        with CudaNames(session):
            assert torch.cuda.is_available()
            torch.zeros(2, device="cuda")
        for owner, names in zip(owners, before):
            after = vars(owner)
            changed = {n for n in names.keys() & after.keys() if after[n] is not names[n]}
            # lazily made by PyTorch itself
            assert changed <= {"_dispatch_library"}, (owner, changed)
            assert names.keys() <= after.keys()
        assert not torch.cuda.is_available()
        assert torch.device("cuda").type == "cuda"
        with pytest.raises(NotImplementedError):
            torch.zeros(2, device="cuda")


def test_it_can_be_installed_again() -> None:
    for name in ("mtt-s5000", "h100-sxm", "mtt-s5000"):
        with Session(chip(name)) as session, CudaNames(session):
            assert torch.zeros(2, device="cuda").is_cuda
