"""Steps that no captured graph holds take at least what the host takes to issue them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.host_time import ENGINE_HOST
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.predict import engine_assumptions
from windtunnel.serving.step_time import StepTime
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of


def step(chip: str, stack: Stack, tensor: int = 1, **more: object) -> StepTime:
    options = DeploymentOptions(tensor_parallel_size=tensor, stack=stack, **more)  # type: ignore[arg-type]
    return deploy(shipped_model("qwen3-8b"), cluster_of(chip, tensor), options).step


def test_published_pairs_are_met_within_a_third() -> None:
    """Milliseconds of a step of few tokens without graphs: what ``ENGINE_HOST`` is the mean of."""
    found = []
    for model, cards, precision, measured_s in (
        ("deepseek-v3-671b", 8, Precision.FP8_BLOCK, 82.6e-3),
        ("llama3-8b", 1, Precision.BF16, 8.2e-3),
        ("llama3-8b", 1, Precision.BF16, 9.3e-3),
    ):
        options = DeploymentOptions(tensor_parallel_size=cards, precision=precision, stack=Stack.SGLANG)
        priced = deploy(shipped_model(model), cluster_of("h200", cards), options).step.priced(
            Batch(sequences=1, new=1)
        )
        found.append(priced.host / measured_s)
    assert all(0.7 < ratio < 1.45 for ratio in found)
    assert min(found) < 1 < max(found)
    assert 3.4 < ENGINE_HOST < 6.1


def test_published_steps_without_graphs_on_moore_threads() -> None:
    """Decoding, to which ``MUSA_HOST`` is not fitted: vllm-musa issue 102, and notes of a runner of eight sequences."""
    for model, cards, sequences, measured_s in (
        ("qwen3.5-27b", 1, 1, 1 / 7.5),
        ("qwen3.5-397b-a17b", 8, 8, 234e-3),
    ):
        options = DeploymentOptions(
            tensor_parallel_size=cards, precision=Precision.FP8_BLOCK, enforce_eager=True
        )
        found = deploy(shipped_model(model), cluster_of("mtt-s5000", cards), options, 8192).step
        assert 0.7 * measured_s < found.decode_s(sequences, sequences * 2048) < 1.1 * measured_s


@pytest.mark.parametrize(
    ("chip", "stack", "more", "bound"),
    [
        ("h100-sxm", Stack.SGLANG, {}, False),
        ("mtt-s5000", Stack.SGLANG, {}, True),
        ("mtt-s5000", Stack.VLLM, {}, True),
        ("h100-sxm", Stack.TRTLLM, {}, True),
        ("h100-sxm", Stack.TRTLLM, {"built_engine": True}, False),
        ("h100-sxm", Stack.VLLM, {}, False),
        ("h100-sxm", Stack.SGLANG, {"enforce_eager": True}, True),
    ],
    ids=["SGLang's graphs", "no CUDA", "vLLM-MUSA", "PyTorch backend", "built", "vLLM", "asked for"],
)
def test_whose_short_prompts_wait_for_the_host(
    chip: str, stack: Stack, more: dict[str, object], bound: bool
) -> None:
    """A prompt of 64 tokens reads 16 GB of weights: on an H100 5 ms, and 36 layers take the host 14."""
    found = step(chip, stack, **more)
    host = found.priced(Batch(sequences=1, new=16)).host
    short, long = (found.mixed_s(0, 0, [(new, 0)]) for new in (64, 8192))
    assert (short >= host) is bound
    assert long > 2 * host
    if bound and not more:
        assert found.mixed_s(0, 0, [(16, 0)]) == pytest.approx(short)
    assert found.decode_s(1, 64) < host or "enforce_eager" in more


def test_both_halves_of_a_cut_step_are_issued() -> None:
    options = DeploymentOptions(
        data_parallel_size=16, tensor_parallel_size=1, precision=Precision.FP8_BLOCK, stack=Stack.SGLANG
    )
    model, cluster = shipped_model("deepseek-v3-671b"), cluster_of("h800", 16)
    whole = deploy(model, cluster, options).step.mixed_s(0, 0, [(8, 0)])
    cut = deploy(model, cluster, replace(options, enable_dbo=True)).step.mixed_s(0, 0, [(8, 0)])
    assert cut == pytest.approx(2 * whole, rel=0.01)


def test_answers_say_what_the_hosts_time_and_uneven_experts_rest_on() -> None:
    options = DeploymentOptions(
        data_parallel_size=16,
        tensor_parallel_size=1,
        precision=Precision.FP8_BLOCK,
        expert_load="published:2048",
    )
    found = deploy(shipped_model("deepseek-v3-671b"), cluster_of("mtt-s5000", 16), options)
    said = "\n".join(engine_assumptions(found))
    assert "one published run of vLLM-MUSA" in said
    assert "loads: published:2048" in said
    plain = deploy(shipped_model("qwen3-8b"), cluster_of("h100-sxm", 1), DeploymentOptions())
    assert "kernel by kernel" not in "\n".join(engine_assumptions(plain))
