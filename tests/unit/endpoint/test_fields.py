"""Fields that clients send: honoured, or refused with the field and the reason; never left out unsaid."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, MutableMapping
from typing import Any

import httpx
import pytest

from tests.unit.endpoint.test_server import Running, ask, events
from windtunnel.endpoint.server import Endpoint
from windtunnel.endpoint.unoffered import NATIVELY, NOWHERE
from windtunnel.endpoint.vllm import middleware
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

CHAT, TEXT, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ANYWHERE = [
    *(({field: [1]}, field) for field in NOWHERE),
    ({"best_of": 3}, "best_of"),
    ({"best_of": 2, "n": 1}, "best_of"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"structured_outputs": {"grammar": "root ::= x"}}, "structured_outputs.grammar"),
    ({"structured_outputs": {"regex": "(?=a)b"}}, "structured_outputs.regex"),
]


@pytest.fixture(scope="module")
def fast() -> Iterator[Running]:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    running = Running(Endpoint(deployment, speed=50.0))
    yield running
    running.stop()


@pytest.mark.parametrize(
    ("body", "param"), [*ANYWHERE, *(({field: [1]}, field) for field in NATIVELY), ({"echo": True}, "echo")]
)
def test_what_is_not_offered_is_refused(fast: Running, body: dict[str, Any], param: str) -> None:
    answer = ask(fast, CHAT, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", param)
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("body", "param"),
    [*ANYWHERE, ({"response_format": {"type": "xml"}}, "response_format.type"), ({"n": 500}, "n")],
)
def test_vllm_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch, body: dict[str, Any], param: str) -> None:
    monkeypatch.setenv("WINDTUNNEL_ON", "mtt-s5000")
    sent: list[MutableMapping[str, Any]] = []

    async def vllm(*_: object) -> None:
        raise AssertionError("vLLM was asked")

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": json.dumps({"prompt": "x", **body}).encode()}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": TEXT, "headers": []}
    asyncio.run(middleware.Policy(vllm)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"frequency_penalty": 9}, "frequency_penalty"), ({"seed": 1 << 64}, "seed"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(fast: Running, body: dict[str, Any], param: str) -> None:
    answer = ask(fast, CHAT, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_asking_for_nothing_is_heard(fast: Running) -> None:
    body = dict.fromkeys((*NOWHERE, *NATIVELY)) | {
        "logit_bias": {}, "suffix": "", "best_of": 2, "n": 2, "modalities": ["text"], "user": "me", "top_k": 5,
        "frequency_penalty": 0.5,
    }  # fmt: skip
    assert len(ask(fast, TEXT, prompt="x", **body).json()["choices"]) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_echo_repeats_the_prompt_before_each_answer(fast: Running, stream: bool) -> None:
    body: dict[str, Any] = {"prompt": ["Once upon", "And \x00 then"], "n": 2, "max_tokens": 5}
    plain = [choice["text"] for choice in ask(fast, TEXT, **body).json()["choices"]]
    answer = ask(fast, TEXT, **body, echo=True, stream=stream)
    texts = ["", "", "", ""]
    for part in events(answer.text) if stream else [answer.json()]:
        for choice in part["choices"]:
            texts[choice["index"]] += choice["text"]
    prompts = [prompt for prompt in body["prompt"] for _ in range(2)]
    assert texts == [prompt + text for prompt, text in zip(prompts, plain, strict=True)]
    if not stream:
        assert answer.json()["usage"]["completion_tokens"] == 20  # the prompt was not generated
    (only,) = ask(fast, TEXT, prompt="Once upon", echo=True, max_tokens=0).json()["choices"]
    assert (only["text"], only["finish_reason"]) == ("Once upon", "length")  # as vLLM's
    assert ask(fast, TEXT, prompt="x", max_tokens=0).json()["error"]["param"] == "max_tokens"
    assert ask(fast, TEXT, prompt=[1, 2], echo=True).json()["error"]["param"] == "echo"


def test_a_completion_has_sixteen_tokens_where_nobody_says(fast: Running) -> None:
    body = ask(fast, TEXT, prompt="x").json()
    assert body["usage"]["completion_tokens"] <= 16


def test_min_tokens_make_an_answer_longer(fast: Running) -> None:
    lengths = [ask(fast, seed=seed).json()["usage"]["completion_tokens"] for seed in range(8)]
    least = sorted(lengths)[4]
    longer = [
        ask(fast, seed=seed, min_tokens=least).json()["usage"]["completion_tokens"] for seed in range(8)
    ]
    assert longer == [max(length, least) for length in lengths]
    assert ask(fast, max_tokens=4, min_tokens=5).json()["error"]["param"] == "min_tokens"


def test_the_stop_word_may_be_kept(fast: Running) -> None:
    said = ask(fast, max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = said.split()[3]
    kept = ask(fast, max_tokens=40, stop=stop, include_stop_str_in_output=True).json()["choices"][0]
    assert kept["message"]["content"] == said[: said.index(stop) + len(stop)]


def test_usage_with_every_event(fast: Running) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(ask(fast, max_tokens=7, stream=True, stream_options=options).text)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk.get("usage")]
    assert counts == [1, 2, 3, 4, 5, 6, 7, 7]
    prompts = [[5] * 30, [6] * 50]
    text = ask(fast, TEXT, prompt=prompts, n=2, max_tokens=3, stream=True, stream_options=options).text
    told = [(chunk["choices"], chunk["usage"]) for chunk in events(text) if chunk.get("usage")]
    assert {(choices[0]["index"], usage["prompt_tokens"]) for choices, usage in told[:-1]} == {
        (0, 30), (1, 30), (2, 50), (3, 50)
    }  # fmt: skip
    assert told[-1][1]["prompt_tokens"] == 80


def test_prompts_of_another_salt_share_no_cache(fast: Running) -> None:
    def cached(**body: Any) -> int:
        usage = ask(fast, TEXT, prompt="salt " * 200, max_tokens=1, **body).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    cached()
    assert cached() > 0
    assert cached(cache_salt="mine") == 0
    assert cached(cache_salt="mine") > 0


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_forms_of_vllms_own_field(fast: Running, path: str) -> None:
    def said(**form: Any) -> str:
        body = {"structured_outputs": form, "max_tokens": 200} | ({"prompt": "x"} if path == TEXT else {})
        (choice,) = ask(fast, path, **body).json()["choices"]
        text: str = choice["text"] if path == TEXT else choice["message"]["content"]
        return text

    schema = {
        "type": "object",
        "properties": {"cards": {"type": "integer", "minimum": 2}},
        "required": ["cards"],
    }
    assert json.loads(said(json=schema)) == {"cards": 2}
    assert json.loads(said(json=json.dumps(schema))) == {"cards": 2}
    assert isinstance(json.loads(said(json_object=True)), dict)
    assert re.fullmatch(r"[A-C]\d{3}", said(regex=r"[A-C]\d{3}"))
    assert said(choice=["cats", "dogs"]) == "cats"


def test_anthropics_format_is_said_to_be_vllms(fast: Running) -> None:
    answer = ask(fast, "/v1/messages", messages=[])
    assert answer.status_code == 404
    assert "--engine vllm" in answer.json()["error"]["message"]


def test_structured_answers_differ_where_their_schema_leaves_a_choice(fast: Running) -> None:
    schema = {
        "type": "object",
        "properties": {
            "verdict": {"enum": ["buy", "rent", "wait"]}, "sure": {"type": "boolean"},
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
        },
    }  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "vote", "schema": schema}}
    choices = ask(fast, n=7, response_format=form).json()["choices"]
    votes = [json.loads(choice["message"]["content"]) for choice in choices]
    assert [vote["verdict"] for vote in votes[:4]] == ["buy", "rent", "wait", "buy"]
    assert [vote["score"] for vote in votes] == [1, 2, 3, 4, 5, 1, 2]
    assert [vote["sure"] for vote in votes[:3]] == [False, True, False]


def test_metrics_say_what_vllm_says_of_several_answers() -> None:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    running = Running(Endpoint(deployment, speed=50.0, max_model_len=512))
    try:
        ask(running, TEXT, prompt=["word " * 60, "other"], n=3, max_tokens=5, ignore_eos=True)
        ask(running, CHAT)
        text = httpx.get(f"{running.url}/metrics").text
    finally:
        running.stop()
    found = {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.M)}
    label = 'model_name="qwen3-8b",engine="0"'
    assert found[f"vllm:request_params_n_count{{{label}}}"] == 3
    assert found[f"vllm:request_params_n_sum{{{label}}}"] == 7
    assert found[f"vllm:request_max_num_generation_tokens_count{{{label}}}"] == 3
    assert found[f"vllm:request_params_max_tokens_count{{{label}}}"] == 7
    assert found[f'vllm:request_params_max_tokens_bucket{{{label},le="5.0"}}'] == 6
    computed, hit = (
        found[f'vllm:prompt_tokens_by_source_total{{{label},source="local_{source}"}}']
        for source in ("compute", "cache_hit")
    )
    assert computed + hit == found[f"vllm:prompt_tokens_total{{{label}}}"]
    assert computed == found[f"vllm:request_prefill_kv_computed_tokens_sum{{{label}}}"]
    assert hit > 0
    assert found[f'vllm:request_success_total{{{label},finished_reason="length"}}'] == 6
    assert found['vllm:admission_rejections_total{model_name="qwen3-8b",reason="max_num_queued_reqs"}'] == 0
