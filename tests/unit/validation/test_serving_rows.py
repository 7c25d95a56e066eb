"""Published rows are rebuilt from their columns, or left out with a reason."""

from __future__ import annotations

from pathlib import Path

from windtunnel.serving.expert_load import BALANCED, FORCED, PUBLISHED
from windtunnel.validation.folder import predict_folder
from windtunnel.validation.serving_rows import _redundant, _routing, published

COLUMNS = (
    "row_id", "model", "gpu", "num_gpus", "framework", "precision", "tensor_parallel", "pipeline_parallel",
    "expert_parallel", "data_parallel_attention", "input_tokens", "output_tokens", "concurrency_or_batch",
    "phase", "output_tokens_per_s_per_gpu", "input_tokens_per_s_per_gpu", "tpot_seconds", "notes",
)  # fmt: skip
ROWS = (
    ("a", "Qwen3-8B", "H20 96GB", 1, "x", "FP8", 1, 1, "", "", 4096, 2048, 64, "decode", 2682, "", 0.02, ""),
    ("b", "Qwen3-8B", "H20 96GB", 1, "x", "FP8", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("c", "Qwen3-8B", "H20 96GB", 1, "x", "NVFP4", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("d", "Qwen3-8B", "TPU", 1, "x", "BF16", 1, 1, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
    ("e", "Qwen3-8B", "H20 96GB", 2, "x", "BF16", 1, 2, "", "", 4096, 1, 4, "prefill", "", 15061, "", ""),
)


def write(folder: Path, name: str, rows: tuple[tuple[object, ...], ...]) -> None:
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_rows_are_rebuilt_or_refused_with_a_reason(tmp_path: Path) -> None:
    other = ("z", "Other", "H20 96GB", *ROWS[0][3:])
    write(tmp_path, "infer_published_misc.csv", (*ROWS, other))
    [(_, parts)] = predict_folder(tmp_path)
    found = {name: (part, place) for part in parts for place, name in enumerate(part.row_id)}
    reasons = {name: part.reason.partition(": ")[2] for name, (part, _) in found.items()}
    assert reasons == {
        "a": "",
        "b": "",
        "z": "model not in the catalogue",
        "c": "NVIDIA H20 96 GB has no FP4 matrix units",
        "d": "card not in the catalogue",
        "e": "pipeline parallel",
    }
    # a figure per card of the right order: memory bound below, compute bound above
    decode, prefill = (part.value[place] for part, place in (found["a"], found["b"]))
    assert 500 < decode < 6000
    assert 3000 < prefill < 2 * found["b"][0].baseline[found["b"][1]]


def test_published_deployments_are_told_in_words(tmp_path: Path) -> None:
    write(tmp_path, "infer_published_misc.csv", ROWS)
    [(words, row), (more, _)] = published(tmp_path / "infer_published_misc.csv", "Qwen")
    assert (words, more) == ("x, 1 × H20, decode, 4,096 tokens", "x, 1 × H20, prefill, 4,096 tokens")
    assert row.low < row.predicted < row.high


def test_online_rows_are_rebuilt(tmp_path: Path) -> None:
    columns = (
        "row_id,model,gpu,num_gpus,framework,precision,tensor_parallel,pipeline_parallel,mean_input_tokens,"
        "mean_output_tokens,offered_requests_per_s,num_requests,mean_ttft_seconds,mean_inter_token_latency_seconds"
    )
    row = "o,Llama 3.1 8B,H100 SXM 80GB,1,TensorRT-LLM v0.14 behind Triton backend,BF16,1,1,202,16,4,40,0.02,0.007"
    (tmp_path / "infer_trtllm_online.csv").write_text(f"{columns}\n{row}\n", encoding="utf-8")
    [(_, parts)] = predict_folder(tmp_path)
    assert {part.target: part.reason for part in parts} == {
        "mean_inter_token_latency_seconds": "",
        "mean_ttft_seconds": "",
    }
    gap, first = (float(part.value[0]) for part in sorted(parts, key=lambda part: part.target))
    assert 0.005 < gap < 0.012  # 16 GB of weights a token
    assert gap < first < 0.1


def test_rows_say_how_tokens_were_routed() -> None:
    measured = {"notes": "measured expert imbalance", "framework": "SGLang"}
    assert _routing(measured, 2048) == f"{PUBLISHED}:2048"
    assert _routing({"notes": "", "framework": "SGLang; forced balanced routing"}, 2048) == FORCED
    assert _routing({"notes": "", "framework": "SGLang"}, 2048) == BALANCED
    assert _redundant("4 nodes, 32 redundant experts (288 total)") == 32
    assert _redundant("") == 0
