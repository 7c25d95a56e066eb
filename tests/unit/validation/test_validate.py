"""Whole folders of measurements: every row answered or refused, nothing learnt from what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from windtunnel.cli.main import main
from windtunnel.errors import WindtunnelError
from windtunnel.validation import pieces, workers
from windtunnel.validation.folder import files_of, predict_folder
from windtunnel.validation.formats import FORMATS, Kind
from windtunnel.validation.groups import by_family, by_file, pooled, spearman, worst_first
from windtunnel.validation.kernels import READERS
from windtunnel.validation.nearest import Nearest
from windtunnel.validation.pieces import pieces_of, predict_piece
from windtunnel.validation.rows_file import Answers, lines, refused
from windtunnel.validation.workers import in_order

GEMM = """gpu_system,library,library_version,kernel_source,dtype,m,n,k,latency_seconds
h100_sxm,trtllm,1.0,trtllm,bfloat16,4096,4096,4096,{0}
h100_sxm,trtllm,1.0,trtllm,bfloat16,8192,4096,4096,{1}
h100_sxm,trtllm,1.0,trtllm,posit16,4096,4096,4096,{0}
riva_128,trtllm,1.0,trtllm,bfloat16,4096,4096,4096,{0}
h100_sxm,trtllm,1.0,trtllm,bfloat16,many,4096,4096,{0}
h100_sxm,trtllm,1.0,trtllm,bfloat16,-8,4096,4096,{0}
"""
NCCL = """gpu_system,nccl_version,collective,dtype,num_gpus,message_bytes,latency_seconds
h100_sxm,2.27,all_reduce,half,8,1073741824,{0}
h100_sxm,2.27,all_reduce,half,8,1024,{1}
h100_sxm,2.27,all_dance,half,8,1024,{1}
"""
DEEPEP = """gpu_system,mode,num_nodes,hidden_size,tokens_per_rank,topk,num_experts,num_sms,\
dispatch_seconds,combine_seconds
h100_sxm,normal,1,7168,4096,8,256,20,{0},{1}
"""
TRAINING = """row_id,source_id,model,task,gpu,num_gpus,sequence_length_tokens,global_batch_size_sequences,\
micro_batch_size_sequences,tensor_parallel,pipeline_parallel,precision,recompute,framework,tokens_per_s_per_gpu,\
step_seconds,peak_memory_gib,notes
a-0,page_24.01,Llama-3.1 8B,pretrain,H100 SXM,8,4096,16,1,1,1,BF16,none,NeMo,{0},{1},{2},
a-1,page_25.01,Llama-3.1 8B,pretrain,H100 SXM,8,4096,16,1,1,1,BF16,none,NeMo,{3},{4},{2},
a-2,page_25.01,Llama-9 8B,pretrain,H100 SXM,8,4096,16,1,1,1,BF16,none,NeMo,{0},{1},{2},
a-3,page_25.01,Llama-3.1 8B,pretrain,H100 SXM,8,4096,16,1,1,,BF16,none,NeMo,{0},{1},{2},
a-4,page_25.01,Llama-3.1 8B,pretrain,H100 SXM,8,4096,16,1,3,1,BF16,none,NeMo,{0},{1},{2},
a-5,page_25.01,Llama-3.1 8B,pretrain,H100 SXM,8,4096,8e12,1,1,1,BF16,none,NeMo,{0},{1},{2},
a-6,page_25.01,Llama-3.1 8B,pretrain,H100 SXM,8e12,4096,8e12,1,1,1,BF16,none,NeMo,{0},{1},{2},
"""


ONLINE = """row_id,model,gpu,num_gpus,framework,precision,tensor_parallel,pipeline_parallel,mean_input_tokens,\
mean_output_tokens,offered_requests_per_s,num_requests,mean_ttft_seconds,mean_inter_token_latency_seconds
o-0,Llama 3.1 8B,H100 SXM 80GB,1,TensorRT-LLM,BF16,1,1,467,64,2,20,{0},{1}
o-1,Llama 3.1 8B,Unheard-of,1,TensorRT-LLM,BF16,1,1,467,64,2,20,{0},{1}
"""


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
    return folder


def measured(folder: Path) -> Path:
    return write(
        folder,
        kernel_aic_gemm=GEMM.format(2e-4, 4e-4),
        collective_aiconfigurator_nccl=NCCL.format(4.5e-3, 2e-5),
        collective_aiconfigurator_deepep=DEEPEP.format(3e-4, 6e-4),
        infer_trtllm_online=ONLINE.format(0.03, 0.01),
        train_nemo_pages=TRAINING.format(10000, 0.8, 60, 12000, 0.68),
    )


def blank(folder: Path) -> Path:
    return write(
        folder,
        kernel_aic_gemm=GEMM.format("", ""),
        collective_aiconfigurator_nccl=NCCL.format("", ""),
        collective_aiconfigurator_deepep=DEEPEP.format("", ""),
        infer_trtllm_online=ONLINE.format("", ""),
        train_nemo_pages=TRAINING.format("", "", "", "", ""),
    )


def answers(folder: Path, only: str = "*") -> list[Answers]:
    return [part for _, found in predict_folder(folder, only) for part in found if len(part)]


def records(folder: Path, only: str = "*") -> list[dict[str, object]]:
    found = [json.loads(line) for line in lines(answers(folder, only))]
    return sorted(found, key=lambda record: (record["file"], record["target"], record["row"]))


def test_blanking_what_was_measured_changes_no_prediction(tmp_path: Path) -> None:
    full, empty = records(measured(tmp_path / "full")), records(blank(tmp_path / "blank"))
    assert any(record["measured"] for record in full)
    assert not any(record["measured"] for record in empty)
    for record in (*full, *empty):
        del record["measured"]
    assert full == empty


def test_every_row_is_predicted_or_refused_with_a_reason(tmp_path: Path) -> None:
    for record in records(measured(tmp_path)):
        assert (record["prediction"] is None) == (record["reason"] is not None)
        if record["low"] is not None:
            assert 0 < record["low"] <= record["prediction"] <= record["high"]
    gemm = records(tmp_path, "kernel_aic_gemm")
    assert [record["row"] for record in gemm] == [0, 1, 2, 3, 4, 5]
    assert [str(record["reason"])[:4] for record in gemm] == ["None", "None", "E934", "E934", "E933", "E933"]


def test_training_rows_have_all_their_targets(tmp_path: Path) -> None:
    found = {(record["row_id"], record["target"]): record for record in records(measured(tmp_path), "train*")}
    step, rate = found["a-0", "step_seconds"], found["a-0", "tokens_per_s_per_gpu"]
    assert step["prediction"] * rate["prediction"] == pytest.approx(16 * 4096 / 8)
    assert step["low"] * rate["high"] == pytest.approx(16 * 4096 / 8)
    assert found["a-0", "peak_memory_gib"]["prediction"] > 16
    assert "Llama-9" in found["a-2", "step_seconds"]["reason"]
    assert "pipeline_parallel" in found["a-3", "step_seconds"]["reason"]
    assert found["a-4", "step_seconds"]["reason"].startswith("E205")
    assert found["a-5", "step_seconds"]["reason"].startswith("E933")


def test_a_repeated_configuration_is_compared_once_with_its_newest_release(tmp_path: Path) -> None:
    groups = by_family(answers(measured(tmp_path), "train*"))
    step = next(group for group in groups if group.target == "step_seconds" and group.predicted)
    assert (step.seen, step.predicted, step.compared) == (4, 2, 1)
    scored = [
        part for part in answers(tmp_path, "train*") if part.target == "step_seconds" and not part.reason
    ]
    assert [row_id for part in scored for row_id, kept in zip(part.row_id, part.scored) if kept] == ["a-1"]


def test_a_rate_is_not_compared_where_the_time_is_known(tmp_path: Path) -> None:
    groups = by_file(answers(measured(tmp_path), "train*"))
    assert {group.target: group.compared for group in groups}["tokens_per_s_per_gpu"] == 0


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    csv = pytest.importorskip("pyarrow.csv")
    parquet = pytest.importorskip("pyarrow.parquet")
    measured(tmp_path / "csv")
    (tmp_path / "parquet").mkdir()
    for name in ("collective_aiconfigurator_nccl", "train_nemo_pages"):
        table = csv.read_csv(tmp_path / "csv" / f"{name}.csv")
        parquet.write_table(table, tmp_path / "parquet" / f"{name}.parquet")
        assert records(tmp_path / "parquet", name) == records(tmp_path / "csv", name)


def test_files_that_cannot_be_used_are_listed(tmp_path: Path) -> None:
    write(
        tmp_path,
        kernel_aic_gemm="gpu_system,library\nh100_sxm,trtllm\n",
        infer_mlperf="row_id,model\nx,y\n",
        kernel_infersim_gemm="gpu,m,k,n,precision,latency_seconds\nH20,1,2\nH20,4096,4096,4096,bf16,1e-3\n",
        train_papers="",
        shopping_list="eggs\n6\n",
    )
    (tmp_path / "kernel_aic_moe.parquet").write_bytes(b"not parquet")
    found = {file.name: (file.reason, parts) for file, parts in predict_folder(tmp_path)}
    assert found["kernel_aic_gemm.csv"][0].startswith("E932")
    assert found["shopping_list.csv"][0].startswith("E931")
    assert found["train_papers.csv"][0].startswith("E933")
    assert found["kernel_aic_moe.parquet"][0].startswith(("E933", "E951"))
    assert found["infer_mlperf.csv"][0].startswith("E932")
    reasons = {
        int(part.row[0]): part.reason[:4] for part in found["kernel_infersim_gemm.csv"][1] if len(part)
    }
    assert reasons == {0: "E933", 1: ""}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_file_with_its_columns_and_no_rows_gives_nothing(tmp_path: Path, name: str) -> None:
    columns = FORMATS[name].required or ("anything",)
    write(tmp_path, **{name: ",".join(dict.fromkeys(columns)) + "\n"})
    assert answers(tmp_path) == []


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_rubbish_in_every_cell_is_refused_and_raises_nothing(tmp_path: Path, name: str) -> None:
    columns = [*dict.fromkeys(FORMATS[name].required), "beside", "and-beside"]
    rows = [",".join([cell] * len(columns)) for cell in ("", "x", "7", "-1", "1e308", "nan", "inf", "🦊")]
    write(tmp_path, **{name: "\n".join([",".join(columns), *rows]) + "\n"})
    found = records(tmp_path)
    assert {record["row"] for record in found} == set(range(8))
    assert all(record["reason"] for record in found)


def test_every_kernel_reader_has_a_format() -> None:
    words = {name for name, known in FORMATS.items() if known.kind is Kind.S5000}
    assert {name for name, known in FORMATS.items() if known.kind is Kind.KERNEL} | words == set(READERS)


def test_folders_without_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as missing:
        list(predict_folder(tmp_path / "nowhere"))
    assert missing.value.code == "E930"
    write(tmp_path, shopping_list="eggs\n6\n")
    with pytest.raises(WindtunnelError) as none:
        list(predict_folder(tmp_path))
    assert none.value.code == "E953"


def part(value: list[float], seconds: list[float], reason: str = "") -> Answers:
    rows = np.arange(len(seconds))
    ids = ("",) * len(seconds)
    if reason:
        return refused("f", "s", rows, ids, np.array(seconds), reason)
    numbers = np.array(value)
    return Answers(
        "f", "", "", "", "s", "s", rows, ids, numbers, numbers * 0.8, numbers * 1.25, np.array(seconds),
        numbers / 2, np.ones(len(rows), dtype=np.bool_),
    )  # fmt: skip


def test_figures_of_a_group() -> None:
    group = by_family([part([1.1, 2.0, 6.0], [1.0, 2.0, 3.0]), part([], [1.0] * 5, "why")])[0]
    assert (group.seen, group.predicted, group.refused, group.compared) == (8, 3, 5, 3)
    assert group.reasons == (("why", 5),)
    assert group.median == pytest.approx(0.1)
    assert group.bias == pytest.approx(0.1)
    assert group.time_median == pytest.approx(0.1)
    assert group.median_all == pytest.approx(1.0)
    assert group.coverage == pytest.approx(2 / 3)
    assert group.rank == pytest.approx(1.0)
    assert group.baseline_median == pytest.approx(0.45)


def test_the_worst_group_comes_first_and_unmeasured_ones_last() -> None:
    groups = [by_family([part(value, [1.0, 1.0])])[0] for value in ([1.1, 1.1], [2.0, 2.0])]
    unknown = by_family([part([1.0], [np.nan])])[0]
    assert worst_first([unknown, *groups]) == [groups[1], groups[0], unknown]


def test_rank_correlation_counts_ties_at_their_mean() -> None:
    assert spearman(np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0, 9.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert spearman(np.array([1.0, 1.0, 1.0]), np.array([3.0, 2.0, 1.0])) is None
    assert spearman(np.array([1.0, 2.0]), np.array([3.0, 2.0])) is None


def test_training_steps_are_pooled_over_files_each_row_once(tmp_path: Path) -> None:
    steps = [
        replace(part([1.1, 2.0], [1.0, 2.0]), file="train_dgxc_benchmarking"),
        replace(part([2.0], [1.0]), file="train_torchtitan", unit="tokens/s", target="tokens_per_s_per_gpu"),
        replace(part([], [1.0], "why"), file="train_papers"),
        replace(part([3.0], [3.3]), file="train_torchtitan", unit="GiB", target="peak_memory_gib"),
        part([1.0], [1.0]),
    ]
    found = {group.file: group for group in pooled(steps)}
    assert set(found) == {"training steps, pooled", "peak memory, pooled"}
    group = found["training steps, pooled"]
    assert (group.seen, group.predicted, group.compared) == (4, 3, 3)
    assert group.median == pytest.approx(0.1)
    assert group.median_all == pytest.approx(0.55)  # the refused row counts as 100 %
    assert group.reasons == (("why", 1),)


def test_pieces_in_two_processes_are_what_whole_tables_are(tmp_path: Path) -> None:
    folder = measured(tmp_path)
    (folder / "infer_trtllm_online.csv").write_text(
        ONLINE.format(0.03, 0.01) + "o-2,Llama 3.1 8B,H200,1,TensorRT-LLM,BF16,1,1,467,64,2,20,0.03,0.01\n"
    )
    cut = pieces_of(files_of(folder), folder)
    assert [FORMATS[piece.path.stem].kind for piece in cut] == [
        Kind.KERNEL, Kind.COLLECTIVE, Kind.COLLECTIVE, Kind.TRAINING, *[Kind.SERVING] * 3,
    ]  # fmt: skip
    apart = [part for found in in_order(predict_piece, cut, 2) for part in found.answers]
    assert sorted(lines(apart)) == sorted(lines(answers(folder)))
    whole = [part for _, found in predict_folder(folder, nearest=Nearest(folder)) for part in found]
    assert by_file(apart) == by_file(whole)


def test_rows_are_written_as_they_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rows = measured(tmp_path / "data"), tmp_path / "rows.jsonl"
    known = pieces.predict_piece

    def interrupted(piece: pieces.Piece) -> pieces.Predicted:
        if piece.path.stem.startswith("train"):
            raise KeyboardInterrupt
        return known(piece)

    monkeypatch.setattr(pieces, "predict_piece", interrupted)
    monkeypatch.setattr(workers, "cores", lambda: 1)
    assert main(["validate", "--data", str(folder), "--rows", str(rows), "-q"]) == 130
    written = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    assert {one["file"] for one in written} == {
        "kernel_aic_gemm", "collective_aiconfigurator_nccl", "collective_aiconfigurator_deepep",
    }  # fmt: skip
