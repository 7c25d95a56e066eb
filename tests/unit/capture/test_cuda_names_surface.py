"""Every way a script says CUDA leads to the card, on both vendors' chips."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.session import Session
from windtunnel.capture.tensor import VirtualTensor
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import NoticeKind
from windtunnel.specs.catalogue import chip

CHIPS = ("mtt-s5000", "h100-sxm")


@pytest.fixture(params=CHIPS)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(chip(request.param)) as active, CudaNames(active):
        yield active


@pytest.fixture
def musa() -> Iterator[Session]:
    with Session(chip("mtt-s5000")) as active, CudaNames(active):
        yield active


def noted(session: Session) -> dict[str, int]:
    notices = [n for n in session.recorder.notices() if n.kind is NoticeKind.PRETENDED]
    return {notice.what: notice.count for notice in notices}


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "factory": lambda: torch.zeros(2, 3, device="cuda"),
    "factory, index": lambda: torch.randn(2, device="cuda:0"),
    "factory, device object": lambda: torch.ones(2, device=torch.device("cuda", 0)),
    "tensor": lambda: torch.tensor([1, 2], device="cuda"),
    "as_tensor of a tensor": lambda: torch.as_tensor(torch.ones(2), device="cuda"),
    "arange": lambda: torch.arange(5, device="cuda"),
    "eye": lambda: torch.eye(3, device="cuda"),
    "randperm": lambda: torch.randperm(5, device="cuda"),
    "full": lambda: torch.full((2,), 3.0, device="cuda"),
    "linspace": lambda: torch.linspace(0, 1, 5, device="cuda"),
    "tril_indices": lambda: torch.tril_indices(3, 3, device="cuda"),
    "zeros_like": lambda: torch.zeros_like(torch.ones(2), device="cuda"),
    "empty_like of a parameter": lambda: torch.empty_like(nn.Parameter(torch.ones(2)), device="cuda"),
    "new_zeros": lambda: torch.ones(2).new_zeros(3, device="cuda"),
    "to": lambda: torch.ones(2).to("cuda"),
    "to, keyword": lambda: torch.ones(2).to(device="cuda", dtype=torch.float16),
    "cuda": lambda: torch.ones(2).cuda(),
    "cuda, number": lambda: torch.ones(2).cuda(0, non_blocking=True),
    "unbound cuda": lambda: torch.Tensor.cuda(torch.ones(2)),
    "operator": lambda: torch.ops.aten.ones([2], device=torch.device("cuda")),
    "typed": lambda: torch.cuda.FloatTensor(3),
    "typed, from data": lambda: torch.cuda.LongTensor([1, 2]),
    "type": lambda: torch.ones(2).type(torch.cuda.HalfTensor),
    "type, name": lambda: torch.ones(2).type("torch.cuda.FloatTensor"),
    "module, device": lambda: nn.Linear(2, 2, device="cuda").weight,
    "module, to": lambda: nn.Linear(2, 2).to("cuda").weight,
    "module, cuda": lambda: nn.Linear(2, 2).cuda().weight,
    "generator": lambda: torch.randn(
        2, device="cuda", generator=torch.Generator(device="cuda").manual_seed(1)
    ),
}


@pytest.mark.parametrize("say", TENSORS.values(), ids=TENSORS)
def test_a_tensor_asked_onto_cuda_is_on_the_card(session: Session, say: Callable[[], torch.Tensor]) -> None:
    tensor = say()
    assert isinstance(tensor, VirtualTensor)
    assert tensor.is_cuda
    assert tensor.device == torch.device("cuda:0")
    assert tensor.device.type == "cuda"
    assert tensor.is_leaf


def test_a_device_number_means_the_card_under_its_own_name(session: Session) -> None:
    for tensor in (torch.ones(2, device=0), torch.ones(2).to(0)):
        assert isinstance(tensor, VirtualTensor)
        assert tensor.device.type == session.chip.device_type


def test_names_imported_earlier_work(session: Session) -> None:
    from torch import full as earlier

    assert earlier((2,), 1.0, device="cuda").is_cuda


def test_default_devices(session: Session) -> None:
    with torch.device("cuda"):
        assert torch.ones(2).is_cuda
        assert torch.tensor([1.0]).is_cuda
        assert nn.Linear(2, 2).weight.is_cuda
    assert not torch.ones(2).is_cuda
    torch.set_default_device("cuda")
    try:
        assert torch.ones(2).is_cuda
        assert torch.get_default_device() == torch.device("cuda:0")
    finally:
        torch.set_default_device(None)


def test_what_is_there_already_comes_back_itself(session: Session) -> None:
    parameter = nn.Parameter(torch.ones(2, device="cuda"))
    assert parameter.to("cuda") is parameter
    assert parameter.to(torch.device("cuda:0")) is parameter
    assert parameter.to(parameter.device) is parameter
    assert torch.zeros(2, device=parameter.device).is_cuda
    assert parameter.to("cpu").device.type == "cpu"


def test_device_text(session: Session) -> None:
    tensor = torch.ones(2, device="cuda")
    assert "device='cuda:0'" in repr(tensor)
    assert tensor.type() == "torch.cuda.FloatTensor"
    assert isinstance(tensor, torch.cuda.FloatTensor)
    assert not isinstance(torch.ones(2), torch.cuda.FloatTensor)


def test_questions_are_answered_from_the_chip(session: Session) -> None:
    card = session.chip
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert torch.cuda.current_device() == 0
    assert torch.cuda.get_device_name("cuda:0") == card.device_name
    assert torch.cuda.get_device_capability() == card.compute_capability
    properties = torch.cuda.get_device_properties(0)
    assert properties.total_memory == int(card.memory_bytes.value)
    assert properties.multi_processor_count == int(card.multiprocessors.value)
    assert torch.cuda.is_bf16_supported()
    assert torch.backends.cuda.is_built()
    assert torch.backends.cudnn.is_available()
    assert torch.version.cuda


def test_memory_family(session: Session) -> None:
    before = torch.cuda.memory_allocated()
    block = torch.empty(1 << 20, device="cuda", dtype=torch.uint8)
    assert torch.cuda.memory_allocated() - before == block.numel()
    assert torch.cuda.max_memory_allocated("cuda") >= torch.cuda.memory_allocated(0)
    stats = torch.cuda.memory_stats()
    assert stats["allocated_bytes.all.current"] == torch.cuda.memory_allocated()
    free, total = torch.cuda.mem_get_info()
    assert 0 < free < total
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_summary()


def test_streams_and_events(session: Session) -> None:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    side = torch.cuda.Stream()
    start.record()
    with torch.cuda.stream(side):
        x = torch.ones(4096, 4096, device="cuda") * 2
    torch.cuda.current_stream().wait_stream(side)
    x.record_stream(torch.cuda.current_stream())
    end.record()
    torch.cuda.synchronize()
    assert start.elapsed_time(end) > 0
    assert isinstance(torch.cuda.current_stream(), torch.cuda.Stream)
    assert isinstance(side, torch.cuda.Stream)
    assert side.cuda_stream != torch.cuda.default_stream().cuda_stream


def test_random_numbers_repeat(session: Session) -> None:
    torch.cuda.manual_seed_all(3)
    state = torch.cuda.get_rng_state()
    first = torch.randint(0, 1000, (8,), device="cuda").tolist()
    torch.cuda.set_rng_state(state)
    assert torch.randint(0, 1000, (8,), device="cuda").tolist() == first


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(session: Session, dtype: torch.dtype) -> None:
    model = nn.Linear(64, 64, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cuda")
    for _ in range(2):
        with torch.autocast("cuda", dtype=dtype):
            assert torch.is_autocast_enabled()
            assert torch.get_autocast_dtype("cuda") is dtype
            out = model(torch.randn(64, 64, device="cuda"))
        assert out.dtype is dtype
        scaler.scale(out.float().square().mean()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.is_enabled()
    assert len(session.steps.marks()) == 2


def test_autocast_defaults_to_half_as_cuda_does(session: Session) -> None:
    x = torch.randn(64, 64, device="cuda")
    with torch.autocast("cuda"):
        assert (x @ x).dtype is torch.float16
    with torch.autocast(device_type="cuda", enabled=False):
        assert (x @ x).dtype is torch.float32


def test_saving_and_loading(session: Session) -> None:
    buffer = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), buffer)
    for place in ("cuda", torch.device("cuda:0"), {"cpu": "cuda:0"}):
        buffer.seek(0)
        assert torch.load(buffer, map_location=place)["weight"].is_cuda
    buffer.seek(0)
    assert not torch.load(buffer, map_location="cpu")["weight"].is_cuda


def test_pinned_memory(session: Session) -> None:
    assert torch.empty(4, pin_memory=True).is_pinned()
    assert not torch.empty(4).is_pinned()
    loader = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4, pin_memory=True)
    for (batch,) in loader:
        assert batch.is_pinned()
        assert batch.cuda(non_blocking=True).is_cuda


def test_profiler_with_cuda_activity(session: Session) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        torch.ones(3, device="cuda") + 1
    assert "aten::add" in profiler.key_averages().table(sort_by="cuda_time_total", row_limit=20)


def test_nvtx_and_driver_calls(session: Session) -> None:
    assert torch.cuda.nvtx.range_push("step") == 0
    assert torch.cuda.nvtx.range_pop() == 0
    with torch.cuda.nvtx.range("part"):
        torch.cuda.cudart().cudaProfilerStart()
    assert torch.cuda.cudart().cudaMemGetInfo(0)[1] > 0
    assert torch.cuda.nccl.version() >= (2,)
    with torch.cuda.device(0), torch.cuda.device_of(torch.ones(1, device="cuda")):
        pass


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), True),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", False), False),
        (lambda: torch.set_float32_matmul_precision("high"), True),
        (lambda: None, None),
    ],
)
def test_tf32_switches_reach_the_recording(
    session: Session, switch: Callable[[], None], expected: bool | None
) -> None:
    switch()
    torch.ones(2, device="cuda").sum()
    assert session.program().origin.allow_tf32 is expected


def test_accelerator_reads_as_on_the_real_stack(session: Session) -> None:
    device = torch.accelerator.current_accelerator()
    assert device is not None
    assert device.type == session.chip.device_type


def test_everything_pretended_is_listed_once_per_line(musa: Session) -> None:
    for _ in range(3):
        x = torch.ones(2).cuda()
    assert x.device.type == "cuda"
    assert torch.cuda.is_available()
    listed = noted(musa)
    assert listed["`.cuda()`"] == 3
    assert listed["`torch.cuda.is_available`"] == 1
    assert listed['`device.type == "cuda"`'] == 1
    lines = {notice.line for notice in musa.recorder.notices()}
    assert all("test_cuda_names_surface.py:" in line for line in lines)


def test_pytorchs_own_questions_are_not_listed(musa: Session) -> None:
    model = nn.Linear(4, 4).to("musa")
    torch.optim.AdamW(model.parameters()).step()
    torch.manual_seed(0)
    assert noted(musa) == {}
    assert model.weight.device == torch.device("musa:0")


def test_nothing_is_pretended_on_an_nvidia_card() -> None:
    with Session(chip("h100-sxm")) as session, CudaNames(session):
        assert torch.ones(2).cuda().device.type == "cuda"
        torch.cuda.synchronize()
        assert noted(session) == {}
        assert torch.cuda.temperature() == 0
        assert noted(session) == {"`torch.cuda.temperature` answered 0": 1}


def test_torch_musa_can_be_imported_on_a_moore_threads_card(musa: Session) -> None:
    import torch_musa  # type: ignore[import-not-found]  # noqa: F401
    import torchada  # type: ignore[import-not-found]  # noqa: F401

    assert torch.musa.get_device_name() == "MTT S5000"  # type: ignore[attr-defined]


def test_data_parallel_over_one_card_is_the_module_itself(session: Session) -> None:
    model = nn.DataParallel(nn.Linear(4, 2)).cuda()
    assert model(torch.randn(3, 4)).shape == (3, 2)
    model(torch.randn(3, 4)).sum().backward()
    assert model.module.weight.grad.is_cuda


def test_data_parallel_over_several_cards_is_refused(session: Session) -> None:
    with pytest.raises(WindtunnelError, match="DistributedDataParallel") as raised:
        nn.parallel.comm.scatter(torch.randn(4), devices=[0, 1])
    assert raised.value.code == "E412"


@pytest.mark.parametrize(
    ("function", "on_card"),
    [
        (lambda storage, location: storage, False),
        (lambda storage, location: storage.cuda(0), True),
        (lambda storage, location: None, True),
    ],
)
def test_loading_with_a_function(
    session: Session, function: Callable[[torch.UntypedStorage, str], object], on_card: bool
) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2, device="cuda")}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, map_location=function)["w"].is_cuda is on_card


def test_torch_musas_own_names(musa: Session) -> None:
    names: Any = torch.musa  # type: ignore[attr-defined]
    x = torch.ones(64, 64).musa()  # type: ignore[attr-defined]
    with names.amp.autocast(dtype=torch.bfloat16):
        assert (x @ x).dtype is torch.bfloat16
    assert names.amp.GradScaler().is_enabled()
    graph = names.MUSAGraph()
    with names.graph(graph):
        y = x + 1
    graph.replay()
    assert names.memory.memory_allocated() > 0
    assert y.device == torch.device("musa:0")
    assert nn.Linear(2, 2).musa().weight.is_musa  # type: ignore[operator,attr-defined]
    assert noted(musa) == {}


def test_errors_name_the_device_as_the_script_does(session: Session) -> None:
    x = torch.ones(4, 4, device="cuda")
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        x @ torch.ones(4, 4)
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        x.numpy()
