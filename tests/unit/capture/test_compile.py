"""`torch.compile`: one graph, fused kernels, same values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from windtunnel.capture import fusion
from windtunnel.capture.session import Session
from windtunnel.program import marks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(32)
        self.up, self.gate, self.down = nn.Linear(32, 64), nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        return x + self.down(functional.silu(self.gate(h)) * self.up(h))


def ops(session: Session, begin: int) -> list[str]:
    events = session.recorder.events[begin:]
    return [session.recorder.specs[event].name for event in events if event >= 0]


def test_compiled_values_equal_eager_ones(values: Session) -> None:
    torch.manual_seed(0)
    model = Mlp().to("musa")
    x = torch.randn(8, 32, device="musa", requires_grad=True)
    expected = model(x)
    expected.sum().backward()
    gradient = model.up.weight.grad
    assert gradient is not None
    gradient = gradient.clone()
    model.zero_grad()
    torch._dynamo.reset()
    out = torch.compile(model)(x)
    out.sum().backward()
    torch.testing.assert_close(out.cpu(), expected.cpu(), rtol=1e-5, atol=1e-6)
    assert model.up.weight.grad is not None
    torch.testing.assert_close(model.up.weight.grad.cpu(), gradient.cpu(), rtol=1e-4, atol=1e-6)


def test_compiled_regions_have_fewer_kernels_and_less_memory(shadow: Session) -> None:
    model = Mlp().to("musa")
    x = torch.randn(4096, 32, device="musa")
    begin = len(shadow.recorder.events)
    model(x).sum().backward()
    eager = [name for name in ops(shadow, begin) if "view" not in name and "aten.t." not in name]
    torch._dynamo.reset()
    compiled = torch.compile(model)
    compiled(x).sum().backward()
    begin = len(shadow.recorder.events)
    compiled(x).sum().backward()
    names = ops(shadow, begin)
    fused = [name for name in names if name == "windtunnel.fused"]
    products = [name for name in names if name in ("aten.mm.default", "aten.addmm.default")]
    assert fused
    assert len(products) == 9  # 3 forward, 6 backward
    assert len(fused) + len(products) < 0.7 * len(eager)


def test_reduce_overhead_launches_one_graph(shadow: Session) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Mlp().to("musa"), mode="reduce-overhead")
    with torch.no_grad():
        compiled(torch.randn(16, 32, device="musa"))
        begin = len(shadow.recorder.events)
        compiled(torch.randn(16, 32, device="musa"))
    names = ops(shadow, begin)
    assert names.count(marks.GRAPH_LAUNCH) == names.count(marks.GRAPH_END) == 1


def test_compiled_operations_know_their_line(shadow: Session) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(Mlp().to("musa"))
    with torch.no_grad():
        compiled(torch.randn(16, 32, device="musa"))
    program = shadow.program()
    lines = {
        str(program.lines[program.site(e).line])
        for e in program.events
        if e >= 0 and program.specs[program.site(e).spec].name == "aten.mm.default"
    }
    assert all(line.split(":")[0].endswith("test_compile.py") for line in lines)


def test_groups_never_wait_for_each_other_in_a_circle() -> None:
    graph = torch.fx.symbolic_trace(_Diamond()).graph
    for node in graph.nodes:
        node.meta["val"] = torch.empty(4, 4, device="meta")
    order = fusion.fuse(graph)
    seen: set[torch.fx.Node] = set()
    for item in order:
        members = item.nodes if isinstance(item, fusion.Group) else [item]
        for member in members:
            assert all(s in seen or s in members for s in member.all_input_nodes)
        seen.update(members)
    assert seen == set(graph.nodes)


class _Diamond(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        aten = torch.ops.aten
        a = aten.relu.default(x)
        b = aten.mm.default(a, a)
        c = aten.add.Tensor(a, b)  # may not join a: it waits for the product, which waits for a
        return aten.mul.Tensor(c, a)


def test_a_traced_module_runs_as_it_is_and_is_listed(values: Session) -> None:
    model = nn.Linear(4, 2).to("musa")
    x = torch.ones(3, 4, device="musa")
    traced = torch.jit.trace(model, x)
    assert torch.equal(traced(x).cpu(), model(x).cpu())
    assert any("torch.jit.trace" in notice.what for notice in values.recorder.notices())
    assert isinstance(torch.jit.trace(nn.Linear(4, 2), torch.ones(3, 4)), torch.jit.ScriptModule)
