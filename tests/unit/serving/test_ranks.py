"""Tensor-parallel sizes that engines take, asked for and chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.layout import Precision
from windtunnel.serving import ranks
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.model_mixers import Attention
from windtunnel.specs.targets import cluster_of


@pytest.mark.parametrize(
    ("name", "apart", "sizes"),
    [
        ("qwen3-8b", False, [1, 2, 4, 8, 16, 32]),  # 32 heads, 8 of keys and values
        ("qwen3.5-397b-a17b", False, [1, 2, 4, 8, 16]),  # 16 key heads of states
        ("deepseek-v3-671b", True, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_sizes_that_share_every_layer(name: str, apart: bool, sizes: list[int]) -> None:
    assert ranks.sizes(shipped_model(name), experts_apart=apart) == sizes


@pytest.mark.parametrize(
    ("cards", "tensor", "able"), [(3, 3, "1"), (24, 12, "1, 2, 4, 8"), (64, 64, "1, 2, 4, 8, 16, 32")]
)
def test_sizes_that_engines_refuse(cards: int, tensor: int, able: str) -> None:
    options = DeploymentOptions(tensor_parallel_size=tensor)
    with pytest.raises(WindtunnelError) as caught:
        deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", cards), options)
    assert caught.value.code == "E653"
    assert caught.value.hint == f"--tp {able}"


@pytest.mark.parametrize("cards", [8, 9, 10, 12, 14, 16, 20, 24, 40, 48, 72, 144])
@pytest.mark.parametrize("name", ["qwen3.5-397b-a17b", "llama3-70b", "minimax-m2.5"])
def test_chosen_layouts_can_be_run(name: str, cards: int) -> None:
    """Every card belongs to a replica, and its ranks share the model."""
    model = shipped_model(name)
    options = DeploymentOptions(precision=Precision.FP8)
    try:
        found = deploy(model, cluster_of("mtt-s5000", cards), options)
    except WindtunnelError as error:
        assert error.code == "E651"  # noqa: PT017 (it may not fit, but is never cut where it cannot be)
        return
    assert found.replicas * found.layout.cards == cards
    assert ranks.divides(model, found.layout.tensor, experts_apart=found.layout.expert > 1)


def test_an_odd_number_of_heads() -> None:
    """28 heads of which 4 are of keys and values, as Qwen2-7B has: never more than four ranks on eight cards."""
    model = shipped_model("qwen3-8b")
    layers = []
    for layer in model.layers:
        assert isinstance(layer.mixer, Attention)
        layers.append(replace(layer, mixer=replace(layer.mixer, heads=28, kv_heads=4)))
    odd = replace(model, layers=tuple(layers))
    assert ranks.sizes(odd, experts_apart=False) == [1, 2, 4]
    assert deploy(odd, cluster_of("mtt-s5000", 8), DeploymentOptions()).layout.tensor == 1
    tight = deploy(odd, cluster_of("mtt-s5000", 8), DeploymentOptions(gpu_memory_utilization=0.1))
    assert (tight.layout.tensor, tight.replicas) == (4, 2)


def test_experts_apart_on_a_layout_that_is_chosen() -> None:
    """``--ep`` alone: as many tensor-parallel ranks as without it (before: one, which fits nothing)."""
    options = DeploymentOptions(precision=Precision.FP8, enable_expert_parallel=True)
    found = deploy(shipped_model("qwen3.5-397b-a17b"), cluster_of("mtt-s5000", 8), options)
    assert (found.layout.tensor, found.layout.data, found.layout.expert) == (8, 1, 8)
