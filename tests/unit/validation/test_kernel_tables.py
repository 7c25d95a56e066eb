"""Rows of measured kernel tables: read by file name and columns, predicted without looking at the measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.cost.sample_chips import sample_chip
from windtunnel.cost.batch import ELEMENT_BYTES
from windtunnel.errors import WindtunnelError
from windtunnel.specs.schema import Chip
from windtunnel.validation.aliases import chip_name, precision_of
from windtunnel.validation.kernel_rows import gemm
from windtunnel.validation.kernel_scores import groups, predict_folder, table_of
from windtunnel.validation.kernels import READERS, measured_rows
from windtunnel.validation.routing import rank_load
from windtunnel.validation.score import score
from windtunnel.validation.tables import Table, read_table

GEMM = """gpu,m,k,n,precision,latency_seconds,published_mfu_fraction
H800,16,7168,1536,"FP8 block-scaled (DeepGEMM), BF16 out",{0},0.01
H20,4096,3328,2560,"FP8 block-scaled (DeepGEMM), BF16 out",{1},0.8
Unheard-of 9000,4096,3328,2560,"FP8 block-scaled (DeepGEMM), BF16 out",{1},0.8
"""
ATTENTION = """gpu_system,library,kernel_source,batch_size,isl,num_heads,num_key_value_heads,head_dim,attn_dtype,\
kv_cache_dtype,step,window_size,latency_seconds
h100_sxm,vllm,vllm_flash_attn_fa3,4,2048,32,8,128,bfloat16,bfloat16,0,0,{0}
h100_sxm,vllm,vllm_flash_attn_fa3,4,2048,32,8,128,bfloat16,bfloat16,6144,0,{1}
h100_sxm,vllm,vllm_flash_attn_fa3,4,8192,32,8,128,bfloat16,bfloat16,0,128,{1}
"""
MOE = """gpu_system,library,table,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,\
moe_tp_size,moe_ep_size,distribution,latency_seconds
h100_sxm,trtllm,moe,moe_torch_flow_cutlass,bfloat16,{tokens},4096,2048,8,256,1,8,balanced,{seconds}
h100_sxm,trtllm,moe,moe_torch_flow_cutlass,bfloat16,{tokens},4096,2048,8,256,1,8,power_law_1.2,{seconds}
"""


def chip_of(name: str) -> Chip:
    return sample_chip(name)


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.csv").write_text(text, encoding="utf-8")
    return path


def predicted(path: Path) -> list[float]:
    return [value for item in predict_folder(path, chip_of) for value in item.seconds.tolist()]


def test_blanking_the_measurement_changes_no_prediction(tmp_path: Path) -> None:
    full, blank = tmp_path / "full", tmp_path / "blank"
    full.mkdir(), blank.mkdir()
    folder(
        full,
        kernel_infersim_gemm=GEMM.format(1.6e-5, 2.7e-4),
        kernel_aic_context_attention=ATTENTION.format(1e-3, 2e-3),
    )
    folder(
        blank, kernel_infersim_gemm=GEMM.format("", ""), kernel_aic_context_attention=ATTENTION.format("", "")
    )
    assert predicted(full) == predicted(blank)
    assert len(predicted(full)) == 5


def test_rows_of_unknown_chips_are_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    folder(tmp_path, kernel_infersim_gemm=GEMM.format(1.6e-5, 2.7e-4))
    found = {item.chip: item.index.tolist() for item in predict_folder(tmp_path, chip_of)}
    assert found == {"h800": [0], "h20": [1]}


def test_a_prefix_in_the_cache_adds_work_and_a_window_takes_it_away(tmp_path: Path) -> None:
    folder(tmp_path, kernel_aic_context_attention=ATTENTION.format(1e-3, 2e-3))
    alone, prefixed, windowed = predicted(tmp_path)
    full = measured_rows(tmp_path / "kernel_aic_context_attention.csv")[0]
    assert prefixed > 3 * alone
    assert windowed < 4 * alone
    assert full.parts[0].dim("kv_len").tolist() == [2048, 8192, 8192]


def test_skewed_routing_takes_longer_than_balanced(tmp_path: Path) -> None:
    folder(tmp_path, kernel_aic_moe=MOE.format(tokens=16384, seconds=1e-3))
    balanced, skewed = predicted(tmp_path)
    assert skewed > 1.3 * balanced


def test_a_rank_never_receives_more_rows_than_there_are() -> None:
    for tokens in (1, 7, 512, 8192):
        load = rank_load(tokens, 8, 256, 8, 1.2)
        rows, active = load.rows, load.active
        assert 1 <= active <= 32
        assert rows <= tokens * 8
    balanced = rank_load(4096, 8, 256, 8, 0.0)
    assert (balanced.rows, balanced.active) == (4096.0, 32.0)


def test_groups_of_experts_hold_all_rows_of_their_rank() -> None:
    load = rank_load(512, 8, 128, 4, 1.2)
    rows = sum(count * each for count, each in zip(load.counts, load.loads, strict=True))
    assert rows == pytest.approx(load.rows, rel=1e-6)
    assert sum(load.counts) == pytest.approx(load.active, rel=1e-6)
    assert list(load.loads) == sorted(load.loads, reverse=True)


def test_rows_of_other_ranks_all_land_on_one_expert_where_the_benchmark_sends_them_there() -> None:
    load = rank_load(512, 8, 128, 16, 0.0)
    sent = load.with_remote_rows(512, 8)
    assert sent.rows == min(load.rows, 512.0) * 8
    assert sent.loads[0] > sent.rows - load.rows
    assert sum(c * r for c, r in zip(sent.counts, sent.loads, strict=True)) == pytest.approx(sent.rows)
    assert rank_load(4, 2, 8, 1, 0.0).with_remote_rows(4, 2).rows == 8.0


def test_rows_that_rounding_leaves_over_go_to_the_first_experts() -> None:
    for spare in ("most", "least"):
        load = rank_load(1, 8, 384, 16, 1.01, spare=spare)
        assert (load.rows, load.active) == (8.0, 8.0)
    assert rank_load(1, 8, 384, 16, 1.01).rows == 1.0
    assert (
        rank_load(4, 8, 160, 16, 1.01, spare="least").active
        > 2 * rank_load(4, 8, 160, 16, 1.01, spare="most").active
    )
    for spare in ("most", "least"):
        one_rank = rank_load(300, 8, 64, 1, 1.2, spare=spare)
        assert one_rank.rows <= 300 * 8


def test_scales_are_laid_out_anew_only_where_the_collector_does_so() -> None:
    def parts(chip: str, library: str) -> int:
        columns = {
            "gpu_system": [chip], "library": [library], "dtype": ["fp8_block"], "m": [16.0], "n": [4096.0],
            "k": [4096.0], "latency_seconds": [2e-5],
        }  # fmt: skip
        table = Table(
            "kernel_aic_gemm", {name: np.array(cells) for name, cells in columns.items()}, np.array([0])
        )
        return len(next(iter(gemm.aiconfigurator(table))).parts)

    assert parts("b200_sxm", "sglang") == 2
    assert parts("h100_sxm", "sglang") == 1
    assert parts("b200_sxm", "trtllm") == 1


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    ragged = tmp_path / "kernel_infersim_gemm.csv"
    ragged.write_text("gpu,m\nH20\n", encoding="utf-8")
    with pytest.raises(WindtunnelError) as refusal:
        read_table(ragged)
    assert refusal.value.code == "E951"
    assert "line 2" in str(refusal.value.values["reason"])


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100_sxm", "h100-sxm"),
        ("A100 SXM 80GB", "a100-80g"),
        ("H20-3e 141GB", "h20"),
        ("mthreads S5000 60MP", "mtt-s5000"),
        ("RTX 9999", None),
    ],
)
def test_chip_spellings(spelling: str, name: str | None) -> None:
    assert chip_name(spelling) == name


def test_precision_spellings_tell_the_kernel_path() -> None:
    assert precision_of("fp8_block") == ("fp8", "block128")
    assert precision_of("bfloat16") == ("bf16", "")
    assert precision_of("posit16") is None


def test_scores_are_errors_bias_and_coverage() -> None:
    measured = np.array([1.0, 1.0, 10.0])
    answer = score(np.array([1.1, 0.9, 20.0]), measured, measured * 0.95, measured * 1.05)
    assert answer.median == pytest.approx(0.1)
    assert answer.time_median == pytest.approx(1.0)
    assert answer.coverage == 1.0


def test_the_table_of_scores_names_each_group(tmp_path: Path) -> None:
    folder(tmp_path, kernel_infersim_gemm=GEMM.format(1.6e-5, 2.7e-4))
    text = table_of(groups(list(predict_folder(tmp_path, chip_of)), "file", "chip"))
    assert "kernel_infersim_gemm h20" in text
    assert len(text.splitlines()) == 3


def test_every_reader_takes_an_empty_table(tmp_path: Path) -> None:
    for stem in READERS:
        path = tmp_path / f"{stem}.csv"
        path.write_text("gpu,nothing\n", encoding="utf-8")
        assert measured_rows(path) == []


MLA = """gpu_system,library,table,kernel_source,mla_dtype,kv_cache_dtype,num_heads,batch_size,isl,latency_seconds
l40s,sglang,context_mla,triton,bfloat16,bfloat16,16,1,1024,1e-3
l40s,vllm,context_mla,vllm_triton_mla,bfloat16,bfloat16,16,1,1024,1e-3
h100_sxm,vllm,context_mla,vllm_flash_attn_mla,bfloat16,bfloat16,16,1,1024,1e-3
"""
"""One prefill of each kind; the last is Hopper's."""


def test_latent_prefill_is_what_each_collector_runs(tmp_path: Path) -> None:
    folder(tmp_path, kernel_aic_mla=MLA)
    found = {
        (rows.chip, rows.library): rows.parts[0] for rows in measured_rows(tmp_path / "kernel_aic_mla.csv")
    }
    absorbed = found["l40s", "triton@sglang-mla"]  # one latent key of 512 + 64 for all heads
    assert (absorbed.variant, absorbed.dim("kv_heads")[0], absorbed.dim("qk_dim")[0]) == ("mla", 1, 576)
    padded = found["l40s", "fa2@vllm-mla"]  # FlashAttention 2 wants values as wide as keys
    assert (padded.dim("qk_dim")[0], padded.dim("v_dim")[0]) == (192, 192)
    assert found["h100-sxm", "fa3@vllm-mla"].dim("v_dim")[0] == 128


FLA = """row_id,source_id,gpu,operation,phase,dtype,batch_size,sequence_length_tokens,heads,head_dim,latency_seconds
1,x,GB200,flash_attn,forward,bf16,2,16384,16,128,1e-3
2,x,GB200,flash_attn,forward+backward,bf16,2,16384,16,128,4e-3
3,x,GB200,chunk_gla,forward,bf16,2,16384,16,128,1e-3
"""


def test_flash_attention_beside_linear_attention_is_predicted(tmp_path: Path) -> None:
    folder(tmp_path, kernel_fla_gb200=FLA)
    found = measured_rows(tmp_path / "kernel_fla_gb200.csv")
    assert sorted(len(rows.parts) for rows in found) == [1, 2]
    assert {(rows.library, rows.chip) for rows in found} == {("fa2", "gb200")}


def test_collectors_take_equal_products_in_turns() -> None:
    def weights_between(chip: str, library: str, dtype: str, version: str, n: float) -> float:
        columns = {
            "gpu_system": [chip], "library": [library], "library_version": [version], "dtype": [dtype],
            "m": [1.0], "n": [n], "k": [8192.0], "latency_seconds": [2e-5],
        }  # fmt: skip
        table = Table(
            "kernel_aic_gemm", {name: np.array(cells) for name, cells in columns.items()}, np.array([0])
        )
        part = next(iter(gemm.aiconfigurator(table))).parts[0]
        return float(part.dim("touched_bytes")[0] / (n * 8192.0 * ELEMENT_BYTES[part.precision]))

    assert 6.0 < weights_between("l40s", "sglang", "bfloat16", "0.5.14", 1024) < 6.1
    assert 6.0 < weights_between("l40s", "vllm", "fp8", "0.24.0", 1024) < 6.1
    assert 1.0 < weights_between("b200_sxm", "vllm", "nvfp4", "0.24.0", 1024) < 1.1
    assert 5.0 < weights_between("a100_sxm", "trtllm", "bfloat16", "1.0.0", 65536) < 5.1
    assert 5.0 < weights_between("l40s", "trtllm", "bfloat16", "1.3.0rc20", 1024) < 5.1
    assert 1.0 < weights_between("l40s", "trtllm", "bfloat16", "1.3.0rc20", 65536) < 1.1
