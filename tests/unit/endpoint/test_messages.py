"""Anthropic's /v1/messages in front of vLLM, and several answers of one body on their way to its engine."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from windtunnel.endpoint import messages, policy
from windtunnel.endpoint.asked import completions
from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.vllm import middleware, settings, several
from windtunnel.endpoint.vllm.progress import EACH, END, FORCED, PICTURES, Progress
from windtunnel.endpoint.writer import VARIED

PRICE = {
    "name": "price",
    "input_schema": {"type": "object", "properties": {"chip": {"type": "string"}}, "required": ["chip"]},
}
PICTURE = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Which card?"}], **more}


def answered(asked: dict[str, Any]) -> policy.Answer:
    (wanted,) = messages.message(json.dumps(asked).encode())
    return policy.answer(wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, 20)


def test_agents_proceed() -> None:
    first = answered(body(tools=[PRICE], system=[{"type": "text", "text": "You buy cards."}]))
    assert [call.name for call in first.calls] == ["price"]
    made = {"type": "tool_use", "id": "a", "name": "price", "input": {"chip": "x"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "42"}]}
    turns = [
        {"role": "user", "content": "Which card?"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, made]},
        {"role": "user", "content": [result]},
    ]
    then = answered(body(messages=turns, tools=[PRICE]))
    assert not then.calls
    assert then.text
    assert answered(body(messages=turns, tools=[PRICE], tool_choice={"type": "tool", "name": "price"})).calls
    assert not answered(body(tools=[PRICE], tool_choice={"type": "none"})).calls
    schema = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}
    structured = answered(body(output_config={"format": {"type": "json_schema", "schema": schema}}))
    assert json.loads(structured.text) == {"done": False}


@pytest.mark.parametrize(
    "wrong",
    [{"messages": []}, {"max_tokens": 0}, {"tools": [{}]}, {"tool_choice": {"type": "tool", "name": "no"}}],
)
def test_mistakes_are_left_to_vllm(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadBody):
        messages.message(json.dumps(body(**wrong)).encode())


def test_what_vllm_is_sent_needs_no_grammar_and_no_pictures() -> None:
    inner = {"type": "tool_result", "tool_use_id": "a", "content": [PICTURE]}
    asked = body(
        messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, PICTURE, inner]}],
        tools=[PRICE], tool_choice={"type": "any"}, output_config={"format": {"schema": {}}, "effort": "low"},
    )  # fmt: skip
    wanted = messages.message(json.dumps(asked).encode())
    assert wanted[0].tool_choice == "required"
    assert len(wanted[0].images) == 2
    sent = json.loads(middleware._told(middleware.MESSAGES, asked, wanted, [[5, 6]], 2))
    assert sent["vllm_xargs"] == {FORCED: "5,6", END: "2", PICTURES: "2040,2040"}
    assert (sent["tool_choice"], sent["output_config"]) == ({"type": "auto"}, {"effort": "low"})
    assert "image" not in json.dumps(sent["messages"])
    assert json.dumps(sent["messages"]).count(" the the the") > 100


@dataclass
class Params:
    extra_args: dict[str, Any] | None


@dataclass
class Request:
    request_id: str
    sampling_params: Params | None


@dataclass
class Core:
    """vLLM's client of its engines, as far as it is used."""

    sent: list[Request] = field(default_factory=list)

    async def add_request_async(self, request: Request) -> None:
        self.sent.append(request)


def test_every_request_takes_its_own_answer_along() -> None:
    core, told = Core(), Params({FORCED: ["0", "1", "2", "3"], EACH: 2, END: "9"})
    several.install(core)
    several.install(core)
    names = [
        "0_cmpl-a-1-0-0a1b2c3d",
        "1_cmpl-a-1-0-0a1b2c3d",
        "0_cmpl-a-1-1-12345678",
        "1_cmpl-a-1-1-12345678",
    ]
    for name in names:
        asyncio.run(core.add_request_async(Request(name, told)))
    sent = [request.sampling_params for request in core.sent]
    assert [one.extra_args for one in sent if one] == [{FORCED: str(place), END: "9"} for place in range(4)]
    assert told.extra_args is not None
    assert len(told.extra_args[FORCED]) == 4  # the body's own stays, for the others
    plain = Request("chatcmpl-1", Params({FORCED: "5"}))
    asyncio.run(core.add_request_async(plain))
    assert core.sent[-1] is plain


@pytest.mark.parametrize(
    ("name", "each", "place"),
    [
        ("chatcmpl-9-3-0a1b2c3d", 1, 0), ("2_chatcmpl-9-3-0a1b2c3d", 4, 2), ("cmpl-x-3-0a1b2c3d", 1, 3),
        ("1_cmpl-x-3-0a1b2c3d", 4, 13), ("cmpl-x-12345678-3", 1, 3), ("cmpl-7_cmpl-0-0a1b2c3d", 1, 0),
    ],
)  # fmt: skip
def test_which_answer_a_name_means(name: str, each: int, place: int) -> None:
    assert several.place(name, each) == place


def test_more_answers_than_vllm_ever_holds_are_refused_at_once() -> None:
    state = SimpleNamespace(
        vllm_config=SimpleNamespace(scheduler_config=SimpleNamespace(max_num_queued_reqs=4))
    )
    scope = {"app": SimpleNamespace(state=state)}
    for raw, param in (
        (b'{"prompt": "x", "n": 5}', "n"),
        (b'{"prompt": ["a", "b", "c", "d", "e"]}', "prompt"),
    ):
        with pytest.raises(BadBody, match="--max-num-queued-reqs") as caught:
            middleware._check_room(scope, completions(raw))
        assert caught.value.param == param
    middleware._check_room(scope, completions(b'{"prompt": "x", "n": 4}'))
    middleware._check_room({}, completions(b'{"prompt": "x", "n": 5}'))


class Tokenizer:
    """A word a token."""

    eos_token_id = 2

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return [sum(map(ord, word)) for word in text.split()]


def passed(monkeypatch: pytest.MonkeyPatch, path: str, asked: dict[str, Any], **told: Any) -> dict[str, Any]:
    """The body that reaches vLLM."""
    for name, value in settings.Settings(**told).environment("mtt-s5000").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(middleware, "_tokenizer", lambda scope: Tokenizer())
    got: list[dict[str, Any]] = []

    async def vllm(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        assert dict(scope["headers"])[b"content-length"] == str(len(message["body"])).encode()
        got.append(json.loads(message["body"]))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(asked).encode()}

    async def send(message: object) -> None:
        raise AssertionError(message)

    state = SimpleNamespace(
        args=SimpleNamespace(tool_call_parser="hermes", served_model_name=["served"]),
        engine_client=SimpleNamespace(engine_core=Core()),
    )
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [],
        "app": SimpleNamespace(state=state),
    }
    asyncio.run(middleware.Policy(vllm)(scope, receive, send))
    return got[0]


def test_each_choice_is_told_its_own_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {"model": "served", "prompt": ["a", "b"], "n": 2, "max_tokens": 4}
    sent = passed(monkeypatch, "/v1/completions", prompts)
    told = sent["vllm_xargs"]
    assert (len(set(told[FORCED])), told[EACH], told[END]) == (4, 2, "2")
    assert all(len(line.split(",")) <= 4 for line in told[FORCED])  # no more than may come out
    alone = passed(monkeypatch, "/v1/completions", {**prompts, "prompt": "b", "n": 1, "seed": 1})
    assert alone["vllm_xargs"] == {FORCED: told[FORCED][3], END: "2"}


def test_a_long_answer_travels_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = passed(monkeypatch, "/v1/completions", {"prompt": "a", "max_tokens": 60_000, "ignore_eos": True})
    told = sent["vllm_xargs"]
    assert END not in told
    assert len(told[FORCED].split(",")) <= VARIED
    progress = Progress(0, 0.0, random.Random(0))
    told[FORCED] = "5,6,7"
    new = SimpleNamespace(
        req_id="a",
        prompt_token_ids=[1],
        num_computed_tokens=0,
        sampling_params=SimpleNamespace(extra_args=told),
    )
    progress.take(_scheduled({"a": 1}, [new]))
    again = SimpleNamespace(req_ids=["a"], num_computed_tokens=[1], resumed_req_ids=(), num_output_tokens=[1])
    said = [progress.take(_scheduled({"a": 1}, (), again)).sampled[0][0] for _ in range(5)]
    assert said == [6, 7, 5, 6, 7]


def _scheduled(counts: dict[str, int], new: Sequence[Any], again: Any = None) -> Any:
    nobody = SimpleNamespace(req_ids=[], num_computed_tokens=[], resumed_req_ids=(), num_output_tokens=[])
    return SimpleNamespace(
        num_scheduled_tokens=counts, scheduled_new_reqs=new, scheduled_cached_reqs=again or nobody,
        scheduled_spec_decode_tokens={}, finished_req_ids=(),
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/chat/completions", middleware.MESSAGES])
def test_any_name_is_taken_where_asked_for(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    assert passed(monkeypatch, path, body(model="gpt-9"))["model"] == "gpt-9"  # vLLM says that it has none
    assert passed(monkeypatch, path, body(model="gpt-9"), any_name=True)["model"] == "served"
