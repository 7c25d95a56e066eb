"""Without data: shapes, small integers with values, and answers by policy."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.program.program import Category, NoticeKind, Phase, StepKind
from windtunnel.specs.catalogue import chip


def test_a_trillion_parameters_take_no_memory(shadow: Session) -> None:
    shadow.state.ledger.limit_bytes = float("inf")
    x = torch.empty(1_000_000, 1_000_000, device="musa", dtype=torch.bfloat16)
    assert (x @ x).shape == (1_000_000, 1_000_000)
    assert x.host_values is None  # type: ignore[attr-defined]


def test_small_integers_keep_values(shadow: Session) -> None:
    positions = torch.arange(10, device="musa")
    assert (positions * 2 + 1)[3].item() == 7
    mask = positions > 6
    assert positions[mask].tolist() == [7, 8, 9]
    assert mask.sum().item() == 3


def test_values_overwritten_by_data_less_data_are_gone_for_all_views(shadow: Session) -> None:
    x = torch.zeros(8, device="musa")
    view = x[2:4]
    assert view.tolist() == [0.0, 0.0]
    x.copy_(torch.empty(100_000, device="musa")[:8])
    assert view.host_values is None  # type: ignore[attr-defined]


def test_floats_read_as_one_booleans_by_truth_integers_are_refused(shadow: Session) -> None:
    x = torch.empty(100, 100, device="musa")
    assert x.sum().item() == 1.0
    assert not (x > 3).any().item()
    assert torch.isfinite(x).all().item()
    assert not torch.isnan(x).any().item()
    with pytest.raises(WindtunnelError, match="E401"):
        int(x.sum().to(torch.int64).item())
    kinds = {notice.kind for notice in shadow.recorder.notices()}
    assert NoticeKind.ASSUMED in kinds


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: x[0].tolist(),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.empty(3, dtype=torch.int64).copy_(x),
    ],
)
def test_integers_are_refused_on_the_way_to_the_host_too(
    shadow: Session, read: Callable[..., object]
) -> None:
    counts = torch.empty(3, 30_000, device="musa").sum(-1).long()
    with pytest.raises(WindtunnelError, match="E401") as refused:
        read(counts)
    assert "test_shadow_mode.py:" in str(refused.value.values["line"])
    with shadow.state.policy.assume(5):
        read(counts)


def test_large_copies_hold_what_the_notice_says(shadow: Session) -> None:
    x = torch.empty(1025, 1024, device="musa")
    notices = shadow.recorder.notices
    out = x.t().cpu()
    assert not out.any()
    assert out.stride() == (1, 1024)
    out[3, 4] = 5.0  # a tensor like any other
    assert out.sum() == 5.0
    assert any("read as 0" in notice.what for notice in notices())
    assert not any("read as 1.0" in notice.what for notice in notices())
    buffer = torch.full((1025, 1024), 7.0)
    buffer.copy_(x)
    assert buffer.min() == 7.0
    assert any("keep what the host's tensor held" in notice.what for notice in notices())
    assert x[:8].cpu().min() == 1.0
    assert any("read as 1.0" in notice.what for notice in notices())
    with shadow.state.policy.assume(2.0):
        assert x.cpu().min() == 2.0


def test_what_is_stored_or_printed_still_reaches_the_host(shadow: Session) -> None:
    x = torch.empty(3, 600_000, device="musa")
    assert (x > 0).sum(-1).tolist() == [0, 0, 0]  # a count of matches
    assert x.to(torch.int8)[:, :4].cpu().sum().item() == 0  # a quantised weight in a checkpoint
    assert x.int().cpu().shape == (3, 600_000)
    assert x.long()[:, :0].tolist() == [[], [], []]
    assert {notice.kind for notice in shadow.recorder.notices()} == {NoticeKind.ASSUMED}


def test_assume_answers(shadow: Session) -> None:
    x = torch.empty(100, 100, device="musa")
    with shadow.state.policy.assume(5):
        assert x.sum().to(torch.int64).item() == 5
        assert x.long().tolist()[0][:2] == [5, 5]


def test_router_indices_are_balanced_and_distinct(shadow: Session) -> None:
    scores = torch.empty(4096, 64, device="musa").softmax(-1)
    indices = scores.topk(4, dim=-1).indices
    counts = torch.bincount(indices.flatten(), minlength=64)
    assert counts.tolist() == [4096 * 4 // 64] * 64
    assert all(len(set(row)) == 4 for row in indices[:50].tolist())


def test_a_training_step_is_recorded_with_places_and_phases(shadow: Session) -> None:
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10)).to("musa")
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):
        x = torch.randn(32, 256, device="musa")
        functional.cross_entropy(model(x), torch.zeros(32, dtype=torch.long, device="musa")).backward()
        optimizer.step()
        optimizer.zero_grad()
    program = shadow.program("test")
    assert [step.kind for step in program.steps] == [StepKind.TRAIN] * 2
    assert program.steps[0].samples == 32
    sites = {}
    for event in program.events[program.steps[1].begin : program.steps[1].end]:
        if event >= 0:
            site = program.site(event)
            sites.setdefault(program.specs[site.spec].name, []).append(site)
    forward = sites["aten.addmm.default"][0]
    assert program.scopes[forward.scope] == "Sequential.0"
    assert forward.phase == Phase.FORWARD
    assert program.lines[forward.line].file.endswith("test_shadow_mode.py")
    backward = sites["aten.mm.default"][0]
    assert program.scopes[backward.scope] == "Sequential.2"
    assert backward.phase == Phase.BACKWARD
    assert any(s.phase == Phase.OPTIMIZER for s in sites["aten._foreach_lerp_.Scalar"])
    categories = set(program.storage_category.tolist())
    assert {Category.PARAMETER, Category.GRADIENT, Category.OPTIMIZER_STATE} <= categories


def test_memory_is_what_one_counts_by_hand(shadow: Session) -> None:
    ledger = shadow.state.ledger
    model = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(256, 256, bias=False), nn.ReLU())])
    model.to("musa")
    before = ledger.live_bytes
    x = torch.randn(1024, 256, device="musa")
    out = model(x)
    mebibyte = 1024 * 256 * 4
    assert ledger.live_bytes - before == mebibyte * 5  # the input and four ReLU results
    out.sum().backward()
    del out, x
    weights = 4 * 256 * 256 * 4
    assert ledger.live_bytes - before == weights  # only the gradients are left


def test_results_of_linear_layers_are_held_once(shadow: Session) -> None:
    layer = nn.Linear(256, 512, bias=False).to("musa")
    x = torch.randn(
        4, 64, 256, device="musa"
    )  # more than two dimensions: a product, and a view of its result
    for _ in range(2):  # the second time from the plan
        begin = len(shadow.state.ledger.sizes)
        kept = layer(x)
        assert shadow.state.ledger.sizes[begin:] == [4 * 64 * 512 * 4]
        del kept


def test_mixed_devices_and_dtypes_raise_as_on_a_real_card(shadow: Session) -> None:
    x = torch.randn(4, 4, device="musa")
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.randn(4, 4)
    assert (x + torch.tensor(1.0)).shape == (4, 4)  # scalars may stay on the host
    with pytest.raises(RuntimeError, match="same dtype"):
        x @ torch.randn(4, 4, device="musa", dtype=torch.bfloat16)


def test_deepcopy_state_dict_and_casts(shadow: Session) -> None:
    model = nn.Linear(300, 300).to("musa")
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.half().weight.dtype is torch.float16
    assert twin.cpu().weight.device.type == "cpu"


def test_storage_resize_frees_and_takes_memory(shadow: Session) -> None:
    x = torch.empty(1 << 20, device="musa")
    live = shadow.state.ledger.live_bytes
    storage = x.untyped_storage()
    storage.resize_(0)
    assert shadow.state.ledger.live_bytes == live - (4 << 20)
    assert storage.nbytes() == 0
    storage.resize_(4 << 20)
    assert shadow.state.ledger.live_bytes == live


def test_gradient_accumulation_is_one_step(shadow: Session) -> None:
    model = nn.Linear(64, 64).to("musa")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for _ in range(3):
            model(torch.randn(8, 64, device="musa")).sum().backward()
        optimizer.step()
    steps = shadow.program().steps
    assert [step.samples for step in steps] == [24, 24]


def test_two_optimizers_make_one_step(shadow: Session) -> None:
    a, b = nn.Linear(64, 64).to("musa"), nn.Linear(64, 64).to("musa")
    one = torch.optim.SGD(a.parameters(), lr=0.1)
    two = torch.optim.SGD(b.parameters(), lr=0.1)
    for _ in range(3):
        a(torch.randn(4, 64, device="musa")).sum().backward()
        one.step()
        b(torch.randn(4, 64, device="musa")).sum().backward()
        two.step()
    assert len(shadow.program().steps) == 3


def test_recomputation_has_its_own_phase(shadow: Session) -> None:
    from torch.utils.checkpoint import checkpoint

    layer = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).to("musa")
    x = torch.randn(4, 64, device="musa", requires_grad=True)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    phases = {place[3] for place in shadow.state.context.places}
    assert Phase.RECOMPUTE in phases


def test_out_of_memory_is_raised_at_the_operation_and_can_be_survived(shadow: Session) -> None:
    card = shadow.chip.memory_bytes.value
    kept = torch.empty(int(0.6 * card), dtype=torch.uint8, device="musa")
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        torch.empty(int(0.6 * card), dtype=torch.uint8, device="musa")
    again = torch.empty(int(0.2 * card), dtype=torch.uint8, device="musa")
    del kept
    torch.empty(int(0.6 * card), dtype=torch.uint8, device="musa")
    assert again.device.type == "musa"
    assert shadow.state.memory.out_of_memory.split(":")[0].endswith("test_shadow_mode.py")


def test_oom_continue_notes_the_place_and_goes_on() -> None:
    with Session(chip("mtt-s5000"), oom_continue=True) as session:
        kept = [torch.empty(50 << 30, dtype=torch.uint8, device="musa") for _ in range(4)]
        assert torch.musa.memory_allocated() == 200 << 30
        assert len(kept) == 4
        notices = [n for n in session.recorder.notices() if n.kind is NoticeKind.SKIPPED]
        assert len(notices) == 1


def test_parameters_and_gradients_are_known_without_an_optimizer() -> None:
    with Session(chip("mtt-s5000")) as session:
        model = nn.Linear(512, 512).to("musa")
        x = torch.randn(4, 512, device="musa")
        model(x).sum().backward()
        del model, x
        program = session.program()
        sizes: dict[int, int] = {}
        for category, size in zip(program.storage_category, program.storage_bytes, strict=True):
            sizes[int(category)] = sizes.get(int(category), 0) + int(size)
        weights = 4 * (512 * 512 + 512)
        assert sizes[Category.PARAMETER] == weights
        assert sizes[Category.GRADIENT] == weights
        assert sizes[Category.INPUT] == 4 * 512 * 4
        assert program.origin.parameters == 512 * 512 + 512


def test_large_models_built_on_the_host_take_no_memory(shadow: Session) -> None:
    resident = _resident_bytes()
    model = nn.Sequential(*[nn.Linear(16384, 16384) for _ in range(4)])  # 4 GiB in float32
    assert _resident_bytes() - resident < 200 << 20
    model.to(torch.bfloat16).to("musa")
    assert _resident_bytes() - resident < 200 << 20
    assert shadow.state.ledger.live_bytes > 2 << 30
    small = nn.Linear(64, 64)
    assert small.weight.abs().sum().item() > 0
    assert any("left out" in notice.what for notice in shadow.recorder.notices())


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def test_an_operation_that_ran_out_of_memory_leaves_a_sound_program(shadow: Session) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        [torch.empty(1 << 30, device="musa") for _ in range(100)]
    program = shadow.program()
    assert int(program.sites[:, 0].max()) < len(program.specs)
    assert shadow.clock.now_s() > 0


def test_tensors_filled_with_a_number_hold_it(shadow: Session) -> None:
    logits = torch.empty(512, 64, device="musa") @ torch.empty(64, 8, device="musa")  # no data
    picked = torch.arange(512, device="musa").remainder(8).unsqueeze(1)
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, picked, True)
    assert chosen.sum(0).tolist() == [64] * 8
    assert torch.ones_like(logits, dtype=torch.long).sum().item() == 4096
    assert torch.full_like(logits, 3, dtype=torch.int32)[0, 0].item() == 3
    assert logits.new_full((2,), 5, dtype=torch.long).tolist() == [5, 5]
    assert logits.new_empty(3, dtype=torch.long).fill_(7).tolist() == [7, 7, 7]
    assert logits.new_zeros(2, dtype=torch.long).tolist() == [0, 0]
    part = logits.long()
    part[:2].zero_()  # the rest is not known
    with pytest.raises(WindtunnelError, match="E401"):
        part.sum().item()


def test_empty_results_are_known_without_computing(shadow: Session) -> None:
    scale = torch.tensor([2.0, 3.0], device="musa")
    for _ in range(2):  # the second is answered by its shapes
        empty = scale.new_empty(0)
        assert empty.tolist() == []
        assert torch.cat([scale, empty]).tolist() == [2.0, 3.0]
    data_less = torch.randn(4096, device="musa")
    assert data_less.new_empty(0).tolist() == []
