"""The detector on a real training run: valid arithmetic passes, every injected defect is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from windtunnel.align.controls import (
    ControlResult,
    Defect,
    fp8_linears,
    injected,
    middle_matrix,
    require_caught,
    suite,
)
from windtunnel.align.locked import (
    LockedStep,
    flagged_names,
    locked_step,
    verdicts,
)
from windtunnel.errors import WindtunnelError
from windtunnel.numerics.profiles import HOPPER, S5000
from windtunnel.numerics.training import BLOCKWISE, S5000_BLOCKWISE, TENSORWISE

WIDTH, PERIOD, LENGTH, TOKENS = 64, 9, 32, 32
Context = Callable[[], AbstractContextManager]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        query, key, value = self.qkv(self.norm(x)).view(rows, length, 3, 4, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.down(F.silu(self.up(self.mlp_norm(x))))


class Model(nn.Module):
    """Two layers that learn to repeat a random sequence, which takes attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, TOKENS, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.08)

    def loss(self, step: int) -> torch.Tensor:
        draw = torch.Generator().manual_seed(1000 + step)
        tokens = torch.randint(0, TOKENS, (16, PERIOD), generator=draw).repeat(1, 4)[:, : LENGTH + 1]
        hidden = self.embed(tokens[:, :-1]) + self.position.weight
        for block in self.blocks:
            hidden = block(hidden)
        logits = self.head(self.norm(hidden))[:, PERIOD:]
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1 + PERIOD :].flatten())


def gradients(model: Model, step: int, context: Context) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    with context():
        loss = model.loss(step)
        loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def checkpoints() -> list[tuple[int, dict[str, torch.Tensor]]]:
    """States on the reference's trajectory, and proof that it learned."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    saved, losses = [], []
    for step in range(80):
        loss = model.loss(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if step in (49, 79):
            saved.append((step + 1, {name: t.clone() for name, t in model.state_dict().items()}))
    assert losses[-1] < 0.1 * losses[0]
    return saved


def run(checkpoints: list, golden: Context, candidate: Callable[[Model], Context]) -> list[LockedStep]:
    steps = []
    for step, state in checkpoints:
        model = Model()
        model.load_state_dict(state)
        wanted, found = gradients(model, step, golden), gradients(model, step, candidate(model))
        steps.append(locked_step(step, wanted[0], found[0], wanted[1], found[1]))
    return steps


VALID = {
    "s5000 blocks": (S5000_BLOCKWISE, S5000),
    "hopper blocks": (BLOCKWISE, HOPPER),
    "hopper per tensor, 13 bits without promotion": (TENSORWISE, HOPPER),
    "s5000 per tensor": (TENSORWISE, S5000),
}


@pytest.mark.parametrize("name", VALID)
def test_valid_arithmetic_passes(checkpoints: list, name: str) -> None:
    recipe, profile = VALID[name]
    golden = partial(fp8_linears, recipe, profile.idealised())
    steps = run(checkpoints, golden, lambda _: partial(fp8_linears, recipe, profile))
    assert flagged_names(steps) == []
    assert 0 < max(verdict.error for verdict in verdicts(steps)) < 0.15


@pytest.mark.parametrize("defect", list(Defect))
def test_defects_are_named(checkpoints: list, defect: Defect) -> None:
    def broken(model: Model) -> Context:
        def context() -> AbstractContextManager:
            stack = ExitStack()
            stack.enter_context(fp8_linears(S5000_BLOCKWISE, S5000))
            stack.enter_context(injected(defect, dict(model.named_parameters())))
            return stack

        return context

    steps = run(checkpoints, partial(fp8_linears, S5000_BLOCKWISE, S5000.idealised()), broken)
    names = flagged_names(steps)
    assert names
    if defect is Defect.HALVED_GRADIENT:
        assert names == [middle_matrix(dict(Model().named_parameters()))]
        assert max(abs(step.loss_deviation) for step in steps) < 1e-3  # the loss does not see it
        assert max(step.global_error for step in steps) < 0.25  # nor does the gradient as a whole


def test_a_rerun_is_identical(checkpoints: list) -> None:
    context = partial(fp8_linears, S5000_BLOCKWISE, S5000)
    steps = run(checkpoints[:1], context, lambda _: context)
    assert all(row.identical for row in steps[0].gradients.values())
    assert steps[0].loss_deviation == 0
    plain = run(checkpoints[:1], nullcontext, lambda _: nullcontext)
    assert all(row.identical for row in plain[0].gradients.values())


def test_replaced_functions_are_put_back() -> None:
    before = F.linear, F.scaled_dot_product_attention, F.conv2d
    for defect in Defect:
        with injected(defect, dict(Model().named_parameters())):
            pass
    with fp8_linears(TENSORWISE, S5000):
        assert F.linear is not before[0]
    assert (F.linear, F.scaled_dot_product_attention, F.conv2d) == before


def test_a_report_needs_all_controls() -> None:
    for has_attention in (True, False):
        caught = [ControlResult(defect, True, ("weight",)) for defect in suite(has_attention)]
        require_caught(caught)
    silent = [*caught[:2], ControlResult(caught[2].defect, False, ())]
    for results in (caught[:2], silent):
        with pytest.raises(WindtunnelError) as error:
            require_caught(results)
        assert error.value.code == "E715"
    with pytest.raises(WindtunnelError):
        middle_matrix({"bias": torch.ones(2)})


def test_not_a_number_is_always_flagged_and_dust_never() -> None:
    reference = {"a": torch.ones(4), "dust": torch.full((4,), 1e-7), "broken": torch.ones(4)}
    candidate = {"a": torch.ones(4), "dust": -reference["dust"], "broken": torch.full((4,), torch.nan)}
    found = {v.name: v for v in verdicts([locked_step(0, 1.0, 1.0, reference, candidate)])}
    assert found["broken"].flagged
    assert found["dust"].negligible
    assert not found["dust"].flagged
    with pytest.raises(WindtunnelError):
        verdicts([])
