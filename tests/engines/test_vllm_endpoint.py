"""The real vLLM behind our middleware: its limits and parsers, answers that end, streams that are let to theirs."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.test_clients import free_port, started
from tests.engines.test_layouts import metric, serve

pytestmark = pytest.mark.slow
MODEL, CONTEXT = "qwen3-8b", 8000
ASK = [{"role": "user", "content": "Which card is the cheapest?"}]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    words = serve(MODEL, "--on", "mtt-s5000", "--max-model-len", str(CONTEXT))
    process, root = started([*words, "--vllm-args", "--tool-call-parser qwen3_coder"], free_port())
    yield root, process
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def post(root: str, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    raw = json.dumps({"model": MODEL, **body}).encode()
    request = urllib.request.Request(f"{root}/v1/{path}", raw, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_context_is_what_was_asked_for(running: tuple[str, Any]) -> None:
    root, _ = running
    with urllib.request.urlopen(f"{root}/v1/models", timeout=30) as answer:
        assert json.load(answer)["data"][0]["max_model_len"] == CONTEXT
    status, body = post(root, "completions", prompt=[7] * (CONTEXT + 1))
    assert (status, str(CONTEXT) in body["error"]["message"]) == (400, True)


def test_bodies_that_only_vllm_reads_end(running: tuple[str, Any]) -> None:
    root, _ = running
    status, body = post(root, "chat/completions", messages=ASK, n=2)
    assert (status, [choice["finish_reason"] for choice in body["choices"]]) == (200, ["stop", "stop"])
    status, body = post(root, "responses", input="")
    assert (status, body["status"]) == (200, "completed")
    assert post(root, "chat/completions", messages=ASK, vllm_xargs=[1])[0] == 400


def test_calls_are_read_by_the_parser_that_was_chosen(running: tuple[str, Any]) -> None:
    root, _ = running
    cards = {"type": "integer", "minimum": 2}
    parameters = {"type": "object", "properties": {"cards": cards}, "required": ["cards"]}
    tool = {"type": "function", "function": {"name": "price", "parameters": parameters}}
    status, body = post(root, "chat/completions", messages=ASK, tools=[tool])
    (call,) = body["choices"][0]["message"]["tool_calls"]
    assert (status, call["function"]["name"]) == (200, "price")
    assert json.loads(call["function"]["arguments"]) == {"cards": 2}


def test_agents_proceed_in_anthropics_format(running: tuple[str, Any]) -> None:
    root, _ = running
    schema = {
        "type": "object",
        "properties": {"cards": {"type": "integer", "minimum": 2}},
        "required": ["cards"],
    }
    tools = [{"name": "price", "input_schema": schema}]
    status, body = post(root, "messages", messages=ASK, tools=tools, max_tokens=200)
    assert (status, body["stop_reason"]) == (200, "tool_use")
    (call,) = body["content"]
    assert (call["name"], call["input"]) == ("price", {"cards": 2})
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "42"}
    turns = [*ASK, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    status, body = post(root, "messages", messages=turns, tools=tools, max_tokens=200)
    assert (status, [part["type"] for part in body["content"]]) == (200, ["text"])
    status, body = post(root, "messages", messages=ASK, max_tokens=200, model="nobody")
    assert (status, body["type"]) == (404, "error")
    assert post(root, "chat/completions/batch", messages=[ASK])[0] == 404


def test_several_answers_differ_whatever_their_number(running: tuple[str, Any]) -> None:
    root, _ = running
    status, body = post(root, "completions", prompt=["one", "another"], n=40, max_tokens=12)
    assert status == 200
    assert len({choice["text"] for choice in body["choices"]}) == 80


def test_streams_that_are_left_free_their_places(running: tuple[str, Any]) -> None:
    root, _ = running
    stream(root, tokens=6000).close()
    until = time.monotonic() + 30
    while metric(root, "num_requests_running") and time.monotonic() < until:
        time.sleep(0.2)
    assert metric(root, "num_requests_running") == 0
    assert metric(root, "kv_cache_usage_perc") == 0


def test_an_interrupt_lets_a_stream_end(running: tuple[str, subprocess.Popen[bytes]]) -> None:
    """The last test: the server is gone after it."""
    root, process = running
    answer = stream(root, tokens=1500)
    process.send_signal(signal.SIGTERM)
    assert answer.read().strip().endswith(b"data: [DONE]")
    process.wait(60)


def stream(root: str, tokens: int) -> http.client.HTTPResponse:
    """A stream whose first token has come."""
    body = {"model": MODEL, "prompt": "hello", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{root}/v1/completions", json.dumps(body).encode(), headers)
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=120)
    assert answer.readline().startswith(b"data:")
    return answer
