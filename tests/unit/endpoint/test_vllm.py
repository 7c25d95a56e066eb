"""The plugin for vLLM, as far as it can be tested without vLLM: progress of requests, folder, options, answers."""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from windtunnel.endpoint import vllm
from windtunnel.endpoint.asked import chat
from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.policy import Answer, ToolCall
from windtunnel.endpoint.vllm import dialects, folder, launch, middleware, settings
from windtunnel.endpoint.vllm.pair import Pair
from windtunnel.endpoint.vllm.progress import END, FORCED, PICTURES, Progress
from windtunnel.endpoint.vllm.settings import Settings
from windtunnel.endpoint.vllm.stages import staged
from windtunnel.endpoint.vllm.wire import Wire
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of


@dataclass
class Sampling:
    extra_args: dict[str, str] | None


@dataclass
class New:
    req_id: str
    prompt_token_ids: list[int]
    sampling_params: Sampling | None = None
    num_computed_tokens: int = 0


@dataclass
class Cached:
    req_ids: list[str] = field(default_factory=list)
    num_computed_tokens: list[int] = field(default_factory=list)
    num_output_tokens: list[int] = field(default_factory=list)
    resumed_req_ids: set[str] = field(default_factory=set)


@dataclass
class Output:
    num_scheduled_tokens: dict[str, int]
    scheduled_new_reqs: list[New] = field(default_factory=list)
    scheduled_cached_reqs: Cached = field(default_factory=Cached)
    scheduled_spec_decode_tokens: dict[str, list[int]] = field(default_factory=dict)
    finished_req_ids: set[str] = field(default_factory=set)


def told(*ids: int) -> Sampling:
    return Sampling({FORCED: ",".join(map(str, ids)), END: "9"})


def test_a_prompt_in_chunks_then_the_answer_then_its_end() -> None:
    progress = Progress(0, 0.0, random.Random(0))
    first = progress.take(Output({"a": 6}, [New("a", [0] * 10, told(11, 12))]))
    assert (first.chunks, first.sampled) == ([(6, 0)], [[]])
    second = progress.take(Output({"a": 4}, scheduled_cached_reqs=Cached(["a"], [6], [0])))
    assert (second.chunks, second.sampled) == ([(4, 6)], [[11]])
    steps = [progress.take(Output({"a": 1}, scheduled_cached_reqs=Cached(["a"], [c], [1]))) for c in (10, 11)]
    assert [(step.decodes, step.contexts, step.sampled) for step in steps] == [
        (1, 10, [[12]]),
        (1, 11, [[9]]),
    ]


def test_a_preempted_request_goes_on_where_it_was() -> None:
    progress = Progress(0, 0.0, random.Random(0))
    progress.take(Output({"a": 4}, [New("a", [0] * 4, told(11, 12, 13))]))
    progress.take(Output({"a": 1}, scheduled_cached_reqs=Cached(["a"], [4], [1])))
    again = Cached(["a"], [0], [2], {"a"})
    batch = progress.take(Output({"a": 6}, scheduled_cached_reqs=again))
    assert (batch.chunks, batch.sampled) == ([(6, 0)], [[13]])


def test_drafts_are_taken_as_often_as_accepted() -> None:
    progress = Progress(2, 0.5, random.Random(1))
    progress.take(Output({"a": 4}, [New("a", [0] * 4)]))
    taken = []
    for step in range(2000):
        cached = Cached(["a"], [4 + step], [1])
        output = Output({"a": 3}, scheduled_cached_reqs=cached, scheduled_spec_decode_tokens={"a": [0, 0]})
        taken.append(len(progress.take(output).sampled[0]))
    assert sum(taken) / len(taken) == pytest.approx(1 + 0.5 + 0.25, rel=0.05)


def test_pictures_are_paid_once_as_far_as_they_are_new() -> None:
    progress = Progress(0, 0.0, random.Random(0))
    sampling = Sampling({PICTURES: "500,700"})
    first = progress.take(Output({"a": 50}, [New("a", [0] * 100, sampling, num_computed_tokens=25)]))
    assert first.pictures == [(500, 0.75), (700, 0.75)]
    second = progress.take(Output({"a": 25}, scheduled_cached_reqs=Cached(["a"], [75], [0])))
    assert second.pictures == []


def test_registers_only_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(settings.ON, raising=False)
    assert vllm.register() is None


def test_settings_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Settings(precision="fp8", speed=3.0, chips=("/x",))
    environment = made.environment("mtt-s5000:8")
    assert settings.asked_for(environment)
    assert settings.read(environment) == made
    with pytest.raises(WindtunnelError, match="cannot be read") as caught:
        settings.read({settings.REST: "speed=2"})
    assert caught.value.code == "E660"


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("qwen3.5-397b-a17b", "Qwen3_5MoeForCausalLM"), ("deepseek-v3-671b", "DeepseekV3ForCausalLM"),
        ("kimi-k2", "DeepseekV3ForCausalLM"), ("qwen3-8b", "Qwen3ForCausalLM"),
    ],
)  # fmt: skip
def test_configuration(model: str, architecture: str) -> None:
    config = folder.configuration(model)
    assert config["architectures"] == [architecture]
    assert "text_config" not in config
    assert "vision_config" not in config


def test_a_type_without_known_cache_is_refused() -> None:
    with pytest.raises(WindtunnelError) as caught:
        folder.configuration("glm-5")
    assert caught.value.code == "E661"


def test_the_folder_has_a_tokenizer_of_whole_tokens(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    made = folder.make(tmp_path / "m", "qwen3-8b")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(made))
    ids = tokenizer.encode('the plan {"a": 1} the the', add_special_tokens=False)
    assert tokenizer.decode(ids) == 'the plan {"a": 1} the the'
    assert len(tokenizer.encode(" the" * 50, add_special_tokens=False)) == 50
    said = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "hi" in said
    assert len(tokenizer) <= folder.VOCABULARY


def test_the_command_carries_the_deployment() -> None:
    options = DeploymentOptions(
        tensor_parallel_size=8, data_parallel_size=2, enable_expert_parallel=True, max_num_seqs=64,
        speculation=Speculation(tokens=2, acceptance=0.7), enable_prefix_caching=False,
    )  # fmt: skip
    found = deploy(shipped_model("qwen3.5-397b-a17b"), cluster_of("mtt-s5000", 16), options)
    words = launch.command(found, Path("m"), names=["x"], host="h", port=1, longest=9)
    line = " ".join(words)
    assert "--tensor-parallel-size 8 --data-parallel-size 2 --max-num-seqs 64" in line
    assert "--enable-expert-parallel" in words
    assert "--no-enable-prefix-caching" in words
    assert "--shutdown-timeout 30" in line  # what runs is let to its end, as the native server does
    assert json.loads(words[words.index("--speculative-config") + 1])["num_speculative_tokens"] == 2


def test_replicas_and_a_missing_vllm_are_refused() -> None:
    found = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 8), DeploymentOptions())
    with pytest.raises(WindtunnelError) as caught:
        launch.check(found)
    assert caught.value.code in ("E662", "E663")


def test_answers_travel_in_the_body() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, picture]}],
        "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required",
        "response_format": {"type": "json_object"}, "vllm_xargs": {"mine": 1},
    }  # fmt: skip
    wanted = chat(json.dumps(body).encode())
    sent = json.loads(middleware._told("/v1/chat/completions", body, [wanted], [[5, 6]], 2))
    assert sent["vllm_xargs"] == {"mine": 1, FORCED: "5,6", END: "2", PICTURES: "2040"}
    assert sent["tool_choice"] == "auto"
    assert "response_format" not in sent
    seen, shown = sent["messages"][0]["content"]
    assert seen == {"type": "text", "text": "see"}
    assert shown["type"] == "text"
    assert shown["text"].startswith(f"{zlib.crc32(str(picture['image_url']).encode()):x}")
    assert shown["text"].count(" the") == pytest.approx(wanted.images[0].tokens(), abs=8)


def test_what_vllm_takes_and_we_do_not_read_ends_too() -> None:
    """More answers than OpenAI's bound, an empty input: without an end they would go on to the end of the context."""
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 2, "text": {"format": 1}}
    assert chat(json.dumps(body).encode()).n == 2
    raw = json.dumps(body | {"n": 200}).encode()
    with pytest.raises(BadBody):
        chat(raw)
    fields = middleware._fields(raw)
    assert fields is not None
    sent = json.loads(
        middleware._told("/v1/chat/completions", fields, [middleware._unread(raw)], [[5, 6]], 2)
    )
    assert sent["vllm_xargs"] == {FORCED: "5,6", END: "2"}
    assert (sent["n"], sent["text"]) == (200, {})
    assert middleware._unread(b"\xff" + raw).prompt.endswith(raw.decode())
    for odd in (b"{bad", b"[1]", b'{"vllm_xargs": [1]}', b"7"):
        assert middleware._fields(odd) is None


def test_calls_as_the_hermes_parser_reads_them() -> None:
    said = dialects.written(Answer("", (ToolCall("f", '{"a": "ü"}'), ToolCall("g", "{}"))), "hermes")
    blocks = said.split("<tool_call>\n")[1:]
    calls = [json.loads(block.split("\n</tool_call>")[0]) for block in blocks]
    assert calls == [{"name": "f", "arguments": {"a": "ü"}}, {"name": "g", "arguments": {}}]


def test_calls_in_the_dialect_of_the_parser() -> None:
    """vLLM's own parsers read these in tests/engines/parsers.py."""
    answer = Answer("", (ToolCall("f", '{"a": "ü", "b": [1]}'),))
    assert dialects.written(answer, "qwen3_coder") == (
        "<tool_call>\n<function=f>\n<parameter=a>\nü\n</parameter>\n<parameter=b>\n[1]\n</parameter>\n</function>\n"
        "</tool_call>"
    )
    assert dialects.written(answer, "llama3_json") == '{"name": "f", "parameters": {"a": "ü", "b": [1]}}'
    assert dialects.written(answer, "nobody's") == dialects.written(answer, dialects.DEFAULT)
    assert dialects.written(Answer("plain"), "kimi_k2") == "plain"
    for name in ("deepseek_v3", "deepseek_v31", "kimi_k2"):
        assert any(mark in dialects.written(answer, name) for mark in dialects.MARKS)


def test_stages_share_a_step_and_hold_their_own_layers() -> None:
    model, cluster = shipped_model("llama3-70b"), cluster_of("mtt-s5000", 16)
    options = DeploymentOptions(tensor_parallel_size=8)
    found = staged(model, cluster, options, [0, 41, 80])
    assert found.one.layout.tensor == 8
    assert found.shares == [41 / 80, 39 / 80]
    whole = found.one.memory
    first, last = found.cache_bytes()
    layer = (whole.weights - int(2 * (model.embedding_parameters + model.head_parameters) / 8)) / 80
    embedding = model.vocabulary * model.hidden * 2 / 8
    assert first - whole.cache == pytest.approx(39 * layer + embedding, rel=0.001)
    assert last - whole.cache == pytest.approx(41 * layer + embedding, rel=0.001)
    assert 0 < found.hand_on_s(1) < found.hand_on_s(8192) < 0.02


def test_the_last_stage_holds_the_drafting_layer() -> None:
    model, cluster = shipped_model("llama3-70b"), cluster_of("mtt-s5000", 16)
    options = DeploymentOptions(tensor_parallel_size=8)
    drafting = replace(options, speculation=Speculation(tokens=1, acceptance=0.7))
    plain = staged(model, cluster, options, [0, 41, 80]).cache_bytes()
    found = staged(model, cluster, drafting, [0, 41, 80])
    assert found.cache_bytes() == [plain[0], plain[1] - found.one.memory.draft_weights]


def test_a_model_too_large_for_one_stage_fits_a_pipeline() -> None:
    model, options = shipped_model("llama3-70b"), DeploymentOptions(tensor_parallel_size=1)
    found = staged(model, cluster_of("mtt-s5000", 4), options, [0, 20, 40, 60, 80])
    assert found.one.memory.cache < 0
    assert min(found.cache_bytes()) > 20 << 30
    with pytest.raises(WindtunnelError, match="E651"):
        staged(model, cluster_of("mtt-s5000", 1), options, [0, 80])


def test_caches_follow_one_another_through_the_port() -> None:
    wire = Wire(lambda tokens: tokens / 1000)
    assert wire.next_at is None
    wire.start({}, {"a": 500, "b": 100}, 10.0)
    wire.start({"c": 200}, {}, 10.1)
    assert wire.next_at == 10.5
    assert wire.finished(10.4) == (set(), set())
    assert wire.finished(10.65) == (set(), {"a", "b"})
    assert wire.next_at == pytest.approx(10.8)
    assert wire.finished(11.0) == ({"c"}, set())


def test_options_of_pipelines_and_of_engines_apart() -> None:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    at: dict[str, Any] = {"names": ("m",), "host": "h", "port": 1, "longest": 10}
    words = launch.command(deployment, Path("x"), **at, stages=2, role="kv_producer")
    assert words[words.index("--pipeline-parallel-size") + 1] == "2"
    told_of = json.loads(words[words.index("--kv-transfer-config") + 1])
    assert told_of["kv_role"] == "kv_producer"
    assert find_spec(told_of["kv_connector_module_path"]) is not None
    plain = launch.command(deployment, Path("x"), **at)
    assert not {"--pipeline-parallel-size", "--kv-transfer-config"} & set(plain)


class Engines:
    """Two engines as the pair's client sees them: what each was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or b"{}")
        self.asked.append((request.url.host, request.url.path, body))
        if request.url.host == "prefill":
            if body.get("model") == "nobody":
                return httpx.Response(404, json={"error": {"message": "no such model"}})
            return httpx.Response(200, json={"kv_transfer_params": {"do_remote_prefill": True}})
        return httpx.Response(200, content=b"data: 1\n\ndata: [DONE]\n\n", headers={"x-kept": "yes"})


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    found, plain = Engines(), httpx.AsyncClient
    transport = httpx.MockTransport(found.answer)
    monkeypatch.setattr(
        "windtunnel.endpoint.vllm.pair.httpx.AsyncClient", lambda **_: plain(transport=transport)
    )
    return found


def test_prompts_go_to_one_engine_and_answers_come_from_the_other(engines: Engines) -> None:
    body = {"messages": [], "max_tokens": 50, "stream": True, "stream_options": {}, "min_tokens": 50}
    with TestClient(Pair("http://prefill", "http://decode").app) as client:
        answer = client.post("/v1/chat/completions", json=body)
        assert (answer.text, answer.headers["x-kept"]) == ("data: 1\n\ndata: [DONE]\n\n", "yes")
        first, second = engines.asked
        assert first[:2] == ("prefill", "/v1/chat/completions")
        assert (first[2]["max_tokens"], first[2]["stream"]) == (1, False)
        assert not {"stream_options", "min_tokens"} & set(first[2])
        assert first[2]["kv_transfer_params"]["do_remote_decode"]
        assert second == (
            "decode", "/v1/chat/completions", {**body, "kv_transfer_params": {"do_remote_prefill": True}}
        )  # fmt: skip
        refused = client.post("/v1/chat/completions", json={"model": "nobody"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (404, "no such model")
        client.get("/metrics")
        client.get("/prefill/metrics")
        client.post("/v1/responses", json={"input": "x"})
    assert [(host, path) for host, path, _ in engines.asked[3:]] == [
        ("decode", "/metrics"),
        ("prefill", "/metrics"),
        ("decode", "/v1/responses"),
    ]
