"""What TensorRT-LLM of 2024 took, by its own pages: the factors are those of the pages' figures."""

from __future__ import annotations

from statistics import geometric_mean

import pytest

from windtunnel.validation.mlperf_rows import mlperf_run
from windtunnel.validation.serving_rows import _one
from windtunnel.validation.trtllm_age import MIDDLE_OF_2024, seconds_factor

SHORT = ((128, 128), (2048, 128))


def over_page(model: str, release: str, cards: int, precision: str, figures: tuple[float, ...]) -> float:
    """Predicted tokens/s over those of a page, of the two short outputs on H100."""
    ratios = []
    for (prompt, output), measured in zip(SHORT, figures, strict=True):
        record = {
            "row_id": "x", "model": model, "gpu": "H100 SXM 80GB", "num_gpus": str(cards), "precision": precision,
            "framework": f"TensorRT-LLM v{release} C++ engine", "tensor_parallel": str(cards),
            "input_tokens": str(prompt), "output_tokens": str(output), "num_requests": "2000", "notes": "",
            "phase": "offline maximum load", "output_tokens_per_s_per_gpu": "1",
        }  # fmt: skip
        ratios.append(_one(record)[0].predicted * cards / measured)
    return geometric_mean(ratios)


@pytest.mark.parametrize(
    ("model", "release", "cards", "precision", "figures", "factor"),
    [
        ("Mixtral 8x7B", "0.11", 2, "FP8 (FP8 KV cache)", (24770.44, 2973.11), MIDDLE_OF_2024),
        ("Llama 2 70B", "0.11", 2, "FP8 (FP8 KV cache)", (6502.44, 747.14), MIDDLE_OF_2024),
        ("Mixtral 8x7B", "0.12", 2, "FP8 (FP8 KV cache)", (24394.71, 2898.27), MIDDLE_OF_2024),
    ],
)
def test_factors_are_those_of_the_pages(
    model: str, release: str, cards: int, precision: str, figures: tuple[float, ...], factor: float
) -> None:
    assert over_page(model, release, cards, precision, figures) == pytest.approx(factor, rel=0.12)


def test_only_what_pages_cover_is_older() -> None:
    assert seconds_factor("mlperf_inference_v4.1", "h100-nvl") == MIDDLE_OF_2024
    assert seconds_factor("mlperf_inference_v4.1", "b200") == 1.0
    assert seconds_factor("mlperf_inference_v5.1", "h100-sxm") == 1.0


def test_an_old_engine_serves_less() -> None:
    row = {"model": "llama2-70b-99", "precision": "fp8", "phase": "Offline", "framework": "TensorRT 10.2.0"}
    run = mlperf_run({**row, "source_id": "mlperf_inference_v4.1"}, "h100-sxm")
    assert run.age == MIDDLE_OF_2024
    assert any("2024" in text for text in run.assumed)
    assert mlperf_run({**row, "source_id": "mlperf_inference_v5.1"}, "h100-sxm").age == 1.0
