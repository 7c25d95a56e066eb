"""`windtunnel calibrate`: what it refuses, and points left out one by one."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.cost.fit_files import load
from windtunnel.errors import WindtunnelError
from windtunnel.validation.calibrate.command import calibrate_kernels
from windtunnel.validation.calibrate.hidden_chip import HiddenGroup, hide_chip
from windtunnel.validation.calibrate.leave_one_out import leave_one_out, medians


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as refusal:
        list(calibrate_kernels(tmp_path))
    assert refusal.value.code == "E953"


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as refusal:
        list(calibrate_kernels(tmp_path, ["gem"]))
    assert refusal.value.code == "E954"
    assert "gemm" in refusal.value.hint


def test_rows_of_cards_that_nobody_knows_are_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = "gpu_system,library,kernel_source,dtype,m,n,k,latency_seconds\ncpu,torch,torch,bf16,16,1024,1024,3e-4\n"
    (tmp_path / "kernel_aic_gemm.csv").write_text(table, encoding="utf-8")
    before = files("windtunnel.cost").joinpath("parameters/gemm.json").read_bytes()
    assert main(["calibrate", "--data", str(tmp_path), "--family", "gemm"]) == 2
    assert "E956" in capsys.readouterr().err
    assert files("windtunnel.cost").joinpath("parameters/gemm.json").read_bytes() == before


POINTS = """device,group,metric,shape,value,unit,source
mthreads S5000,gemm,fp16 torch mm,1024^3,0.02,ms,x
mthreads S5000,gemm,fp16 torch mm,4096^3,0.4,ms,x
mthreads S5000,gemm,fp16 torch addmm,4096^3,0.5,ms,x
mthreads S5000,gemm,fp16 torch mm,8192^3,{large},ms,x
mthreads S5000 60MP,gemm,fp8 e4m3 torch _scaled_mm -> bf16,16384^3,899.4,TFLOP/s,x
mthreads S5000 8x,mccl,allreduce busbw,1GiB,234.28,GB/s,x
mthreads S5000 8x,mccl,allreduce busbw,256MiB,211.86,GB/s,x
mthreads S5000 8x,p2p,unidirectional pair,256MiB,35.7,GB/s,x
"""


def test_a_point_left_out_has_no_part_in_its_prediction(tmp_path: Path) -> None:
    def found(large: float) -> dict[tuple[str, float], float]:
        text = POINTS.format(large=large)
        (tmp_path / "s5000_measured.csv").write_text(text, encoding="utf-8")
        points = list(leave_one_out(tmp_path, "mtt-s5000"))
        assert len(points) == 8
        return {(point.shape, point.measured_s): point.predicted_s for point in points}

    usual, slower = found(3.4), found(34.0)
    shape = "batch=1 k=8192 m=8192 n=8192"
    assert slower[shape, 34e-3] == usual[shape, 3.4e-3]
    small = "batch=1 k=1024 m=1024 n=1024"
    assert slower[small, 20e-6] != usual[small, 20e-6]


def test_leave_one_out_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s5000_measured.csv").write_text(POINTS.format(large=3.4), encoding="utf-8")
    words = ["calibrate", "--data", str(tmp_path), "--leave-one-out", "mtt-s5000"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert printed.count("4096 n=4096") == 2
    assert "all " in printed
    assert main([*words[:-1], "h20"]) == 2


def test_medians_of_points_left_out(tmp_path: Path) -> None:
    (tmp_path / "s5000_measured.csv").write_text(POINTS.format(large=3.4), encoding="utf-8")
    points = list(leave_one_out(tmp_path, "mtt-s5000", ["gemm"]))
    assert set(medians(points)) == {"gemm", "all"}
    assert medians(points)["all"][0] == 5


def test_a_hidden_chip_is_predicted_from_the_others_alone(tmp_path: Path) -> None:
    def found(slower: float) -> list[HiddenGroup]:
        lines = ["gpu_system,library,kernel_source,attn_dtype,kv_cache_dtype,batch_size,isl,num_heads,"
                 "num_key_value_heads,head_dim,step,window_size,latency_seconds"]  # fmt: skip
        for gpu, factor in (("h100_sxm", 1.0), ("a100_sxm", 3.0 * slower)):
            for batch in (1, 2, 4, 8):
                for length in (128, 512, 1024, 2048, 4096, 8192):
                    time = factor * (1e-5 + 2.0 * batch * 8 * length**2 * 256 / 5e14)
                    lines.append(
                        f"{gpu},vllm,vllm_flash_attn,bfloat16,bfloat16,{batch},{length},8,8,128,0,0,{time}"
                    )
        (tmp_path / "kernel_aic_context_attention.csv").write_text("\n".join(lines), encoding="utf-8")
        return hide_chip(tmp_path, "a100-80g", ["attention"])

    (usual,), (other,) = found(1.0), found(2.0)
    assert usual.score.rows == 24
    assert usual.library == "fa2@vllm"
    # the chip's rows are only compared with: twice the time, half the ratio
    assert 1.0 + other.score.bias == pytest.approx((1.0 + usual.score.bias) / 2.0)
    assert load("attention") is load("attention")
    assert any(fit.chip == "a100-80g" for fit in load("attention"))  # the package's own again


def test_a_chip_without_rows_cannot_be_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s5000_measured.csv").write_text(POINTS.format(large=3.4), encoding="utf-8")
    assert main(["calibrate", "--data", str(tmp_path), "--hide", "h100-sxm"]) == 2
    assert "E953" in capsys.readouterr().err
