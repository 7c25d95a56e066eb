"""What collectors of experts' tables did: gates, old tiles, searched tiles, blanks of other ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.cost.batch import Batch
from windtunnel.cost.tiles import TUNED_TRITON_EXPERTS
from windtunnel.program.work import Family
from windtunnel.specs.catalogue import chip
from windtunnel.validation.kernel_rows.moe import aiconfigurator
from windtunnel.validation.kernel_rows.moe_collectors import HOST_S
from windtunnel.validation.kernel_scores import predict_rows
from windtunnel.validation.kernels import rows_of_folder
from windtunnel.validation.measured import MeasuredRows
from windtunnel.validation.routing import RankLoad
from windtunnel.validation.tables import read_table

HEADER = """gpu_system,library,library_version,table,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,\
num_experts,moe_tp_size,moe_ep_size,distribution,latency_seconds
"""
NEMOTRON = "2688,1856,6,128,1,1,balanced,1e-3\n"
QWEN = "4096,1536,8,128,1,4,balanced,1e-3\n"


def rows(path: Path, *lines: str) -> list[MeasuredRows]:
    file = path / "kernel_aic_moe.csv"
    file.write_text(HEADER + "".join(lines), encoding="utf-8")
    return list(aiconfigurator(read_table(file)))


def products(found: MeasuredRows) -> list[Batch]:
    return [part for part in found.parts if part.family is Family.GROUPED_GEMM]


@pytest.mark.parametrize(
    ("chip", "engine", "version", "source", "gates"),
    [
        ("a100_sxm", "vllm", "0.14.0", "vllm_fused_moe", 2),
        ("h100_sxm", "vllm", "0.24.0", "vllm_unquantizedfusedmoe_triton_tritonexperts", 1),
        ("a100_sxm", "sglang", "0.5.10", "sglang_fused_moe_triton", 2),
        ("h100_sxm", "sglang", "0.5.14", "sglang_fused_moe_triton", 1),
        ("h100_sxm", "trtllm", "1.3.0rc20", "moe_torch_flow_cutlass", 2),
        ("h100_sxm", "trtllm", "1.3.0rc20", "moe_torch_flow_nongated", 1),
    ],
)
def test_layers_without_a_gate_have_one_up_product_where_the_collector_followed_the_model(
    tmp_path: Path, chip: str, engine: str, version: str, source: str, gates: int
) -> None:
    (found,) = rows(tmp_path, f"{chip},{engine},{version},moe,{source},bfloat16,64,{NEMOTRON}")
    up, down = products(found)
    assert up.dim("n").item() == gates * 1856
    assert down.dim("k").item() == 1856


def test_every_other_layer_has_a_gate(tmp_path: Path) -> None:
    source = "vllm_unquantizedfusedmoe_triton_tritonexperts"
    (found,) = rows(tmp_path, f"h100_sxm,vllm,0.24.0,moe,{source},bfloat16,64,{QWEN}")
    assert products(found)[0].dim("n").item() == 2 * 1536


def test_releases_with_other_tiles_are_kernels_of_their_own(tmp_path: Path) -> None:
    old = f"a100_sxm,vllm,0.14.0,moe,vllm_fused_moe,bfloat16,64,{QWEN}"
    new = f"h100_sxm,vllm,0.24.0,moe,vllm_unquantizedfusedmoe_triton_tritonexperts,bfloat16,64,{QWEN}"
    assert [item.library for item in rows(tmp_path, old, new)] == ["triton@vllm-2025", "triton@vllm"]


def test_layers_whose_tiles_an_engine_ships_say_so(tmp_path: Path) -> None:
    line = "h100_sxm,sglang,0.5.14,moe,sglang_fused_moe_triton,bfloat16,64,{}"
    tuned = line.format("4096,2048,8,256,2,16,balanced,1e-3\n")
    ruled = line.format("4096,2048,8,256,2,8,balanced,1e-3\n")
    (found,) = rows(tmp_path, tuned, ruled)
    assert products(found)[0].dim("menu").tolist() == [float(TUNED_TRITON_EXPERTS), 0.0]


def test_triton_writes_zeros_for_rows_of_other_ranks(tmp_path: Path) -> None:
    source = "vllm_unquantizedfusedmoe_triton_tritonexperts"

    def written(ranks: int) -> float:
        line = f"h100_sxm,vllm,0.24.0,moe,{source},bfloat16,4096,4096,1536,8,128,1,{ranks},balanced,1e-3\n"
        (found,) = rows(tmp_path, line)
        return sum(part.bytes_written.sum() for part in found.parts if part.family is Family.COPY)

    zeros = 4096 * 8 * (3 / 4) * (2 * 1536 + 4096) * 2.0
    assert written(4) - written(1) == pytest.approx(zeros)


def test_quantised_experts_quantise_what_the_activation_answers(tmp_path: Path) -> None:
    source = "vllm_fp8moe_triton_tritonexperts"
    (found,) = rows(tmp_path, f"h100_sxm,vllm,0.24.0,moe,{source},fp8_block,64,{QWEN}")
    passes = [part for part in found.parts if part.family is Family.POINTWISE]
    assert len(passes) == 3  # activation, input, what the activation answers


def test_prompts_between_deepeps_exchanges_come_in_fp8(tmp_path: Path) -> None:
    """Scatter reads a byte of every token that came and writes one of every row; gather reads two and writes two."""
    line = "h100_sxm,sglang,0.5.10,wideep_context_moe,deepepmoe,fp8_block,32768,7168,2048,8,256,1,4,uniform,5e-3\n"
    (found,) = rows(tmp_path, line)
    beside = [part for part in found.parts if part.family is not Family.GROUPED_GEMM]
    arrived, received = 32768, 65536
    moved = sum(float(part.bytes_read[0] + part.bytes_written[0]) for part in beside)
    layout = (arrived + received + 2 * received + 2 * arrived) * 7168
    activation = received * 2048 * (4 + 2 + 2 + 1)
    assert moved == pytest.approx(layout + activation)


def test_decoding_between_deepeps_exchanges_is_products_and_an_activation(tmp_path: Path) -> None:
    line = "h100_sxm,sglang,0.5.10,wideep_generation_moe,deepepmoe,fp8_block,128,7168,2048,8,256,1,32,uniform,1e-4\n"
    (found,) = rows(tmp_path, line)
    (activation,) = [part for part in found.parts if part.family is not Family.GROUPED_GEMM]
    assert activation.bytes_written[0] == activation.bytes_read[0] / 4  # two of 16 bits to one of 8


def test_prompts_too_few_for_whole_blocks_or_the_host_are_not_fitted_and_last_as_long_as_it(
    tmp_path: Path,
) -> None:
    def line(tokens: int, ranks: int) -> str:
        return (
            f"h100_sxm,sglang,0.5.10,wideep_context_moe,deepepmoe,fp8_block,{tokens},7168,2048,8,256,1,{ranks},"
            "uniform,1e-3\n"
        )

    small, sparse, kept = line(4096, 256), line(2048, 4), line(16384, 32)
    found = rows(tmp_path, small, sparse, kept)
    assert [(len(part), part.host_s) for part in found] == [(1, 0.0), (2, HOST_S)]
    assert [part.host_s for part in rows_of_folder(tmp_path)] == [0.0]
    assert predict_rows(found[1], chip).seconds.min() == HOST_S


def test_rows_of_even_loads_share_blocks() -> None:
    load = RankLoad(tokens=256.0, rows=256.0, active=128.0, counts=(128.0,), loads=(2.0,))
    shared = load.in_blocks(128)
    assert (shared.rows, shared.active, shared.counts, shared.loads) == (256.0, 2.0, (2.0,), (128.0,))
    assert load.in_blocks(1) is load
