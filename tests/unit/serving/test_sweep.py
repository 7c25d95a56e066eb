"""Figures without traffic: laws between them, and published deployments of DeepSeek-V3 as a yardstick."""

from __future__ import annotations

import pytest

from windtunnel.recipes.layout import Precision
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.sweep import Sweep
from windtunnel.specs.model_catalogue import shipped_model


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return Sweep("deepseek-v3-671b", "mtt-s5000", cards=(2, 32, 144))


def test_below_the_roofline_and_inside_the_interval(sweep: Sweep) -> None:
    points = sweep.prefill((1024, 16384)) + sweep.decode((16, 128))
    assert {point.cards for point in points} == {32, 144}
    assert [error.code for error in sweep.out][:1] == ["E651"]
    for point in points:
        rate = point.tokens_per_s_per_gpu
        assert 0 < rate.low < rate.value < rate.high
        assert rate.value < point.roofline
        assert point.step_s.low < point.step_s.value < point.step_s.high


@pytest.mark.parametrize("chip", ["mtt-s5000", "h100-sxm", "h20", "l40s", "b200"])
@pytest.mark.parametrize(
    "name", ["gpt-oss-20b", "llama4-scout", "mixtral-8x7b", "qwen3-8b", "qwen3.5-35b-a3b"]
)
def test_no_figure_passes_what_peaks_allow(name: str, chip: str) -> None:
    """Windows, stretches, experts few and many, small and large batches, two widths of weights and cache."""
    for precision, cache in ((Precision.BF16, "bfloat16"), (Precision.FP8, "float8_e4m3fn")):
        for tensor in (1, 4):
            options = DeploymentOptions(
                precision=precision, kv_cache_dtype=cache, tensor_parallel_size=tensor
            )
            wide = Sweep(name, chip, cards=(4,), options=options)
            for point in wide.prefill((64, 2048, 32768)) + wide.decode((1, 16, 256), (128, 4096, 65536)):
                assert 0 < point.tokens_per_s_per_gpu.value < point.roofline


def test_the_bound_of_decoding_by_hand() -> None:
    """A dense model at one sequence: all weights but the embedding, and a window of the cache where layers have one."""
    sweep = Sweep("qwen3-8b", "h20", cards=(1,), options=DeploymentOptions(precision=Precision.BF16))
    model = shipped_model("qwen3-8b")
    read = 2 * (model.parameters - model.embedding_parameters) + 4096 * 2 * 2 * 8 * 128 * len(model.layers)
    (point,) = sweep.decode((1,), (4096,))
    assert point.roofline == pytest.approx(4.0e12 / read, rel=1e-3)
    oss = DeploymentOptions(precision=Precision.BF16)
    short, long = Sweep("gpt-oss-20b", "h100-sxm", cards=(1,), options=oss).decode((256,), (128, 65536))
    windowed = sum(bool(getattr(one.mixer, "window", 0)) for one in shipped_model("gpt-oss-20b").layers)
    assert windowed == 12
    # half of the layers read 65,536 tokens more, the others none
    more = 256 * (65536 - 128) * 12 * 2 * 2 * 8 * 64
    assert 256 / long.roofline - 256 / short.roofline == pytest.approx(more / 3.35e12, rel=0.01)


def test_longer_prompts_and_smaller_batches_bring_less(sweep: Sweep) -> None:
    short, long = sweep.prefill((1024, 16384))[:2]
    assert long.tokens_per_s_per_gpu.value < short.tokens_per_s_per_gpu.value
    small, large = sweep.decode((16, 128))[:2]
    assert small.tokens_per_s_per_gpu.value < large.tokens_per_s_per_gpu.value
    assert small.step_s.value < large.step_s.value


def test_drafting_brings_more_tokens(sweep: Sweep) -> None:
    plain = sweep.decode((64,))[-1]
    drafted = sweep.decode((64,), speculation=Speculation(tokens=1, acceptance=0.8))[-1]
    assert plain.tokens_per_s_per_gpu.value < drafted.tokens_per_s_per_gpu.value
    assert drafted.tokens_per_s_per_gpu.value < 1.8 * plain.tokens_per_s_per_gpu.value


def test_apart_both_sides_are_busy(sweep: Sweep) -> None:
    pair = sweep.disaggregated(4096, 1024, (64, 128), tpot_s=1.0)
    assert pair is not None
    requests = pair.prefill_share * pair.prefill.tokens_per_s_per_gpu.value / pair.prompt
    assert requests == pytest.approx(pair.output_tokens_per_s_per_gpu / pair.output)
    assert sweep.disaggregated(4096, 1024, (64, 128), tpot_s=1e-3) is None


@pytest.mark.parametrize(
    ("batch", "context", "cards", "measured"), [(128, 4096, 128, 2324.75)], ids=["DeepSeek, decode"]
)
def test_deepseeks_own_decode(batch: int, context: int, cards: int, measured: float) -> None:
    """Published by its makers for H800: 18,598 tokens/s a node of eight."""
    options = DeploymentOptions(
        precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95, expert_load="forced"
    )
    point = Sweep("deepseek-v3-671b", "h800", cards=(cards,), options=options).decode((batch,), (context,))[0]
    assert point.tokens_per_s_per_gpu.value == pytest.approx(measured, rel=0.15)
