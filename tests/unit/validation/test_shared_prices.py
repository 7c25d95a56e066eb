"""Deployments share step prices where, and only where, their steps cost the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.shared_prices import with_known_prices

PLAIN = DeploymentOptions(tensor_parallel_size=1)


def test_limits_of_a_step_do_not_change_its_price() -> None:
    model, cluster = shipped_model("llama3-8b"), cluster_of("h100-sxm", 1)
    first = with_known_prices(deploy(model, cluster, PLAIN))
    wider = deploy(model, cluster, replace(PLAIN, max_num_seqs=64, max_num_batched_tokens=2048))
    assert with_known_prices(wider).step is first.step
    assert with_known_prices(wider).options.max_num_seqs == 64
    assert wider.step.decode_s(40, 40_000) == first.step.decode_s(40, 40_000)


@pytest.mark.parametrize(
    "change",
    [
        {"stack": Stack.TRTLLM},
        {"enforce_eager": True},
        {"kv_cache_dtype": "float8_e4m3fn"},
        {"cudagraph_capture_sizes": (1, 64)},
        {"speculation": Speculation(tokens=1, acceptance=0.5)},
    ],
)
def test_whatever_changes_a_step_is_priced_apart(change: dict[str, object]) -> None:
    model, cluster = shipped_model("llama3-8b"), cluster_of("h100-sxm", 1)
    plain = with_known_prices(deploy(model, cluster, PLAIN))
    other = deploy(model, cluster, replace(PLAIN, **change))  # type: ignore[arg-type]
    assert with_known_prices(other).step is other.step is not plain.step
    assert other.step.decode_s(40, 40_000) != plain.step.decode_s(40, 40_000)


def test_another_card_is_priced_apart() -> None:
    model = shipped_model("llama3-8b")
    steps = {
        id(with_known_prices(deploy(model, cluster_of(name, 1), PLAIN)).step) for name in ("h200", "h20")
    }
    assert len(steps) == 2
