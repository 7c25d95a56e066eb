"""The endpoint over real loopback sockets: answers, streams, pace, cancellation, overload, mistakes."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from windtunnel.cli.main import main
from windtunnel.endpoint.server import Endpoint
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.predict import Load, lived
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    options = DeploymentOptions(max_num_seqs=4)
    return deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), options)


class Running:
    """A server on a free port, in a thread of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(endpoint.app, log_level="error", access_log=False)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def fast(deployment: Deployment) -> Iterator[Running]:
    running = Running(Endpoint(deployment, speed=20.0))
    yield running
    running.stop()


@pytest.fixture
def slow(deployment: Deployment) -> Iterator[Running]:
    running = Running(Endpoint(deployment, speed=1.0, max_queue=3))
    yield running
    running.stop()


def ask(running: Running, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    if "chat" in path:
        body.setdefault("messages", [{"role": "user", "content": "hello"}])
    return httpx.post(running.url + path, json=body, timeout=30)


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_chat(fast: Running) -> None:
    body = ask(fast, model="qwen3-8b", max_tokens=12).json()
    (choice,) = body["choices"]
    assert body["model"] == "qwen3-8b"
    assert body["usage"]["completion_tokens"] == 12
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]


def test_completion_with_token_ids(fast: Running) -> None:
    body = ask(fast, "/v1/completions", prompt=[5] * 300, max_tokens=7, ignore_eos=True).json()
    assert body["usage"]["prompt_tokens"] == 300
    assert body["usage"]["completion_tokens"] == 7
    again = ask(fast, "/v1/completions", prompt=[5] * 300, max_tokens=7).json()
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == 300 // 16 * 16


def test_streams_say_the_same_as_whole_answers(fast: Running) -> None:
    whole = ask(fast, max_tokens=15).json()
    options = {"include_usage": True}
    chunks = events(ask(fast, max_tokens=15, stream=True, stream_options=options).text)
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 15
    assert len([delta for delta in deltas if delta]) == 15


def test_tool_calls_stream(fast: Running) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    chunks = events(ask(fast, tools=[tool], stream=True).text)
    calls = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["function"]["name"] for call in calls] == ["f"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"{", None), (b"[]", None), (b'{"messages": []}', "messages"),
        (b'{"messages": [3]}', "messages[0]"), (b'{"messages": [{"role": "user", "content": 3}]}', None),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1048577}', "max_tokens"),
        (b'{"messages": [{"role": "user", "content": "' + b"x" * 2_000_000 + b'"}]}', "messages"),
        (b'{"messages": [{"role": "user", "content": "x"}], "stream": 1}', "stream"),
        (b"[" * 100_000, None), (b"\xff\xfe", None),
    ],
)  # fmt: skip
def test_mistakes_are_named(fast: Running, raw: bytes, param: str | None) -> None:
    answer = httpx.post(fast.url + "/v1/chat/completions", content=raw, timeout=30)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param:
        assert error["param"] == param


def test_pictures_cost_tokens_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shipped_model("qwen3-vl-8b")
    endpoint = Endpoint(deploy(model, cluster_of("mtt-s5000", 1), DeploymentOptions()), speed=20.0)
    running = Running(endpoint)
    (replica,) = endpoint.engine.replicas
    plain, steps = replica.step_seconds, []

    def noted(plans: Any) -> float:
        steps.append(plain(plans))
        return steps[-1]

    monkeypatch.setattr(replica, "step_seconds", noted)
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/screen.png"}}
    content = [{"type": "text", "text": "Where is the button?"}, picture]
    longest = []
    for _ in range(2):
        steps.clear()
        answer = ask(running, messages=[{"role": "user", "content": content}], max_tokens=2).json()
        assert 2040 < answer["usage"]["prompt_tokens"] < 2140
        longest.append(max(steps))
    running.stop()
    tower = endpoint.deployment.step.vision
    assert tower is not None
    tower_s = tower.seconds(2040 * tower.merge)
    assert longest[0] > tower_s
    assert longest[1] < tower_s  # the cache has it


def test_models_that_do_not_see_say_so(fast: Running) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/screen.png"}}
    answer = ask(fast, messages=[{"role": "user", "content": [picture]}])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unsupported_content"
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    answer = ask(fast, messages=[{"role": "user", "content": [sound]}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_content")
    assert "input_audio" in answer.json()["error"]["message"]


def test_responses(fast: Running) -> None:
    whole = ask(fast, "/v1/responses", input="hello", max_output_tokens=9).json()
    assert whole["status"] == "incomplete"
    assert whole["usage"]["output_tokens"] == 9
    (message,) = whole["output"]
    text = ask(fast, "/v1/responses", input="hello", max_output_tokens=9, stream=True).text
    told = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data")]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == message["content"][0]["text"]
    assert told[-1]["response"]["output"][0]["content"] == message["content"]
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    (call,) = ask(fast, "/v1/responses", input="hello", tools=[tool]).json()["output"]
    assert (call["type"], call["name"]) == ("function_call", "f")


def test_embeddings_of_texts_that_share_words_are_near(fast: Running) -> None:
    texts = ["the price of a card hour", "price of one card hour", "weather in Paris"]
    body = ask(fast, "/v1/embeddings", input=texts, dimensions=256).json()
    one, two, three = (row["embedding"] for row in body["data"])

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(one, one) == pytest.approx(1.0)
    assert near(one, two) > 0.5 > near(one, three)
    assert ask(fast, "/v1/embeddings", input=[]).status_code == 400


def test_unknown_models_are_refused_with_the_known_names(fast: Running) -> None:
    answer = ask(fast, model="gpt-9")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "qwen3-8b" in answer.json()["error"]["message"]


def test_a_prompt_beyond_the_context_is_refused_and_an_answer_that_reaches_it_is_cut(
    deployment: Deployment,
) -> None:
    """vLLM 0.33 does both the same (``renderers/params.py``, ``get_max_tokens``)."""
    running = Running(Endpoint(deployment, speed=50.0, max_model_len=256))
    try:
        (model,) = [
            one for one in httpx.get(f"{running.url}/v1/models").json()["data"] if one["id"] == "qwen3-8b"
        ]
        assert model["max_model_len"] == 256
        answer = ask(running, "/v1/completions", prompt=[7] * 256)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "context_length_exceeded")
        assert error["param"] == "prompt"
        assert "256" in error["message"]
        body = ask(running, "/v1/completions", prompt=[7] * 240, max_tokens=100, ignore_eos=True).json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["completion_tokens"] == 16
    finally:
        running.stop()


def test_stop_words_end_the_answer(fast: Running) -> None:
    said = ask(fast, max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = said.split()[3]
    cut = ask(fast, max_tokens=40, stop=[stop]).json()["choices"][0]
    assert cut["message"]["content"] == said[: said.index(stop)]
    assert cut["finish_reason"] == "stop"


def test_other_paths(fast: Running) -> None:
    assert httpx.get(fast.url + "/health").status_code == 200
    assert httpx.get(fast.url + "/v1/models").json()["data"][0]["id"] == "qwen3-8b"
    assert httpx.get(fast.url + "/nowhere").json()["error"]["code"] == "404"
    assert httpx.get(fast.url + "/v1/completions").status_code == 405
    assert "/v1/chat/completions" in ask(fast, "/chat/completions").json()["error"]["message"]
    metrics = httpx.get(fast.url + "/metrics").text
    assert 'vllm:num_requests_running{model_name="qwen3-8b",engine="0"} 0' in metrics
    assert "vllm:time_to_first_token_seconds_count" in metrics


def test_tokens_never_come_before_the_deployment_has_them(slow: Running, deployment: Deployment) -> None:
    # how late a busy machine may be is for the benchmark to say
    body = {"prompt": "hello there", "max_tokens": 40, "ignore_eos": True, "stream": True}
    began = time.monotonic()
    with httpx.stream("POST", slow.url + "/v1/completions", json=body, timeout=30) as answer:
        lines = (line for line in answer.iter_lines() if line.startswith("data: {"))
        times = [time.monotonic() - began for _ in lines]
    step = deployment.step.decode_s(1, 20)
    assert len(times) == 41  # forty tokens, and why it ended
    for place, at in enumerate(times[:40]):
        assert at > place * step * 0.99


def test_nothing_that_looks_like_a_token_comes_before_the_prompt_is_read(
    slow: Running, deployment: Deployment
) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 8000}], "max_tokens": 2, "stream": True}
    began = time.monotonic()
    with httpx.stream("POST", slow.url + "/v1/chat/completions", json=body, timeout=30) as answer:
        next(line for line in answer.iter_lines() if line.startswith("data: {"))
    step = deployment.step.mixed_s(0, 0, [(8192, 0)])  # the first chunk of the prompt alone
    assert time.monotonic() - began > step


def test_clients_that_leave_free_their_place(slow: Running) -> None:
    body = {"prompt": "x" * 400, "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", slow.url + "/v1/completions", json=body, timeout=30) as answer:
        next(answer.iter_lines())
    until = time.monotonic() + 5
    while time.monotonic() < until and slow.endpoint.engine.running:
        time.sleep(0.05)
    engine = slow.endpoint.engine
    assert engine.running == engine.waiting == 0
    assert engine.counters.cancelled == 1
    pool = engine.replicas[0].ranks[0].pool
    assert pool.free == pool.capacity


def test_a_full_queue_says_when_to_come_again(slow: Running) -> None:
    async def flood() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=30) as client:
            body = {"prompt": "hello", "max_tokens": 40, "ignore_eos": True}
            send = [client.post(slow.url + "/v1/completions", json=body) for _ in range(12)]
            return list(await asyncio.gather(*send))

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer.status_code == 429]
    served = [answer for answer in answers if answer.status_code == 200]
    assert refused
    assert len(served) >= 4 + 3  # places and queue: a burst is not refused before the places are taken
    assert len(refused) + len(served) == 12
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}  # 40 tokens take less than a second
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_port_that_is_taken_is_named_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "qwen3-8b", "--on", "mtt-s5000", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert "[E667]" in said
    assert "--port 0 takes a free one" in said


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_page_written(sent: signal.Signals, tmp_path: Path) -> None:
    page = tmp_path / "life.html"
    words = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--port", "0", "--html", str(page)]
    process = subprocess.Popen(
        [sys.executable, "-m", "windtunnel", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url is not None
        # it answers where it says as soon as it says so
        answer = httpx.post(f"{url[0]}/completions", json={"prompt": "hello", "max_tokens": 3}, timeout=30)
        assert answer.status_code == 200
        process.send_signal(sent)
        assert process.wait(30) == 0
        assert "wrote" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert "Qwen3-8B" in page.read_text(encoding="utf-8")


def test_shutdown_lets_answers_end(deployment: Deployment) -> None:
    running = Running(Endpoint(deployment))
    answers: list[httpx.Response] = []
    body = {"prompt": "hello", "max_tokens": 60, "ignore_eos": True}
    client = threading.Thread(
        target=lambda: answers.append(httpx.post(running.url + "/v1/completions", json=body, timeout=30))
    )
    client.start()
    while not running.endpoint.engine.running:
        time.sleep(0.01)
    running.stop()
    client.join(10)
    assert answers[0].json()["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize(
    ("stack", "drafts", "found"), [(Stack.VLLM, 0, 1056), (Stack.VLLM, 2, 1056), (Stack.SGLANG, 1, 1152)]
)
def test_what_prompts_begin_with_is_found_with_recurrent_states(
    stack: Stack, drafts: int, found: int
) -> None:
    options = DeploymentOptions(
        precision=Precision.FP8, tensor_parallel_size=8, stack=stack, speculation=Speculation(tokens=drafts)
    )
    model = shipped_model("qwen3.5-397b-a17b")
    running = Running(Endpoint(deploy(model, cluster_of("mtt-s5000", 8), options), speed=50.0))
    for turn in range(3):  # the second leaves a state where the first one goes on otherwise
        body = {"prompt": 960 * "same " + f"{turn} " + 200 * "other ", "max_tokens": 3, "model": model.name}
        answer = httpx.post(f"{running.url}/v1/completions", json=body, timeout=60).json()
    running.stop()
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == found


@pytest.mark.parametrize("drafts", [0, 2])
def test_what_was_answered_can_be_reported(drafts: int) -> None:
    options = DeploymentOptions(speculation=Speculation(tokens=drafts, acceptance=0.7))
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), options)
    running = Running(Endpoint(deployment, speed=50.0, keeps=True))
    for tokens in (1, 7, 60):
        answer = ask(running, max_tokens=tokens, ignore_eos=True).json()
        assert answer["usage"]["completion_tokens"] == tokens
    running.stop()
    engine = running.endpoint.engine
    assert engine.counters.generation_tokens == 68
    found = lived(deployment, Load(requests=tuple(engine.asked), words="live"), engine.replicas, 1.0)
    assert (found.requests, found.rejected, found.output_tokens) == (3, 0, 68)
    assert found.steps == 68 if not drafts else 68 / 3 <= found.steps < 60
    prompts, decodes = 3, found.steps - 3
    assert engine.replicas[0].busy_s == pytest.approx(
        prompts * deployment.step.whole_s(0, 0, [(16, 0)]) + decodes * deployment.step.whole_s(1, 40, ()),
        rel=0.1,
    )
