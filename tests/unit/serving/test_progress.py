"""Loads say how far they are, and what is known of them when they are broken off."""

from __future__ import annotations

import pytest

from tests.unit.serving.traffic import replica, traffic
from windtunnel.serving.progress import Watch
from windtunnel.serving.router import Router
from windtunnel.serving.simulate import closed_loop, open_loop


@pytest.mark.parametrize("closed", [False, True])
def test_how_far_a_load_is(closed: bool) -> None:
    requests = traffic(60)
    engines = [replica(number=0), replica(number=1)]
    said: list[str] = []
    watch = Watch(len(requests), engines, [], said.append)
    if closed:
        closed_loop(requests, engines, 8)
    else:
        open_loop(requests, Router(engines))
    answered = [int(text.split(", ")[1].split(" ")[0]) for text in said]
    assert len(said) > 5
    assert answered == sorted(answered)
    assert 0 < answered[len(answered) // 2] < 60
    watch.known()
    assert said[-1].split("; ")[0].endswith(" s, 60 of 60 requests answered")
    assert [part.split(" ")[0] for part in said[-1].split("; ")[1:]] == ["TTFT", "TPOT"]


def test_nothing_is_known_of_a_load_that_nobody_has_answered() -> None:
    said: list[str] = []
    Watch(5, [replica()], [replica()], said.append).known()
    assert said == ["0 s, 0 prompts done, 0 of 5 requests answered"]
