"""Several choices of one body: prompts times `n`, as real clients ask for them over a socket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.endpoint.test_server import Running, ask, events
from windtunnel.endpoint.bodies import CHOICES_MAX, N_MAX
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.server import Endpoint
from windtunnel.endpoint.text import tokens_in
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

PROMPTS = ["the first of them " * 40, [7] * 100, "another"]


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions(max_num_seqs=4))


@pytest.fixture(scope="module")
def fast(deployment: Deployment) -> Iterator[Running]:
    running = Running(Endpoint(deployment, speed=20.0, max_model_len=4096))
    yield running
    running.stop()


def alone(running: Running, prompt: object, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = ask(running, "/v1/completions", prompt=prompt, **body).json()
    return answer


def test_prompts_are_answered_in_their_order_as_each_is_alone(fast: Running) -> None:
    """The choices of a prompt have seeds that follow one another, as vLLM gives them."""
    singles = [alone(fast, prompt, max_tokens=9, seed=seed) for prompt in PROMPTS for seed in (0, 1)]
    body = alone(fast, PROMPTS, max_tokens=9, n=2)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3, 4, 5]
    texts = [choice["text"] for choice in body["choices"]]
    assert texts == [single["choices"][0]["text"] for single in singles]
    assert {choice["finish_reason"] for choice in body["choices"]} == {"length"}
    # as vLLM counts: a prompt once, every answer
    assert body["usage"]["prompt_tokens"] == sum(single["usage"]["prompt_tokens"] for single in singles[::2])
    assert body["usage"]["completion_tokens"] == 6 * 9
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 54


@pytest.mark.parametrize("exact", [False, True])
def test_several_answers_differ_and_come_again_with_their_seed(fast: Running, exact: bool) -> None:
    body: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True} if exact else {}
    first, second, other = (
        [choice["message"]["content"] for choice in ask(fast, n=5, seed=seed, **body).json()["choices"]]
        for seed in (7, 7, 107)
    )
    assert first == second
    assert len(set(first + other)) == 10
    lengths = [tokens_in(text) for text in first]
    assert exact == (len(set(lengths)) == 1)  # drawn apart where they are drawn
    alone = ask(fast, seed=9, **body).json()["choices"][0]["message"]["content"]
    assert alone == first[2]
    cold = [ask(fast, seed=seed, temperature=0, **body).json()["choices"][0]["message"] for seed in (1, 2)]
    assert cold[0] == cold[1] == ask(fast, **body).json()["choices"][0]["message"]


def test_the_same_prompt_again_is_answered_otherwise_unless_a_seed_is_given(fast: Running) -> None:
    def texts(**body: Any) -> list[str]:
        return [
            choice["text"]
            for choice in alone(fast, ["same", "other", "same"], max_tokens=9, **body)["choices"]
        ]

    first, _, again = texts()
    assert first != again
    assert again == alone(fast, "same", max_tokens=9, seed=1)["choices"][0]["text"]
    assert len(set(texts(n=2))) == 6
    seeded = texts(seed=3)
    assert seeded[0] == seeded[2]  # one seed for all prompts of a body, as in vLLM


def test_mean_length_of_several_answers_is_that_of_many() -> None:
    lengths = AnswerLengths(200.0)
    drawn = [lengths.draw("the same prompt", draw) for draw in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(200.0, rel=0.05)


def test_one_of_several_texts_is_said(fast: Running) -> None:
    body = ask(fast, n=3, structured_outputs={"choice": ["yes", "no"]}).json()
    assert [choice["message"]["content"] for choice in body["choices"]] == ["yes", "no", "yes"]


def test_every_choice_is_a_request_and_the_next_ones_find_the_prompt(deployment: Deployment) -> None:
    running = Running(Endpoint(deployment, speed=20.0, keeps=True))
    try:
        body = ask(running, messages=[{"role": "user", "content": "word " * 400}], n=3, max_tokens=5).json()
    finally:
        running.stop()
    engine = running.endpoint.engine
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert [request.prompt_tokens for request in engine.asked] == 3 * [body["usage"]["prompt_tokens"]]
    assert engine.counters.generation_tokens == body["usage"]["completion_tokens"] == 15
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0  # of the first, which found nothing
    found = [one.cached_tokens for replica in engine.replicas for one in replica.served]
    whole = (body["usage"]["prompt_tokens"] - 1) // 16 * 16
    assert sorted(found) == [0, whole, whole]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_streams_carry_the_index(fast: Running, path: str) -> None:
    asked: dict[str, Any] = {"n": 3, "max_tokens": 11} | ({} if "chat" in path else {"prompt": PROMPTS[:2]})
    whole = ask(fast, path, **asked).json()
    chunks = events(ask(fast, path, **asked, stream=True, stream_options={"include_usage": True}).text)
    said: dict[int, str] = {}
    ended: dict[int, str] = {}
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        index = choice["index"]
        assert index not in ended  # nothing comes after it said why it ended
        text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
        said[index] = said.get(index, "") + text
        if choice["finish_reason"]:
            ended[index] = choice["finish_reason"]
    texts = [one["text"] if "text" in one else one["message"]["content"] for one in whole["choices"]]
    assert said == dict(enumerate(texts))
    assert ended == {one["index"]: one["finish_reason"] for one in whole["choices"]}
    assert chunks[-1]["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert chunks[-1]["usage"][name] == whole["usage"][name]


def test_calls_of_several_choices_have_names_of_their_own(fast: Running) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    choices = ask(fast, tools=[tool], n=2).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["tool_calls", "tool_calls"]
    assert len({choice["message"]["tool_calls"][0]["id"] for choice in choices}) == 2


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"n": N_MAX + 1}, "n"),
        ("/v1/chat/completions", {"n": 0}, "n"),
        ("/v1/chat/completions", {"n": 2, "temperature": 0}, "n"),
        ("/v1/completions", {"prompt": "x", "n": N_MAX + 1}, "n"),
        ("/v1/completions", {"prompt": ["x"] * (CHOICES_MAX + 1)}, "prompt"),
        ("/v1/completions", {"prompt": ["x"] * (CHOICES_MAX // N_MAX + 1), "n": N_MAX}, "prompt"),
        ("/v1/completions", {"prompt": ["x", 3]}, "prompt"),
        ("/v1/completions", {"prompt": ["x", ""]}, "prompt"),
        ("/v1/completions", {"prompt": [[1, 2], []]}, "prompt"),
        ("/v1/completions", {"prompt": ["x", [7] * 5000]}, "prompt"),
    ],
)
def test_too_many_and_malformed_ones_are_refused(
    fast: Running, path: str, body: dict[str, Any], param: str
) -> None:
    answer = ask(fast, path, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not fast.endpoint.engine.running  # nothing of such a body began


def settled(running: Running) -> None:
    """Wait until the engine holds nothing."""
    until = time.monotonic() + 5
    while time.monotonic() < until and (running.endpoint.engine.running or running.endpoint.engine.waiting):
        time.sleep(0.05)


def test_a_client_that_leaves_cancels_all_choices(deployment: Deployment) -> None:
    running = Running(Endpoint(deployment))
    try:
        body = {
            "prompt": ["x" * 400, "y" * 400],
            "n": 3,
            "max_tokens": 2000,
            "ignore_eos": True,
            "stream": True,
        }
        with httpx.stream("POST", running.url + "/v1/completions", json=body, timeout=30) as answer:
            next(answer.iter_lines())
        settled(running)
        engine = running.endpoint.engine
        assert engine.running == engine.waiting == 0
        assert engine.counters.cancelled == 6
        pool = engine.replicas[0].ranks[0].pool
        assert pool.free == pool.capacity
    finally:
        running.stop()


def test_all_choices_find_room_or_none_begins(deployment: Deployment) -> None:
    running = Running(Endpoint(deployment, max_queue=3))
    try:
        long = {"prompt": "x", "max_tokens": 400, "ignore_eos": True, "stream": True}
        with httpx.stream("POST", running.url + "/v1/completions", json=long, timeout=30) as under_way:
            lines = under_way.iter_lines()
            next(lines)
            answer = ask(running, n=4 + 3, max_tokens=400, ignore_eos=True)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"]
        assert "--max-queue" in answer.json()["error"]["message"]
        settled(running)
        engine = running.endpoint.engine
        assert engine.running == engine.waiting == 0
        assert len(ask(running, n=4 + 3, max_tokens=2).json()["choices"]) == 7
    finally:
        running.stop()


def test_more_than_ever_find_room_are_not_told_to_come_again(deployment: Deployment) -> None:
    running = Running(Endpoint(deployment, max_queue=3))
    try:
        for path, body, param in (
            ("/v1/chat/completions", {"n": 8}, "n"),
            ("/v1/completions", {"prompt": ["x"] * 8}, "prompt"),
        ):
            answer = ask(running, path, **body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
            assert "7: 4 run (--max-num-seqs) and 3 wait (--max-queue)" in answer.json()["error"]["message"]
    finally:
        running.stop()


def test_every_choice_is_recorded(deployment: Deployment, tmp_path: Path) -> None:
    record = tmp_path / "calls.jsonl"
    running = Running(Endpoint(deployment, speed=20.0, record=record))
    ask(running, "/v1/completions", prompt=["one", "two"], n=2, max_tokens=3)
    running.stop()
    rows = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [row["output_tokens"] for row in rows] == [3, 3, 3, 3]
    assert len({tuple(row["keys"]) for row in rows}) == 2
