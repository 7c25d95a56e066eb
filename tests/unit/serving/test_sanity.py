"""What a sceptic asks of answers: totals add up, percentiles are in order, no bound is passed, load does not help."""

from __future__ import annotations

from itertools import pairwise

import pytest

from windtunnel.recipes.layout import Precision
from windtunnel.results.serving_result import ServingResult
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.metrics import parse_sla
from windtunnel.serving.predict import Load, predict
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

CASES = (
    ("qwen3-8b", "mtt-s5000", 2, Precision.BF16),
    ("deepseek-v3-671b", "mtt-s5000", 32, Precision.FP8_BLOCK),
    ("qwen3.5-397b-a17b", "mtt-s5000", 16, Precision.FP8),
    ("gpt-oss-20b", "h100-sxm", 1, Precision.BF16),
)


def deployed(name: str, chip: str, cards: int, precision: Precision, stack: Stack) -> Deployment:
    return deploy(
        shipped_model(name), cluster_of(chip, cards), DeploymentOptions(stack=stack, precision=precision)
    )


def load(rate: float, prompt: int = 1500, clients: int = 0) -> Load:
    requests = drawn(100, Lengths(prompt=prompt, output=60, spread=0.3), rate=rate)
    return Load(requests=tuple(requests), words="", concurrency=clients)


def hold_together(found: ServingResult, cards: int) -> None:
    for spread in (found.ttft_s, found.tpot_s, found.itl_s, found.e2e_s):
        assert 0 <= spread.p50 <= spread.p90 <= spread.p99
    assert found.goodput_rps <= found.requests_per_s * (1 + 1e-9)
    tokens = found.decode_tokens_per_s_per_gpu.value * cards * found.duration_s
    assert tokens == pytest.approx(found.output_tokens)
    assert found.busy_fraction <= 1 + 1e-9
    assert found.peak_cache_fraction <= 1
    assert found.decode_tokens_per_s_per_gpu.value < found.roofline_decode
    assert found.prefill_tokens_per_s_per_gpu.value < found.roofline_prefill


@pytest.mark.parametrize("stack", list(Stack))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_answers_hold_together(case: tuple[str, str, int, Precision], stack: Stack) -> None:
    name, chip, cards, precision = case
    found = deployed(*case, stack)
    waits = []
    for rate in (0.2, 2.0, 20.0):
        answer = predict(found, load(rate), sla=parse_sla("ttft<2s,tpot<60ms"))
        hold_together(answer, cards)
        waits.append(answer.ttft_s.mean)
    assert waits[0] <= waits[1] * 1.03
    assert waits[1] <= waits[2] * 1.03
    assert predict(found, load(2.0, prompt=3000)).ttft_s.mean > waits[1]
    rates = [predict(found, load(0.0, clients=clients)).requests_per_s for clients in (1, 8, 64)]
    assert rates == sorted(rates)
    twice = deployed(name, chip, 2 * cards, precision, stack)
    more, fewer = predict(twice, load(4.0)), predict(found, load(4.0))
    if twice.layout == found.layout:  # further cards are further replicas
        assert more.e2e_s.mean < 1.02 * fewer.e2e_s.mean
    elif (
        more.e2e_s.mean > 1.02 * fewer.e2e_s.mean
    ):  # ranks over more nodes that wait for one another may be slower
        assert any("ranks step together" in one for one in more.assumptions)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_steps_grow_with_what_they_do(case: tuple[str, str, int, Precision]) -> None:
    """Batch, context and prompt; and drafts that are all rejected only cost."""
    name, chip, cards, precision = case
    step = deployed(*case, Stack.VLLM).step
    for context in (16, 1000, 20_000):
        batches = [step.decode_s(batch, batch * context) for batch in (1, 2, 7, 32, 33, 100, 256, 512, 600)]
        assert all(b >= 0.995 * a for a, b in pairwise(batches))
    for batch in (1, 64):
        contexts = [step.decode_s(batch, batch * context) for context in (16, 100, 1000, 5000, 50_000)]
        assert all(b >= 0.995 * a for a, b in pairwise(contexts))
    prompts = [step.mixed_s(0, 0, [(new, 0)]) for new in (1, 16, 100, 512, 2048, 8192, 32_768)]
    assert all(b >= 0.995 * a for a, b in pairwise(prompts))
    options = DeploymentOptions(precision=precision, speculation=Speculation(tokens=2, acceptance=0.0))
    rejected = deploy(shipped_model(name), cluster_of(chip, cards), options).step
    assert all(
        rejected.decode_s(batch, batch * 2000) > step.decode_s(batch, batch * 2000) for batch in (1, 64)
    )


def test_what_an_answer_rests_on_is_said() -> None:
    """Lock-step, drafts and sequences longer than the model was made for."""
    latent = CASES[1]
    said = predict(deployed(*latent, Stack.VLLM), load(2.0)).assumptions
    assert any("ranks step together" in one for one in said)
    options = DeploymentOptions(speculation=Speculation(tokens=1, acceptance=0.8))
    small = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), options)
    said = predict(small, load(1.0, prompt=60_000)).assumptions
    assert any("configuration allows 40,960" in one for one in said)
    assert any("no MTP layer: drafts come from an assumed one" in one for one in said)
    assert not any("allows" in one or "together" in one for one in predict(small, load(1.0)).assumptions)
