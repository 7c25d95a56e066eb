"""What PyTorch offers around a device: files, loaders, streams, generators, ``torch.accelerator``."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from windtunnel.capture.session import Session
from windtunnel.program import kernels, marks


def test_save_and_load_both_ways(values: Session, tmp_path: Path) -> None:
    model = nn.Linear(4, 3).to("musa")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    on_cpu = torch.load(tmp_path / "model.pt", map_location="cpu", weights_only=True)
    assert on_cpu["weight"].device.type == "cpu"
    on_card = torch.load(tmp_path / "model.pt", map_location="musa", weights_only=True)
    assert on_card["weight"].device.type == "musa"
    assert torch.equal(on_card["weight"].cpu(), model.weight.detach().cpu())
    default = torch.load(tmp_path / "model.pt")
    assert default["bias"].device.type == "musa"


def test_whole_models_and_optimizers_survive_saving(values: Session) -> None:
    model = nn.Linear(4, 3).to("musa")
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4, device="musa")).sum().backward()
    optimizer.step()
    buffer = io.BytesIO()
    torch.save({"model": model, "optimizer": optimizer.state_dict()}, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded["model"].weight.cpu(), model.weight.detach().cpu())
    optimizer.load_state_dict(loaded["optimizer"])
    assert pickle.loads(pickle.dumps(model.weight)).device.type == "musa"


@pytest.mark.parametrize("mode", ["shadow", "values"])
def test_safetensors_round_trip(mode: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue(mode)
    tensors = {"a": torch.arange(6.0, device="musa").view(2, 3), "b": torch.ones(3, device="musa")}
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert loaded["a"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_loader_with_pinned_memory_copies_without_blocking(shadow: Session) -> None:
    data = TensorDataset(torch.randn(8, 4), torch.arange(8))
    for x, y in DataLoader(data, batch_size=4, pin_memory=True):
        assert x.is_pinned()
        x.to("musa", non_blocking=True)
        y.to("musa")
    copies = [spec for spec in shadow.recorder.specs if spec.name == kernels.HOST_COPY]
    assert {spec.attribute("pinned") for spec in copies} == {True}
    assert {spec.attribute("non_blocking") for spec in copies} == {True, False}


def test_streams_and_events_are_recorded(shadow: Session) -> None:
    side = torch.musa.Stream()
    x = torch.randn(64, 64, device="musa")
    with torch.musa.stream(side):
        y = x @ x
    torch.musa.current_stream().wait_stream(side)
    y.record_stream(torch.musa.current_stream())
    start, end = (torch.musa.Event(enable_timing=True) for _ in range(2))
    start.record()
    y @ y
    end.record()
    torch.musa.synchronize()
    program = shadow.program()
    streams = {
        program.specs[program.site(e).spec].name: program.site(e).stream for e in program.events if e >= 0
    }
    assert program.streams == ["default", "stream 1"]
    assert streams[marks.EVENT_WAIT] == 0
    assert streams["aten.mm.default"] == 0
    mms = [
        e for e in program.events if e >= 0 and program.specs[program.site(e).spec].name == "aten.mm.default"
    ]
    assert [program.site(e).stream for e in mms] == [1, 0]


def test_accelerator_names_the_card(shadow: Session) -> None:
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    assert accelerator.type == "musa"
    assert torch.accelerator.is_available()
    torch.accelerator.synchronize()
    assert torch.accelerator.device_count() == 1
    assert torch.accelerator.max_memory_allocated() >= 0


def test_properties_come_from_the_chip(shadow: Session) -> None:
    properties = torch.musa.get_device_properties(0)
    assert properties.name == torch.musa.get_device_name() == shadow.chip.device_name
    assert properties.total_memory == int(shadow.chip.memory_bytes.value)
    assert torch.musa.get_device_capability() == shadow.chip.compute_capability


def test_generators_and_seeds(values: Session) -> None:
    generator = torch.Generator(device="musa").manual_seed(3)
    first = torch.randn(4, device="musa", generator=generator)
    again = torch.randn(4, device="musa", generator=generator.manual_seed(3))
    assert torch.equal(first.cpu(), again.cpu())
    assert isinstance(generator, torch.Generator)
    torch.musa.manual_seed_all(5)
    state = torch.musa.get_rng_state()
    first = torch.rand(2, device="musa")
    torch.musa.set_rng_state(state)
    assert torch.equal(first.cpu(), torch.rand(2, device="musa").cpu())


def test_memory_statistics_follow_tensors(shadow: Session) -> None:
    before = torch.musa.memory_allocated()
    x = torch.empty(1 << 20, device="musa")
    assert torch.musa.memory_allocated() - before == 4 << 20
    assert torch.musa.max_memory_allocated() >= torch.musa.memory_allocated()
    assert torch.musa.memory_reserved() >= torch.musa.memory_allocated()
    del x
    assert torch.musa.memory_allocated() == before
    torch.musa.reset_peak_memory_stats()
    assert torch.musa.max_memory_allocated() == before
    assert torch.musa.memory_stats()["allocated_bytes.all.current"] == before
    free, total = torch.musa.mem_get_info()
    assert 0 < free <= total


def test_printing_and_reading(values: Session) -> None:
    x = torch.tensor([1.0, 2.0], device="musa")
    assert "1." in repr(x)
    assert "musa" in repr(x)
    assert x.tolist() == [1.0, 2.0]
    assert f"{x.sum():.2f}" == "3.00"
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        x.numpy()


def test_transforms_and_einsum(values: Session) -> None:
    x = torch.randn(3, 4, device="musa")
    batched = torch.vmap(lambda row: row.sum())(x)
    assert torch.allclose(batched.cpu(), x.sum(1).cpu())
    gradient = torch.func.grad(lambda v: (v * v).sum())(x)
    assert torch.equal(gradient.cpu(), (2 * x).cpu())
    assert torch.einsum("ij,kj->ik", x, x).shape == (3, 3)


def test_events_measure_what_the_chip_would(shadow: Session) -> None:
    x = torch.empty(4096, 4096, device="musa", dtype=torch.bfloat16)
    start, middle, end = (torch.musa.Event(enable_timing=True) for _ in range(3))
    start.record()
    x @ x
    middle.record()
    for _ in range(10):
        x @ x
    end.record()
    torch.musa.synchronize()
    one, ten = start.elapsed_time(middle), middle.elapsed_time(end)
    flops = 2 * 4096**3
    assert 1e3 * flops / shadow.chip.peak("bf16").value < one < 2.0
    assert ten == pytest.approx(10 * one, rel=0.2)
    before = shadow.clock.now_s()
    x @ x
    assert shadow.clock.now_s() > before
    with pytest.raises(RuntimeError, match="enable_timing"):
        torch.musa.Event().elapsed_time(end)


def test_forward_mode_derivatives(values: Session) -> None:
    x = torch.tensor([1.0, 2.0], device="musa")
    hessian = torch.func.hessian(lambda v: (v**3).sum())(x)
    assert hessian.diagonal().tolist() == [6.0, 12.0]
    assert torch.func.jacfwd(torch.sin)(x).shape == (2, 2)
