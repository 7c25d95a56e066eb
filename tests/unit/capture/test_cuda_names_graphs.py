"""CUDA graphs: kernels without host cost at replay, and static inputs that count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.session import Session
from windtunnel.program import marks
from windtunnel.specs.catalogue import chip


@pytest.fixture(params=["shadow", "values"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(chip("h100-sxm"), request.param) as active, CudaNames(active):
        yield active


def test_static_inputs_written_before_a_replay_count(session: Session) -> None:
    positions = torch.zeros(4, dtype=torch.int64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        following = (positions + 1) * 2
    positions.fill_(5)
    graph.replay()
    assert following.tolist() == [12] * 4
    positions.copy_(torch.arange(4))
    graph.replay()
    assert following.tolist() == [2, 4, 6, 8]


def test_a_replay_records_the_captured_kernels_between_two_marks(session: Session) -> None:
    x = torch.ones(8, 8, device="cuda")
    graph = torch.cuda.CUDAGraph()
    assert not torch.cuda.is_current_stream_capturing()
    with torch.cuda.graph(graph):
        assert torch.cuda.is_current_stream_capturing()
        y = x @ x
        z = y + y
    begin = len(session.recorder.events)
    graph.replay()
    names = [session.recorder.specs[e].name for e in session.recorder.events[begin:] if e >= 0]
    assert names[0] == marks.GRAPH_LAUNCH
    assert names[-1] == marks.GRAPH_END
    assert [name for name in names if name.startswith("aten.")] == ["aten.mm.default", "aten.add.Tensor"]
    assert z.shape == (8, 8)


def test_a_graph_costs_the_host_less_than_its_kernels_one_by_one(session: Session) -> None:
    x = torch.ones(8, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(200):
            x = x + 1
    torch.cuda.synchronize()
    begin = session.clock.now_s()
    graph.replay()
    replayed = session.clock.now_s() - begin
    begin = session.clock.now_s()
    for _ in range(200):
        x = x + 1
    assert replayed < 0.5 * (session.clock.now_s() - begin)


def test_replay_without_capture_raises(session: Session) -> None:
    with pytest.raises(RuntimeError, match="without a preceding successful capture"):
        torch.cuda.CUDAGraph().replay()
