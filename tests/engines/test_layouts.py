"""The real vLLM on virtual cards in layouts of several engines or stages: what its own metrics say of them."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from tests.engines.test_clients import environment, free_port, start

pytestmark = pytest.mark.slow

PROMPT = "Which card is the cheapest? " * 100


def serve(*words: str) -> list[str]:
    home = environment("WINDTUNNEL_ENGINES", "/tmp/windtunnel-engines")
    return [str(home / "bin/python"), "-m", "windtunnel", "serve", *words, "--engine", "vllm", "--speed", "5"]


def ask(root: str, text: str) -> dict[str, int]:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 40, "ignore_eos": True}
    request = urllib.request.Request(
        f"{root}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        usage: dict[str, int] = json.load(answer)["usage"]
        return usage


def metric(root: str, name: str, where: str = "") -> float:
    """The sum of a counter over engines, of those lines that hold ``where``."""
    text = urllib.request.urlopen(f"{root}/metrics", timeout=30).read().decode()
    lines = [line for line in text.splitlines() if re.match(rf"vllm:{name}[{{ ]", line) and where in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.parametrize(("model", "cards"), [("qwen3-8b", 1), ("qwen3.5-397b-a17b", 8)])
def test_prefill_and_decode_apart(model: str, cards: int) -> None:
    words = serve(
        model, "--on", f"mtt-s5000:{2 * cards}", "--prefill-cards", str(cards), "--precision", "fp8"
    )
    for root in start(words, free_port()):
        usage = ask(root, PROMPT)
        assert usage["completion_tokens"] == 40
        source = "prompt_tokens_by_source_total"
        assert metric(root, source, "external_kv_transfer") == usage["prompt_tokens"]
        assert metric(root, source, "local_compute") == 0
        assert metric(f"{root}/prefill", source, "local_compute") == usage["prompt_tokens"]
        assert metric(f"{root}/prefill", "generation_tokens_total") == 1


def test_pipeline_stages() -> None:
    words = serve("llama3-70b", "--on", "mtt-s5000:8", "--tp", "2", "--pp", "4")
    for root in start(words, free_port()):
        assert ask(root, PROMPT)["completion_tokens"] == 40
        assert metric(root, "generation_tokens_total") == 40


def test_attention_ranks_with_experts_and_drafts() -> None:
    words = serve("qwen3.5-397b-a17b", "--on", "mtt-s5000:16", "--tp", "8", "--dp", "2", "--ep")
    words += ["--precision", "fp8", "--num-speculative-tokens", "2"]
    for root in start(words, free_port()):
        for number in range(4):
            assert ask(root, f"{number} {PROMPT}")["completion_tokens"] == 40
        text = urllib.request.urlopen(f"{root}/metrics", timeout=30).read().decode()
        assert {'engine="0"', 'engine="1"'} <= set(re.findall(r'engine="\d"', text))
        drafted = metric(root, "spec_decode_num_draft_tokens_total")
        accepted = metric(root, "spec_decode_num_accepted_tokens_total")
        assert drafted > 0
        assert 0.4 < accepted / drafted < 0.95  # 0.8 and 0.64 of the first and the second
