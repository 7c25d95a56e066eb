"""Real clients against both engines. Each client lives in an environment of its own; `make test-engines` makes them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from windtunnel.endpoint.vllm import folder
from windtunnel.endpoint.vllm.dialects import DIALECTS
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MODEL, ON = "qwen3.5-397b-a17b", "mtt-s5000:8"
SERVE = ["serve", MODEL, "--on", ON, "--precision", "fp8"]
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", "WINDTUNNEL_ON": ON}


def environment(variable: str, default: str) -> Path:
    """An environment that `run.sh` made; skips where it is not there, unless the variable says that it is."""
    path = Path(os.environ.get(variable, default))
    if not (path / "bin/python").exists():
        assert variable not in os.environ, f"{variable}: no environment at {path}"
        pytest.skip(f"no environment at {path}: sh tests/engines/run.sh makes it")
    return path


@dataclass(frozen=True)
class Serving:
    """A server that runs; ``engine`` is native or vllm."""

    engine: str
    root: str

    @property
    def url(self) -> str:
        return f"{self.root}/v1"


def started(words: list[str], port: int) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers, and where."""
    process = subprocess.Popen(
        [*words, "--port", str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    root, until = f"http://127.0.0.1:{port}", time.monotonic() + 600
    while True:
        try:
            urllib.request.urlopen(f"{root}/health", timeout=2).close()
            return process, root
        except OSError:
            assert process.poll() is None, "the server died"
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.5)


def start(words: list[str], port: int) -> Iterator[str]:
    """Run a server until it is no longer needed."""
    process, root = started(words, port)
    try:
        yield root
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module", params=["native", "vllm"])
def serving(request: pytest.FixtureRequest) -> Iterator[Serving]:
    if request.param == "native":
        words = [sys.executable, "-m", "windtunnel", *SERVE]
    else:
        home = environment("WINDTUNNEL_ENGINES", "/tmp/windtunnel-engines")
        words = [str(home / "bin/python"), "-m", "windtunnel", *SERVE, "--engine", "vllm"]
    for root in start(words, free_port()):
        yield Serving(request.param, root)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder.make(tmp_path_factory.mktemp("tokenizer"), MODEL)


def run(words: list[str | Path], timeout: int = 400, **more: str) -> str:
    """Run a client; what it printed. Fails where its exit status is not 0."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **QUIET, **more},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def step_s() -> float:
    """A decode step of one sequence, by our own step times."""
    options = DeploymentOptions(precision=Precision("fp8"))
    return deploy(shipped_model(MODEL), cluster_of("mtt-s5000", 8), options).step.decode_s(1, 300)


def test_openai_client(serving: Serving) -> None:
    home = environment("WINDTUNNEL_AGENTS", "/tmp/windtunnel-agents")
    assert " ok" in run([home / "bin/python", ROOT / "tests/engines/openai_client.py", serving.url, MODEL])


def test_vllm_bench_serve(serving: Serving, tokenizer: Path) -> None:
    home = environment("WINDTUNNEL_ENGINES", "/tmp/windtunnel-engines")
    out = run(
        [
            home / "bin/vllm", "bench", "serve", "--backend", "openai-chat", "--endpoint",
            "/v1/chat/completions", "--base-url", serving.root, "--model", MODEL, "--tokenizer", tokenizer,
            "--dataset-name", "random", "--random-input-len", "256", "--random-output-len", "64",
            "--num-prompts", "8", "--max-concurrency", "1", "--ignore-eos",
        ]
    )  # fmt: skip
    figures = {name.strip(): float(value) for name, value in re.findall(r"^(.+?):\s+([\d.]+)\s*$", out, re.M)}
    assert figures["Successful requests"] == 8
    assert figures["Mean TPOT (ms)"] == pytest.approx(step_s() * 1e3, rel=0.15)


def test_guidellm(serving: Serving, tokenizer: Path, tmp_path: Path) -> None:
    home = environment("WINDTUNNEL_LOADGEN", "/tmp/windtunnel-loadgen")
    report = tmp_path / "report.json"
    run(
        [
            home / "bin/guidellm", "run", "--backend", f"kind=openai_http,target={serving.root},model={MODEL}",
            "--tokenizer", f"kind=hf_auto,model={tokenizer}",
            "--data", "kind=synthetic_text,prompt_tokens=256,output_tokens=64",
            "--profile", "kind=concurrent,streams=2", "--constraint", "kind=max_requests,count=8",
            "--output", f"kind=json,path={report}", "--disable-console",
        ]
    )  # fmt: skip
    (benchmark,) = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals["successful"] >= 8
    assert not totals["errored"]


def test_aiperf(serving: Serving, tokenizer: Path, tmp_path: Path) -> None:
    home = environment("WINDTUNNEL_AIPERF", "/tmp/windtunnel-aiperf")
    words = [
        home / "bin/aiperf", "profile", "-m", MODEL, "--url", serving.root, "--endpoint-type", "chat", "--streaming",
        "--tokenizer", tokenizer, "--concurrency", "1", "--request-count", "8", "--synthetic-input-tokens-mean", "256",
        "--output-tokens-mean", "64", "--extra-inputs", "ignore_eos:true", "--use-server-token-count",
        "--artifact-dir", tmp_path,
    ]  # fmt: skip
    run(words, HF_HUB_OFFLINE="")  # offline it takes no folder for a tokenizer
    report = json.loads((tmp_path / "profile_export_aiperf.json").read_text(encoding="utf-8"))
    assert report["request_count"]["avg"] == 8
    assert not report["error_summary"]
    assert report["output_sequence_length"]["avg"] == 64
    assert report["inter_token_latency"]["avg"] == pytest.approx(step_s() * 1e3, rel=0.15)


@pytest.mark.parametrize("program", ["autogen_teams.py", "crewai_crews.py"])
def test_agents(serving: Serving, program: str) -> None:
    home = environment("WINDTUNNEL_AGENTS", "/tmp/windtunnel-agents")
    script = ROOT / "examples/agents" / program
    assert "5 of 5" in run([home / "bin/python", "-W", "ignore", script, "--url", serving.url])


def test_tool_parsers_of_vllm_read_what_is_said() -> None:
    home = environment("WINDTUNNEL_ENGINES", "/tmp/windtunnel-engines")
    out = run([home / "bin/python", ROOT / "tests/engines/parsers.py"], PYTHONPATH=str(ROOT))
    assert re.findall(r"read: (\w+)", out) == list(DIALECTS)


def test_schemathesis_finds_nothing() -> None:
    home = environment("WINDTUNNEL_LOADGEN", "/tmp/windtunnel-loadgen")
    # a short context and a fast clock, so that answers as many and as long as a schema allows end in time
    words = [
        sys.executable,
        "-m",
        "windtunnel",
        "serve",
        "qwen3-8b",
        "--on",
        "mtt-s5000",
        "--speed",
        "100000",
    ]
    words += ["--gpu-memory-utilization", "0.3", "--answer-tokens", "9", "--served-model-name", "*"]
    words += ["--max-model-len", "8192"]
    for root in start(words, free_port()):
        out = run(
            [
                home / "bin/schemathesis",
                "run",
                f"{root}/openapi.json",
                "--checks",
                "all",
                "--max-examples",
                "40",
            ],
            SCHEMATHESIS_HOOKS="schemathesis_hooks",
            PYTHONPATH=str(ROOT / "tests/engines"),
        )
        assert "No issues found" in out
