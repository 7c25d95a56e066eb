"""A small real model behind the endpoint: what it says is what transformers says on the CPU, in FP32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from starlette.testclient import TestClient

from windtunnel.endpoint.server import Endpoint
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.vllm import folder
from windtunnel.errors import WindtunnelError
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

ASK = [{"role": "user", "content": "Which card is the cheapest?"}]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 100,000 parameters, never trained, with a tokenizer of this machine's Python sources."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tmp_path_factory.mktemp("small")
    folder.train_tokenizer(made, 1024)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=None, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def speaker(small: Path) -> Iterator[Speaker]:
    found = Speaker(small, "mtt-s5000")
    yield found
    found.close()


def on_the_cpu(small: Path, prompt: str, tokens: int) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small)
    model = AutoModelForCausalLM.from_pretrained(small)
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=tokens)
    return str(tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_the_model_answers_in_values_mode_as_on_the_cpu(small: Path, speaker: Speaker) -> None:
    from transformers import AutoTokenizer

    assert "Moore Threads" in speaker.about
    asked = AutoTokenizer.from_pretrained(small).apply_chat_template(
        ASK, tokenize=False, add_generation_prompt=True
    )
    assert speaker.say(ASK, 12) == on_the_cpu(small, asked, 12)
    text = [{"role": "user", "content": "import os"}]
    assert speaker.say(text, 8, chat=False) == on_the_cpu(small, "import os", 8)
    assert speaker.say([{"role": "user", "content": "x y " * 400}], 8)  # longer than the model reads: its end


def test_the_endpoint_paces_what_the_model_says(speaker: Speaker) -> None:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    tool = {"type": "function", "function": {"name": "price", "parameters": {"type": "object"}}}
    with TestClient(Endpoint(deployment, speed=100, speaker=speaker).app) as client:
        body = {"messages": ASK, "max_tokens": 12}
        said = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
        assert said
        assert speaker.say(ASK, 12).startswith(said)
        called = client.post("/v1/chat/completions", json={**body, "max_tokens": 99, "tools": [tool]}).json()
        assert called["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "price"
        streamed = client.post(
            "/v1/completions", json={"prompt": "import os", "max_tokens": 8, "stream": True}
        )
        parts = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
        whole = speaker.say([{"role": "user", "content": "import os"}], 8, chat=False)
        assert whole.startswith("".join(part["choices"][0]["text"] for part in parts))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError, match="E666"):
        Speaker(tmp_path, "mtt-s5000")


class Gone(Speaker):
    def __init__(self) -> None:
        self._folder = Path("gone")

    def say(self, *args: object, **named: object) -> str:
        raise self._broken("its process ended")


def test_a_model_that_went_away_is_an_error_of_the_server() -> None:
    deployment = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), DeploymentOptions())
    app = Endpoint(deployment, speed=100, speaker=Gone()).app
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.post("/v1/chat/completions", json={"messages": ASK})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "E666"
        assert client.get("/health").status_code == 200
