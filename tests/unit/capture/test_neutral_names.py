"""Code that names no vendor (``torch.accelerator``, ``torch.Stream``, ``torch.Event``), on two cards under --strict."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from windtunnel.capture import streams
from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.session import Session
from windtunnel.program import marks
from windtunnel.specs.catalogue import chip


@pytest.fixture(params=["mtt-s5000", "h100-sxm"])
def strict(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(chip(request.param), strict=True) as session, CudaNames(session):
        yield session


def test_events_time_what_lies_between_them(strict: Session) -> None:
    device = torch.accelerator.current_accelerator()
    start, end = torch.Event(enable_timing=True), torch.Event(enable_timing=True)
    x = torch.randn(512, 512, device=device)
    start.record()
    for _ in range(10):
        x = x @ x
    end.record()
    end.synchronize()
    few = start.elapsed_time(end)
    start.record()
    for _ in range(1000):
        x = x @ x
    end.record()
    assert 0 < few < start.elapsed_time(end)


def test_streams_carry_the_work_issued_inside(strict: Session) -> None:
    x = torch.ones(8, device=torch.accelerator.current_accelerator())
    stream = torch.Stream()
    assert isinstance(stream, torch.Stream)
    assert isinstance(streams.default(), torch.Stream)
    with stream:
        x.add_(1)
    torch.accelerator.current_stream().wait_stream(stream)
    program = strict.program()
    added = [
        program.site(e)
        for e in program.events
        if e >= 0 and program.specs[program.site(e).spec].name == "aten.add_.Tensor"
    ]
    assert [site.stream for site in added] == [1]


def test_streams_of_other_devices_stay_pytorchs(strict: Session) -> None:
    assert torch.Stream("cpu").device.type == "cpu"
    assert not isinstance(3, torch.Event)


@pytest.mark.skipif(not hasattr(torch.accelerator, "Graph"), reason="torch.accelerator.Graph came with 2.13")
def test_graphs_replay_as_one_launch(strict: Session) -> None:
    counter = torch.zeros(4, dtype=torch.int64, device=torch.accelerator.current_accelerator())
    graph = torch.accelerator.Graph()
    with torch.Stream(), graph:
        counter += 1
    graph.replay()
    graph.replay()
    launches = [s for s in strict.recorder.specs if s.name == marks.GRAPH_LAUNCH]
    assert launches
    assert counter.tolist() == [2] * 4


def test_the_device_index_comes_back_and_dtypes_are_the_chips(strict: Session) -> None:
    before = torch.accelerator.current_device_index()
    with torch.accelerator.device_index(0):
        pass
    assert torch.accelerator.current_device_index() == before
    dtypes = torch.accelerator.get_device_capability()["supported_dtypes"]
    assert {torch.bfloat16, torch.float8_e4m3fn, torch.int64} <= dtypes
