"""In values mode the card computes what the CPU computes, bit for bit, where the arithmetic is the same."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(SDPBackend.MATH):  # what the S5000 takes for float32
            attention = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attention.transpose(1, 2).flatten(-2))
        return self.head(x + self.down(functional.silu(self.up(x))))


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "adamw-single": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=False),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "adam-capturable": lambda p: torch.optim.Adam(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, foreach=False),
}


def train(device: str, dtype: torch.dtype, make: Callable[..., torch.optim.Optimizer]) -> list[float]:
    torch.manual_seed(0)
    model = Block().to(dtype).to(device)
    optimizer = make(model.parameters())
    ids = torch.randint(0, 64, (2, 12)).to(device)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        logits = model(ids)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), ids.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_the_cpu_bit_for_bit(values: Session, name: str) -> None:
    expected = train("cpu", torch.float32, OPTIMIZERS[name])
    assert train("musa", torch.float32, OPTIMIZERS[name]) == expected
    assert len(set(expected)) == 4


def test_random_numbers_are_the_cpus(values: Session) -> None:
    torch.manual_seed(3)
    expected = torch.randn(5), torch.rand(3), torch.randint(9, (4,)), torch.randperm(7)
    torch.manual_seed(3)
    card = (
        torch.randn(5, device="musa"),
        torch.rand(3, device="musa"),
        torch.randint(9, (4,), device="musa"),
        torch.randperm(7, device="musa"),
    )
    for a, b in zip(expected, card, strict=True):
        assert torch.equal(a, b.cpu())


def test_dropout_draws_as_the_cpu_does(values: Session) -> None:
    torch.manual_seed(1)
    expected = functional.dropout(torch.ones(64), 0.5)
    torch.manual_seed(1)
    assert torch.equal(functional.dropout(torch.ones(64, device="musa"), 0.5).cpu(), expected)


def test_views_share_memory(values: Session) -> None:
    x = torch.zeros(4, 4, device="musa")
    x[1].add_(1)
    x.t()[0, 2] = 7.0
    x.view(-1)[15] = 3.0
    expected = torch.zeros(4, 4)
    expected[1] = 1
    expected[2, 0] = 7
    expected[3, 3] = 3
    assert torch.equal(x.cpu(), expected)


@pytest.mark.parametrize("mask_kind", ["none", "causal", "bool", "float"])
def test_attention_forward_and_backward(values: Session, mask_kind: str) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, dtype=torch.bfloat16) for _ in range(3))
    mask = {
        "none": None,
        "causal": None,
        "bool": torch.rand(2, 1, 6, 6) > 0.3,
        "float": torch.randn(2, 1, 6, 6, dtype=torch.bfloat16),
    }[mask_kind]
    if mask is not None and mask.dtype is torch.bool:
        mask[..., 0] = True

    def run(device: str) -> list[torch.Tensor]:
        inputs = [t.detach().clone().to(device).requires_grad_() for t in (q, k, v)]
        placed = None if mask is None else mask.to(device)
        out = functional.scaled_dot_product_attention(
            *inputs, attn_mask=placed, is_causal=mask_kind == "causal"
        )
        out.float().square().sum().backward()
        return [out.detach().cpu(), *(t.grad.cpu() for t in inputs if t.grad is not None)]

    for a, b in zip(run("cpu"), run("musa"), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)  # the chip rounds where its kernel rounds


def test_grouped_query_attention(values: Session) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 8, 5, 16), torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16)
    expected = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    half = [t.bfloat16().to("musa") for t in (q, k, v)]
    out = functional.scaled_dot_product_attention(*half, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0.05, atol=0.02)


def test_autocast_trains_and_casts_weights_once_a_region(values: Session) -> None:
    layer = nn.Linear(8, 8).to("musa")
    x = torch.randn(2, 8, device="musa")
    with torch.autocast("musa", dtype=torch.bfloat16):
        begin = len(values.recorder.contexts)
        first = layer(x)
        middle = len(values.recorder.contexts)
        second = layer(x)
    assert first.dtype is torch.bfloat16
    assert len(values.recorder.contexts) - middle < middle - begin  # the weight's cast was kept
    (first + second).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is torch.float32


def test_grad_scaler_follows_infinities(values: Session) -> None:
    weight = nn.Parameter(torch.ones(3, device="musa"))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = torch.amp.GradScaler("musa", init_scale=4.0, enabled=True)
    scaler.scale((weight * torch.tensor([1.0, float("inf"), 1.0], device="musa")).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [1.0, 1.0, 1.0]
    assert scaler.get_scale() == 2.0


def test_checkpointing_gives_the_same_gradients(values: Session) -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.GELU()).to("musa")
    x = torch.randn(4, 6, device="musa", requires_grad=True)
    torch.manual_seed(5)
    layer(x).sum().backward()
    assert x.grad is not None
    expected, x.grad = x.grad.clone(), None
    torch.manual_seed(5)
    checkpoint(layer, x, use_reentrant=False).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad.cpu(), expected.cpu())


def test_half_precision_products_are_the_chips(values: Session) -> None:
    from windtunnel.numerics.matmul import chip_matmul
    from windtunnel.numerics.profiles import profile_of

    torch.manual_seed(0)
    a, b = torch.randn(32, 256).bfloat16(), torch.randn(256, 16).bfloat16()
    expected = chip_matmul(a, b, profile=profile_of(values.chip))
    assert torch.equal((a.to("musa") @ b.to("musa")).cpu(), expected)
    layer = nn.Linear(256, 16).bfloat16().to("musa")
    layer(a.to("musa")).sum().backward()
    assert layer.weight.grad is not None


def test_fp8_products_take_the_chips_rules(values: Session) -> None:
    a = torch.randn(32, 64).to(torch.float8_e4m3fn).to("musa")
    b = torch.randn(16, 64).to(torch.float8_e4m3fn).to("musa")
    one = torch.ones((), device="musa")
    out = torch._scaled_mm(a, b.t(), one, one, out_dtype=torch.bfloat16)
    expected = (a.cpu().float() @ b.cpu().float().t()).bfloat16()
    torch.testing.assert_close(out.cpu(), expected, rtol=0.01, atol=0.01)
    with pytest.raises((RuntimeError, WindtunnelError)):
        a @ b.t()


def test_attention_dropout_is_the_same_forward_and_backward(values: Session) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 8, 16).bfloat16().to("musa").requires_grad_() for _ in range(3))
    out = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    out.sum().backward()
    assert v.grad is not None
    # out is linear in v: with the same mask both ways, <out, 1> = <v, grad>
    total = (v.detach().float() * v.grad.float()).sum().item()
    assert total == pytest.approx(out.float().sum().item(), abs=0.5)
    again = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.5)
    assert not torch.equal(again.cpu(), out.cpu())


def test_scaled_grouped_products_are_the_chips(values: Session) -> None:
    a = torch.randn(32, 64).to(torch.float8_e4m3fn).to("musa")
    b = torch.randn(2, 16, 64).to(torch.float8_e4m3fn).to("musa").transpose(1, 2)
    ends = torch.tensor([16, 32], dtype=torch.int32, device="musa")
    ones_a, ones_b = torch.ones(32, device="musa"), torch.ones(2, 16, device="musa")
    out = torch._scaled_grouped_mm(a, b, ones_a, ones_b, offs=ends, out_dtype=torch.bfloat16)
    halves = [a.cpu().float()[:16] @ b.cpu().float()[0], a.cpu().float()[16:] @ b.cpu().float()[1]]
    torch.testing.assert_close(out.cpu().float(), torch.cat(halves), rtol=0.02, atol=0.05)


def test_a_gradient_scaler_backs_off_and_grows(values: Session) -> None:
    """The scale follows the rule of the documentation, and skipped steps leave the weights alone."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 16).to("musa")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("musa", init_scale=2.0**20, growth_interval=2)
    expected, good, skipped = 2.0**20, 0, 0
    x = torch.randn(8, 16, device="musa")
    for _ in range(16):
        with torch.autocast("musa", torch.float16):
            loss = layer(x).float().square().mean()
        scaler.scale(loss).backward()
        finite = all(bool(p.grad.isfinite().all()) for p in layer.parameters() if p.grad is not None)
        before = layer.weight.detach().cpu().clone()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert torch.equal(layer.weight.detach().cpu(), before) is not finite
        good = good + 1 if finite else 0
        skipped += not finite
        expected = expected / 2 if not finite else expected * 2 if good == 2 else expected
        good = 0 if good == 2 else good
        assert scaler.get_scale() == expected
    assert 0 < skipped < 16


VARIANTS = {"nadam": torch.optim.NAdam, "asgd": torch.optim.ASGD, "radam": torch.optim.RAdam}


@pytest.mark.parametrize("name", VARIANTS)
def test_optimizers_differ_from_the_cpus_only_by_the_variant_that_pytorch_picks(
    values: Session, name: str
) -> None:
    """On accelerators PyTorch takes the foreach variant, which orders operations otherwise than the plain one."""
    for foreach in (True, False):
        make = functools.partial(VARIANTS[name], lr=1e-2, foreach=foreach)
        assert train("musa", torch.float32, make) == train("cpu", torch.float32, make)
    picked = train("musa", torch.float32, functools.partial(VARIANTS[name], lr=1e-2))
    assert picked == train("cpu", torch.float32, functools.partial(VARIANTS[name], lr=1e-2, foreach=True))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_equal_the_cpu_but_for_the_order_of_one_sum(values: Session, kind: type) -> None:
    """Forward passes of a plain RNN agree bit for bit; gradients of the input weights sum the rows of a batch
    in another order."""

    def run(device: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        layer = kind(16, 32, batch_first=True).to(device)
        out = layer(torch.randn(8, 5, 16).to(device))[0]
        out.square().mean().backward()
        return out.detach().cpu(), {
            n: p.grad.cpu() for n, p in layer.named_parameters() if p.grad is not None
        }

    ours, theirs = run("musa"), run("cpu")
    if kind is nn.RNN:
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1]["weight_hh_l0"], theirs[1]["weight_hh_l0"])
    assert torch.allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-7)
    for name, gradient in ours[1].items():
        assert float((gradient - theirs[1][name]).abs().max()) < 4e-7 * float(theirs[1][name].abs().max())


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_is_one_kernel_each_way(
    values: Session, dtype: torch.dtype, off: float, affine: bool
) -> None:
    torch.manual_seed(0)
    norm = nn.RMSNorm(48, eps=1e-6, elementwise_affine=affine, dtype=dtype)
    x = torch.randn(3, 7, 48, dtype=dtype)
    grad = torch.randn_like(x)

    def gradients(module: nn.Module, device: str) -> list[torch.Tensor]:
        leaf = x.to(device).detach().requires_grad_()
        out = module(leaf)
        out.backward(grad.to(device))
        found = [out.detach(), leaf.grad, *(p.grad for p in module.parameters())]
        return [tensor.cpu() for tensor in found if tensor is not None]

    expected = gradients(norm, "cpu")
    norm.zero_grad()
    for ours, theirs in zip(gradients(norm.to("musa"), "musa"), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=off, atol=off)
    program = values.program()
    names = [
        program.specs[program.site(event).spec].base_name for event in program.events.tolist() if event >= 0
    ]
    assert names.count("aten._fused_rms_norm") == names.count("aten._fused_rms_norm_backward") == 1
    assert "aten.rsqrt" not in names


def test_a_session_that_keeps_nothing_does_not_grow(values: Session) -> None:
    recorder = values.recorder
    x = torch.ones(64, 64, device="musa")
    recorder.paused, recorder.ledger.keeps = True, False
    before = len(recorder.events), len(recorder.ledger.sizes), recorder.ledger.live_bytes
    places = set()
    for _ in range(50):
        y = x @ x
        places.add(y.data_ptr())
    assert y[0, 0] == 64.0
    assert (len(recorder.events), len(recorder.ledger.sizes), recorder.ledger.live_bytes) == before
    assert len(places) == 50
    recorder.paused, recorder.ledger.keeps = False, True
    kept = x @ x
    assert recorder.ledger.live_bytes == before[2] + kept.numel() * 4
