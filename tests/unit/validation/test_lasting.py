"""Loads that outlast their simulation."""

from __future__ import annotations

import pytest

from windtunnel.recipes.layout import Precision
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import open_loop
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.validation.lasting import most_at_once, seconds_of

OPTIONS = DeploymentOptions(
    tensor_parallel_size=1, precision=Precision.FP8, max_num_seqs=64, max_num_batched_tokens=2048,
    enable_prefix_caching=False, stack=Stack.TRTLLM,
)  # fmt: skip


def served(count: int, spread: float) -> list[Served]:
    found = deploy(shipped_model("llama3-8b"), cluster_of("h100-sxm", 1), OPTIONS, 512)
    requests = drawn(count, Lengths(prompt=128, output=64, spread=spread))
    return open_loop(requests, Router(found.start()))


@pytest.mark.parametrize("spread", [0.0, 0.9])
def test_a_long_run_follows_from_its_first_fills(spread: float) -> None:
    whole = served(1500, spread)
    took_s = max(one.finished_s for one in whole)
    assert most_at_once(whole) == 64
    assert seconds_of(1500, whole) == took_s
    assert seconds_of(1500, served(600, spread)) == pytest.approx(took_s, rel=0.03)


def test_what_is_longer_takes_longer_but_for_its_start_and_end() -> None:
    part = served(200, 0.9)
    assert seconds_of(200, part) < seconds_of(400, part) < 2 * seconds_of(200, part)


def test_one_request_at_a_time_goes_on_at_its_own_pace() -> None:
    one = Served(Request(0, 0.0, 8, 8), 0.0, 0.1, 1.0, 0, 0)
    two = one._replace(request=Request(1, 0.0, 8, 8), admitted_s=1.0, first_token_s=1.1, finished_s=2.0)
    three = two._replace(admitted_s=2.0, finished_s=3.0)
    assert most_at_once([one, two, three]) == 1
    assert seconds_of(10, [one, two, three]) == pytest.approx(10.0)
    assert seconds_of(4, [one]) == pytest.approx(4.0)
