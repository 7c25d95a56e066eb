"""Rows of MLPerf inference logs: what they state, what the rules say, what is taken for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.serving.kernel_library import Stack
from windtunnel.specs.catalogue import chip
from windtunnel.validation.folder import predict_folder
from windtunnel.validation.mlperf_lengths import DEEPSEEK_R1, LLAMA31_405B, MIXTRAL
from windtunnel.validation.mlperf_rows import BENCHMARKS, SCENARIOS, mlperf_run, tokens_per_s_per_card
from windtunnel.validation.mlperf_settings import TABLE, published

ROW = {
    "model": "llama3.1-8b",
    "precision": "fp8/fp4 per system (not parsed)",
    "tensor_parallel": "",
    "pipeline_parallel": "",
    "phase": "Offline",
}


def test_every_benchmark_is_in_the_catalogue() -> None:
    for known in BENCHMARKS:
        assert mlperf_run({**ROW, "model": known.pattern.replace("-?", "-").replace("[._]", ".")}, "h200")


def test_defaults_are_the_cards_own() -> None:
    hopper, blackwell = mlperf_run(ROW, "h100-sxm"), mlperf_run(ROW, "b200")
    assert "fp8" in hopper.deployment.words()
    assert "fp4" in blackwell.deployment.words()
    assert any("FP8" in text for text in hopper.assumed)
    big = mlperf_run({**ROW, "model": "llama2-70b-99.9"}, "h100-sxm")
    assert big.deployment.layout.cards == 2
    stated = mlperf_run({**ROW, "model": "llama2-70b-99.9", "tensor_parallel": "4.0"}, "h100-sxm")
    assert stated.deployment.layout.cards == 4


def test_lengths_scatter_about_the_data_sets_means() -> None:
    for known in BENCHMARKS:
        requests = known.requests(4000)
        for tokens, mean, longest in (
            ([one.prompt_tokens for one in requests], known.prompt, known.longest[0]),
            ([one.output_tokens for one in requests], known.output, known.longest[1]),
        ):
            assert max(tokens) <= longest
            assert sum(tokens) / len(tokens) == pytest.approx(mean, rel=0.01)
            assert sum(tokens[:200]) / 200 == pytest.approx(mean, rel=0.01)  # whatever load is made of them
            assert len(set(tokens)) > 40 or mean == longest


def test_outputs_are_as_long_as_logs_say() -> None:
    """Half of DeepSeek-R1's answers are shorter than 0.57 of the mean, Llama 3.1 405B's are all about as long."""
    found = {known.model: [one.output_tokens for one in known.requests(4000)] for known in BENCHMARKS}
    for model, of in (
        ("deepseek-v3-671b", DEEPSEEK_R1),
        ("llama3.1-405b", LLAMA31_405B),
        ("mixtral-8x7b", MIXTRAL),
    ):
        ordered = sorted(found[model])
        mean = sum(ordered) / len(ordered)
        for share, ratio in zip(of.AT[:3], of.ratios, strict=False):
            assert ordered[int(share * len(ordered))] / mean == pytest.approx(ratio, rel=0.08)
    assert max(found["deepseek-v3-671b"]) == 20_000  # the longest that the rules let the model say


def test_each_round_has_its_own_settings() -> None:
    old, new = (
        published("h200", "llama2-70b", "server", source=f"mlperf_inference_{n}") for n in ("v4.1", "v5.1")
    )
    assert old is not None
    assert new is not None
    assert (old.sequences, old.chunked) == (896, False)
    assert (new.sequences, new.chunked) == (2048, True)
    assert published("gh200", "mixtral-8x7b", "offline", source="mlperf_inference_v5.1") is not None  # v4.1's
    served = published("h100-sxm", "llama3-8b", "server", Stack.VLLM)
    assert served is not None
    assert served.cache == "bfloat16"


def test_ranks_of_deepseek_wait_for_each_others_prompts() -> None:
    run = mlperf_run({**ROW, "model": "deepseek-r1", "phase": "Server"}, "b200")
    (replica,) = run.deployment.start()
    assert replica.balance is not None
    assert len(replica.ranks) == 8
    assert not replica.ranks[0].options.enable_chunked_prefill
    decodes = run.deployment.step
    assert decodes.decode_s(130, 130 * 64) > 1.05 * decodes.decode_s(
        128, 128 * 64
    )  # padded to a graph of 256


def test_the_engine_is_the_logs_own() -> None:
    assert mlperf_run({**ROW, "framework": "vLLM 0.10.0, RHEL 9.6"}, "h100-sxm").stack is Stack.VLLM
    assert mlperf_run({**ROW, "framework": "TensorRT 10.2.0"}, "h100-sxm").stack is Stack.TRTLLM


def test_a_pipeline_is_as_quick_a_card_as_its_stages() -> None:
    row = {**ROW, "model": "llama2-70b-99", "tensor_parallel": "2"}
    whole = tokens_per_s_per_card(mlperf_run(row, "h100-sxm"))
    staged = tokens_per_s_per_card(mlperf_run({**row, "pipeline_parallel": "2"}, "h100-sxm"))
    assert 0.8 * whole < staged < 1.6 * whole  # two stages have more than twice the room for the cache


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "bert"}, "benchmark `bert`"),
        ({"phase": "SingleStream"}, "scenario"),
        ({"pipeline_parallel": "2.0", "phase": "Server"}, "pipeline"),
    ],
)
def test_what_cannot_be_rebuilt_is_named(change: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        mlperf_run({**ROW, **change}, "h100-sxm")


def test_limits_on_latency_cost_throughput(tmp_path: Path) -> None:
    offline, chat = (
        tokens_per_s_per_card(mlperf_run({**ROW, "phase": phase}, "h100-sxm"))
        for phase in ("Offline", "Interactive")
    )
    assert 5_000 < offline < 60_000
    assert 0.05 * offline < chat < offline
    lines = ("row_id,model,gpu,precision,phase,notes", "m,llama3.1-8b,NVIDIA H100-SXM-80GB,fp8,Offline,x")
    (tmp_path / "infer_mlperf.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    [(_, parts)] = predict_folder(tmp_path)
    assert [part.reason for part in parts] == [""]
    assert parts[0].value[0] == pytest.approx(offline)
    assert parts[0].low[0] < offline < parts[0].high[0]


def test_what_logs_do_not_say_is_taken_from_published_settings() -> None:
    row = {**ROW, "model": "llama3.1-405b", "phase": "Server"}
    run = mlperf_run(row, "b200")
    assert (run.tensor, run.pipeline) == (4, 1)
    options = run.deployment.options
    assert (options.max_num_seqs, options.max_num_batched_tokens) == (256, 2048)
    assert options.max_utilization
    assert any("submissions" in text for text in run.assumed)
    stated = mlperf_run({**row, "tensor_parallel": "8", "concurrency_or_batch": "128.0"}, "b200")
    assert stated.deployment.layout.cards == 8
    assert stated.deployment.options.max_num_seqs == 128
    assert mlperf_run({**row, "framework": "vLLM 0.10"}, "b200").settings is None
    assert mlperf_run(row, "h100-sxm").settings is None


def test_every_setting_is_of_a_known_benchmark_and_card() -> None:
    for one in TABLE:
        assert one.model in {known.model for known in BENCHMARKS}
        assert set(one.scenarios) <= set(SCENARIOS)
        assert all(chip(name) for name in one.chips)
        assert 0.8 <= one.settings.cache_share < 1.0
