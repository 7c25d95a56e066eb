"""FP8 linear layers: gradients that are close to FP32's, recipes that differ, exact and ideal arithmetic."""

from __future__ import annotations

import pytest
import torch

from windtunnel.errors import WindtunnelError
from windtunnel.numerics.formats import E4M3, E5M2
from windtunnel.numerics.profiles import AMPERE, HOPPER, S5000, NumericProfile
from windtunnel.numerics.scaled import chip_block_scaled_mm
from windtunnel.numerics.scaling import ACTIVATION, S5000_BLOCK, WEIGHT, quantise
from windtunnel.numerics.training import (
    BLOCKWISE,
    RECIPES,
    S5000_BLOCKWISE,
    TENSORWISE,
    LinearRecipe,
    fp8_linear,
)

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def gradients(
    recipe: LinearRecipe | None, profile: NumericProfile, dtype: torch.dtype = torch.float32
) -> list:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, 40, 200, generator=draw).to(dtype).requires_grad_()
    weight = torch.randn(72, 200, generator=draw).to(dtype).requires_grad_()
    bias = torch.randn(72, generator=draw).to(dtype).requires_grad_()
    grad = torch.randn(3, 40, 72, generator=draw).to(dtype)
    out = (
        torch.nn.functional.linear(x, weight, bias)
        if recipe is None
        else fp8_linear(x, weight, bias, recipe, profile)
    )
    out.backward(grad)
    return [out.detach(), x.grad, weight.grad, bias.grad]


@every_recipe
@pytest.mark.parametrize("profile", [HOPPER, S5000, S5000.idealised()], ids=["hopper", "s5000", "ideal"])
def test_close_to_fp32_and_not_equal(recipe: LinearRecipe, profile: NumericProfile) -> None:
    true, got = gradients(None, profile), gradients(recipe, profile)
    for ours, theirs in zip(got[:3], true[:3], strict=True):
        assert ours is not None
        assert ours.shape == theirs.shape
        error = float((ours - theirs).norm() / theirs.norm())
        assert 0.01 < error < 0.1
    assert torch.equal(got[3], true[3])


@every_recipe
def test_dtypes_follow_the_operands(recipe: LinearRecipe) -> None:
    assert {tensor.dtype for tensor in gradients(recipe, S5000.idealised(), torch.bfloat16)} == {
        torch.bfloat16
    }


def test_the_block_recipe_is_three_block_scaled_products() -> None:
    x, weight = torch.randn(40, 200, requires_grad=True), torch.randn(72, 200, requires_grad=True)
    grad = torch.randn(40, 72)
    out = fp8_linear(x, weight, None, S5000_BLOCKWISE, S5000)
    out.backward(grad)

    def product(a: torch.Tensor, b: torch.Tensor, first, tile) -> torch.Tensor:
        left, right = quantise(a, first, ACTIVATION, S5000_BLOCK), quantise(b, E4M3, tile, S5000_BLOCK)
        return chip_block_scaled_mm(left, right, profile=S5000, out_dtype=torch.float32)

    x, weight, x_grad, weight_grad = x.detach(), weight.detach(), x.grad, weight.grad
    assert torch.equal(out.detach(), product(x, weight, E4M3, WEIGHT))
    assert torch.equal(x_grad, product(grad, weight.t(), E5M2, WEIGHT))
    assert torch.equal(weight_grad, product(grad.t(), x.t(), E5M2, ACTIVATION))


def test_gradient_format_matters() -> None:
    hybrid, single = gradients(S5000_BLOCKWISE, S5000), gradients(BLOCKWISE, S5000)
    true = gradients(None, S5000)
    assert float((hybrid[2] - true[2]).norm()) > 1.3 * float((single[2] - true[2]).norm())


def test_only_the_asked_gradients() -> None:
    x, weight = torch.randn(4, 32), torch.randn(8, 32, requires_grad=True)
    fp8_linear(x, weight, None, TENSORWISE, S5000).sum().backward()
    assert weight.grad is not None
    assert x.grad is None


@every_recipe
def test_no_rows(recipe: LinearRecipe) -> None:
    x, weight = torch.empty(0, 32, requires_grad=True), torch.randn(16, 32, requires_grad=True)
    out = fp8_linear(x, weight, None, recipe, S5000.idealised())
    out.sum().backward()
    assert out.shape == (0, 16)
    assert weight.grad is not None
    assert bool((weight.grad == 0).all())


def test_chips_without_fp8_refuse() -> None:
    with pytest.raises(WindtunnelError) as caught:
        fp8_linear(torch.ones(2, 32), torch.ones(4, 32), None, TENSORWISE, AMPERE)
    assert caught.value.code == "E702"


def test_a_small_model_learns_in_fp8() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(64, 32) / 6, torch.randn(1, 64) / 8]
    weights = [weight.requires_grad_() for weight in weights]
    x = torch.randn(256, 32)
    target = (x[:, :1] * x[:, 1:2]).tanh()
    optimizer = torch.optim.AdamW(weights, 3e-3)
    losses = []
    for _ in range(60):
        hidden = torch.relu(fp8_linear(x, weights[0], None, S5000_BLOCKWISE, S5000))
        loss = (fp8_linear(hidden, weights[1], None, S5000_BLOCKWISE, S5000) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
