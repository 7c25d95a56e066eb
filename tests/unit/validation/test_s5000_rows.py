"""Rows of S5000 tables say in words what was run; complete ones are predicted, the others named by what they lack."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip as known_chip
from windtunnel.validation.explain.kernel import explain_kernel
from windtunnel.validation.explain.points import shipped_points
from windtunnel.validation.explain.row import explain_row
from windtunnel.validation.folder import predict_folder
from windtunnel.validation.kernel_rows.layers import stream
from windtunnel.validation.moore_threads_words import cards_of, said
from windtunnel.validation.rows_file import Answers
from windtunnel.validation.s5000_runs import figures_of, run_of
from windtunnel.validation.s5000_training import gaps, step_of

COLUMNS = "row_id,category,device,num_devices,workload,configuration,software,metric,value,unit"
CARD = "Moore Threads MTT S5000"
SERVED = "TP4, exact ISL 4096, OSL 1024, batch {}, full CUDA-graph-style capture, {} PR"
ROWS = (
    ("a", "inference", 4, "Qwen3.5-35B-A3B FP8", SERVED.format(1, "before"), "tpot", 1.0),
    ("b", "inference", 4, "Qwen3.5-35B-A3B FP8", SERVED.format(1, "after"), "tpot", 1.0),
    ("c", "inference", 4, "Qwen3.5-35B-A3B FP8", SERVED.format(1, "after"), "ttft", 1.0),
    ("d", "inference", 4, "Qwen3.5-35B-A3B FP8", SERVED.format(1, "after"), "output_tokens_per_s", 1.0),
    ("e", "inference", 2, "Qwen3.6-27B", "TP2, serving benchmark (lengths not stated)", "tpot", 1.0),
    ("f", "inference", 1, "Another-7B", "TP1, ISL 512, OSL 512, batch 1", "tpot", 1.0),
    ("g", "inference", 1, "Qwen3-8B Q4_K_M", "TP1, ISL 512, OSL 512, batch 1", "tpot", 1.0),
    ("h", "training", 8, "Qwen3.5 (size not stated)", "TP4 PP1 DP2", "step_seconds", 1.0),
    ("i", "kernel", 1, "gated delta net chunk forward+backward", "B=1, S=4096, H=8, DK=DV=128, FLA Triton",
     "latency_seconds", 1.0),
    ("j", "specification", 1, "device query", "", "L2 cache", 1.0),
)  # fmt: skip


def answered(folder: Path, rows: tuple[tuple[object, ...], ...] = ROWS) -> dict[str, tuple[Answers, int]]:
    """Predictions or refusals by row id."""
    lines = [
        ",".join(f'"{cell}"' for cell in (row_id, kind, CARD, cards, what, how, "", metric, value, ""))
        for row_id, kind, cards, what, how, metric, value in rows
    ]
    (folder / "s5000_end_to_end.csv").write_text("\n".join([COLUMNS, *lines]) + "\n", encoding="utf-8")
    [(_, parts)] = predict_folder(folder)
    return {name: (part, place) for part in parts for place, name in enumerate(part.row_id)}


def test_words_become_numbers() -> None:
    found = said("Qwen3.5-35B-A3B FP8", SERVED.format(16, "after"))
    assert (found.model, found.precision, found.tensor) == ("Qwen3.5-35B-A3B", "FP8", 4)
    assert (found.prompt, found.output, found.sequences) == (4096, 1024, 16)
    assert found.graphs is True
    assert not found.earlier
    clients = said("M", "TP1, 8 concurrent prompts of about 2.5k input / 1.5k output tokens, before PR")
    assert (clients.prompt, clients.output, clients.sequences, clients.earlier) == (2500, 1500, 8, True)
    drafts = said("M", "TP1, batch 1, MTP with 6 draft tokens (mean acceptance 6.09 tokens per step)")
    assert (drafts.drafted, drafts.yielded) == (6, 6.09)
    step = said("DeepSeek-V2-shaped, PP16 CP2, seq 8192, GBS 64, profiled: step", "")
    assert (step.pipeline, step.context, step.sequence, step.global_batch) == (16, 2, 8192, 64)
    assert cards_of("mthreads S5000 256x") == ("mthreads S5000", 256)
    assert cards_of(CARD) == (CARD, 0)


def test_complete_rows_are_predicted_and_others_say_what_is_missing(tmp_path: Path) -> None:
    found = answered(tmp_path)
    assert sorted(found) == [row[0] for row in ROWS]
    tpot, ttft, rate = (float(found[name][0].value[found[name][1]]) for name in "bcd")
    # one sequence: output tokens a second are what TTFT and TPOT say
    assert rate == pytest.approx(1024 / (ttft + 1023 * tpot), rel=0.01)
    # 40 layers of at least 20 kernels of 7 microseconds, and the weights of a token at least
    assert 0.0056 < tpot < 0.03
    for name in "abcd":
        part, place = found[name]
        assert part.low[place] < part.value[place] < part.high[place], name
    reasons = {name: found[name][0].reason for name in "efghj"}
    assert "lengths and sequences at once not stated" in reasons["e"]
    assert "`Another-7B` is not in the catalogue" in reasons["f"]
    assert "Q4_K_M weights" in reasons["g"]
    assert "the model's size, sequence, global batch not stated" in reasons["h"]
    assert "an input" in reasons["j"]
    assert found["i"][0].family == "deltanet/bf16/chunk"


def test_prompts_of_qwen35_are_computed_whole_one_after_another() -> None:
    def run(sequences: int) -> dict[str, float]:
        words = said("Qwen3.5-35B-A3B FP8", SERVED.format(sequences, "after"))
        return {name: each.value for name, each in figures_of(run_of(words, "mtt-s5000", 4, False)).items()}

    one, eight = run(1), run(8)
    # 8,192 tokens a step take one prompt of 4,096 beside a token that decodes: the eighth waits for seven
    assert eight["ttft"] == pytest.approx(4.5 * one["ttft"], rel=0.15)
    options = run_of(
        said("Qwen3-8B", "TP1, ISL 512, OSL 512, batch 2"), "mtt-s5000", 1, False
    ).deployment.options
    assert options.enable_chunked_prefill
    assert options.async_scheduling


def test_a_change_of_software_is_scored_after_it(tmp_path: Path) -> None:
    found = answered(tmp_path)
    before, after = (found[name][0].scored[found[name][1]] for name in "ab")
    assert not before
    assert after
    assert found["a"][0].value[found["a"][1]] == found["b"][0].value[found["b"][1]]


def test_what_was_measured_moves_no_prediction(tmp_path: Path) -> None:
    def values(rows: tuple[tuple[object, ...], ...]) -> list[float]:
        found = answered(tmp_path, rows)
        return [float(found[name][0].value[found[name][1]]) for name in sorted(found)]

    other = tuple((*row[:-1], 7.0) for row in ROWS)
    np.testing.assert_array_equal(values(ROWS), values(other))


def test_runs_among_measured_points(tmp_path: Path) -> None:
    (tmp_path / "s5000_measured.csv").write_text(
        "device,group,metric,shape,value,unit,source\n"
        'mthreads S5000 256x,training,"DeepSeek-V2-shaped, PP16 CP2, seq 8192, GBS 64: step",,22.2,s (min),x\n'
        'mthreads S5000 8x,inference,"Qwen3.5-397B-FP8 decode step, eager",custom runner,234.0,ms,x\n',
        encoding="utf-8",
    )
    [(_, parts)] = predict_folder(tmp_path)
    by_row = {int(row): part for part in parts for row in part.row}
    assert math.isfinite(by_row[0].value[0])
    assert by_row[0].measured[0] == 22.2
    assert "not stated" in by_row[1].reason


def test_training_in_words() -> None:
    words = said("DeepSeek-V2-shaped, PP16 CP2, seq 8192, GBS 64: step", "")
    assert not gaps(words, 256)
    assert "cards" in gaps(words, 0)
    assert step_of(words, "mtt-s5000", 256).value[0] > 1.0


def test_a_row_of_serving_is_taken_apart(tmp_path: Path) -> None:
    answered(tmp_path)
    why = explain_row(tmp_path, "s5000_end_to_end.csv:b", (), top=3)
    assert why.step is not None
    assert len(why.step.operations) == 3
    assert why.step.seconds == pytest.approx(why.answers[0].prediction, rel=0.1)
    assert any("assumed" in note for note in why.step.notes)


def test_copies_are_compared_by_what_they_move() -> None:
    chip = known_chip("mtt-s5000")
    moved = stream(Family.COPY, np.array([2.0**30]), np.array([2.0**30]), {})
    near = explain_kernel(moved, chip, shipped_points()).near
    assert near is not None
    assert near.point.chip == "mtt-s5000"
    assert near.factor == pytest.approx(2.0)  # the largest that was measured is 512 MiB


def test_rows_of_online_loads_are_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "infer_trtllm_online.csv").write_text(
        "model,gpu,num_gpus,framework,precision,tensor_parallel,mean_input_tokens,mean_output_tokens,"
        "offered_requests_per_s,num_requests\n"
        "Llama 3.1 8B,H100 SXM 80GB,1,TensorRT-LLM,BF16,1,64,8,2,20\n",
        encoding="utf-8",
    )
    why = explain_row(tmp_path, "infer_trtllm_online.csv:0", (), top=1)
    assert why.step is not None
    assert 0.003 < why.step.seconds < 0.02
