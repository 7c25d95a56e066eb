"""Probabilities: a virtual model has none, and says so, the same on every path, streamed or not, in both engines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from tests.unit.endpoint.test_server import Running, ask
from windtunnel.endpoint import openapi
from windtunnel.endpoint.server import Endpoint
from windtunnel.endpoint.vllm import middleware
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

CHAT, TEXT, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ASKED: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"logprobs": True}, "logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 5}, "logprobs"),
    (CHAT, {"top_logprobs": 5}, "top_logprobs"),
    (CHAT, {"prompt_logprobs": 0}, "prompt_logprobs"),
    (TEXT, {"prompt": "x", "logprobs": 0}, "logprobs"),
    (TEXT, {"prompt": "x", "logprobs": 5}, "logprobs"),
    (TEXT, {"prompt": ["x", "y"], "logprobs": 5}, "logprobs"),
    (TEXT, {"prompt": "x", "prompt_logprobs": 1}, "prompt_logprobs"),
    (RESPONSE, {"input": "x", "top_logprobs": 2}, "top_logprobs"),
    (RESPONSE, {"input": "x", "include": ["message.output_text.logprobs"]}, "include"),
]
DECLINED: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"logprobs": False, "top_logprobs": 0}),
    (CHAT, {"logprobs": None, "top_logprobs": None, "prompt_logprobs": None}),
    (TEXT, {"prompt": "x", "logprobs": None}),
    (RESPONSE, {"input": "x", "top_logprobs": 0, "include": ["reasoning.encrypted_content"]}),
]


@pytest.fixture(scope="module")
def fast() -> Iterator[Running]:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    running = Running(Endpoint(deployment, speed=50.0))
    yield running
    running.stop()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body", "param"), ASKED)
def test_they_are_refused_with_the_field(
    fast: Running, path: str, body: dict[str, Any], param: str, stream: bool
) -> None:
    answer = ask(fast, path, **body, stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert f"leave `{param}` out" in error["message"]


@pytest.mark.parametrize(("path", "body"), DECLINED)
def test_declining_them_is_heard(fast: Running, path: str, body: dict[str, Any]) -> None:
    assert ask(fast, path, **body).status_code == 200


def test_the_description_says_so() -> None:
    schemas = openapi.document()["components"]["schemas"]
    chat, text = schemas["ChatBody"]["properties"], schemas["CompletionBody"]["properties"]
    assert (chat["logprobs"]["enum"], text["logprobs"]["enum"]) == ([False, None], [None])
    assert schemas["ResponseBody"]["properties"]["top_logprobs"]["enum"] == [0, None]
    for listed in (chat, text):
        whole = listed["n"]["anyOf"][0]
        assert (whole["minimum"], whole["maximum"]) == (1, 128)
    assert text["prompt"]["anyOf"][2]["maxItems"] == 1024


@pytest.mark.parametrize(("path", "body", "param"), ASKED)
def test_vllm_is_not_asked_for_them(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], param: str
) -> None:
    if path == CHAT:
        body = {"messages": [{"role": "user", "content": "hello"}], **body}
    monkeypatch.setenv("WINDTUNNEL_ON", "mtt-s5000")
    sent: list[MutableMapping[str, Any]] = []

    async def vllm(*_: object) -> None:
        raise AssertionError("vLLM was asked")

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    asyncio.run(middleware.Policy(vllm)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["param"] == param
