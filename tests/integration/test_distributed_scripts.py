"""Unmodified distributed scripts through `windtunnel run --on CHIP:CARDS`, as a person would start them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLE = str(Path(__file__).parents[2] / "examples" / "train_megatron.py")


def windtunnel(folder: Path, *arguments: str, status: int = 0, timeout_s: float = 240.0) -> dict[str, Any]:
    """The JSON answer of `windtunnel run`, which must end with ``status``."""
    done = subprocess.run(
        [sys.executable, "-m", "windtunnel", "run", "--json", "--out", "out.wt", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=timeout_s,
    )
    assert done.returncode == status, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return {**answer, "stderr": done.stderr}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'windtunnel[frameworks]'")


def collectives(answer: dict[str, Any]) -> dict[tuple[str, int], int]:
    return {(row["collective"], row["ranks"]): row["count"] for row in answer["communication"]}


def script(name: str) -> str:
    return str(SCRIPTS / name)


def test_ddp_counts_every_rank_s_batch(tmp_path: Path) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:16", "--steps", "2", script("ddp.py"))
    assert answer["cards"] == 16
    assert answer["tokens_per_step"] == 16 * 8 * 128
    assert all(ranks == 16 for _, ranks in collectives(answer))
    # the recording is priced again on another cluster of that size, without running the script
    again = windtunnel_again(tmp_path, "h100-sxm:16")
    assert again["cards"] == 16
    assert again["step_time_s"]["value"] != answer["step_time_s"]["value"]


def windtunnel_again(folder: Path, on: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "windtunnel", "run", "--json", "--on", on, "out.wt"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_recording_of_another_size_is_refused(tmp_path: Path) -> None:
    windtunnel(tmp_path, "--on", "mtt-s5000:2", "--steps", "1", script("ddp.py"))
    assert windtunnel_again(tmp_path, "mtt-s5000:64")["error"]["code"] == "E238"
    assert windtunnel_again(tmp_path, "h100-sxm")["cards"] == 2


@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2", "hsdp", "tp", "sp"])
def test_sharding(tmp_path: Path, kind: str) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:16", script("sharded.py"), kind)
    found = collectives(answer)
    ranks = {"fsdp1": 16, "fsdp2": 16, "hsdp": 8, "tp": 4, "sp": 4}[kind]
    assert found["all_gather", ranks] >= 4
    assert found["reduce_scatter", ranks] >= 4
    assert ("all_reduce", 2) in found or kind != "hsdp"
    sharing = 4 if kind in ("tp", "sp") else 1  # ranks of a tensor-parallel group see the same batch
    assert answer["tokens_per_step"] == 16 // sharing * 4 * 256


@pytest.mark.slow
@pytest.mark.parametrize("local", ["1", "9"])
@pytest.mark.parametrize("kind", ["fsdp1", "fsdp2"])
def test_ranks_with_another_card_number(tmp_path: Path, kind: str, local: str) -> None:
    arguments = ("--on", "h100-sxm:16", "--ranks", local, script("sharded.py"), kind)
    assert windtunnel(tmp_path, *arguments)["recorded"]["collectives"] > 8


@pytest.mark.slow
@pytest.mark.parametrize("rotate", ["allgather", "alltoall"])
def test_context_parallel(tmp_path: Path, rotate: str) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:8", script("context_parallel.py"), rotate)
    assert answer["recorded"]["collectives"] >= 4


@pytest.mark.parametrize("schedule", ["1F1B", "Interleaved1F1B", "ZBVZeroBubble"])
def test_pipeline_stages_are_found(tmp_path: Path, schedule: str) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:16", script("pipeline.py"), "4", schedule)
    assert [row["rank"] for row in answer["ranks"]] == [0, 4, 8, 12]
    assert [row["count"] for row in answer["ranks"]] == [4, 4, 4, 4]
    assert answer["tokens_per_step"] == 4 * 16 * 128  # a batch for every data-parallel rank, not every stage
    assert answer["bubble_s"] > 0
    assert len(list(tmp_path.glob("out*.wt"))) == 4


def test_one_step_of_a_pipeline_is_enough(tmp_path: Path) -> None:
    # a later stage receives its input before its first forward: that belongs to the first step
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:4", "--steps", "1", script("pipeline.py"), "4", "1F1B")
    assert len(answer["ranks"]) == 4
    assert collectives(answer)["recv", 2] == collectives(answer)["send", 2]


@pytest.mark.slow
def test_zero_bubble_has_a_smaller_bubble(tmp_path: Path) -> None:
    shares = {}
    for schedule in ("1F1B", "ZBVZeroBubble"):
        answer = windtunnel(tmp_path, "--on", "mtt-s5000:4", script("pipeline.py"), "4", schedule)
        shares[schedule] = answer["bubble_s"] / answer["step_time_s"]["value"]
    # one forward, one backward: (stages - 1) / (microbatches + stages - 1) = 3 / 11
    assert shares["1F1B"] == pytest.approx(3 / 11, abs=0.08)
    assert shares["ZBVZeroBubble"] < shares["1F1B"]


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "bubble"), [("1F1B", 3 / 11), ("DualPipeV", 6 / 54)])
def test_bubbles_are_those_of_the_formulas(tmp_path: Path, schedule: str, bubble: float) -> None:
    """4 cards, 8 micro-batches, kernels long enough to count: 3 (F + B) of 11, and (4 - 1) (F + 2 B - 3 W) of a
    step of 8 x 2 (F + B), in which F, and B's two halves, take the same time."""
    run = ("--steps", "1", "--on", "mtt-s5000:4", script("pipeline.py"), "4", schedule, "4096")
    answer = windtunnel(tmp_path, *run, timeout_s=900)
    idle = [(row["bubble_s"] + row["exposed_comm_s"]) / row["step_time_s"] for row in answer["ranks"]]
    assert sum(idle) / len(idle) == pytest.approx(bubble, abs=0.05)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_real_ranks_lose_nothing(tmp_path: Path, kind: str) -> None:
    def losses(on: str) -> list[str]:
        told = windtunnel(tmp_path, "--values", "--on", on, script("same_loss.py"), kind)["stderr"]
        return [line for line in told.splitlines() if line.startswith("loss ")]

    alone, together = losses("mtt-s5000"), losses("mtt-s5000:2")
    assert len(alone) == 4
    numbers = [[float(line.split()[1]) for line in lines] for lines in (alone, together)]
    assert numbers[1] == pytest.approx(numbers[0], rel=2e-5)
    assert numbers[0][3] < numbers[0][0] - 0.5


def heard(folder: Path) -> dict[int, Any]:
    return {int(path.stem[5:]): json.loads(path.read_text()) for path in folder.glob("said-*.json")}


@pytest.mark.parametrize("mode", [("--ranks", "all"), ("--values",)])
def test_ranks_that_are_all_recorded_meet(tmp_path: Path, mode: tuple[str, ...]) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:3", *mode, script("meeting.py"), timeout_s=100)
    assert [row["rank"] for row in answer["ranks"]] == [0, 1, 2]
    assert heard(tmp_path) == {r: [17, [0, 1, 4], 6, 7, 2.0, [0, 1, 2]] for r in range(3)}


def test_of_ranks_that_are_not_recorded_one_s_own_values_stand(tmp_path: Path) -> None:
    windtunnel(tmp_path, "--on", "mtt-s5000:3", script("meeting.py"), timeout_s=100)
    assert heard(tmp_path) == {0: [17, [0, 0, 0], 3, 7, 0.0, [0, 0, 0]]}


@pytest.mark.slow
def test_scaling_table(tmp_path: Path) -> None:
    arguments = ("--on", "mtt-s5000", "--scale", "2,4,...,8", script("sharded.py"), "fsdp2")
    points = windtunnel(tmp_path, *arguments)["scaling"]
    assert [point["cards"] for point in points] == [2, 4, 8]
    assert points[0]["efficiency"] == 1.0
    assert all(0 < point["efficiency"] < 1.5 for point in points)


MEGATRON = [
    ("tp2", [0]),
    ("tp2 pp4", [0, 4, 8, 12]),
    ("tp2 pp2 vpp2", [0, 8]),
    ("tp2 pp2 full", [0, 8]),
    ("tp2 ep4", [0]),
]
MEGATRON_OPTIONS = {
    "tp": "--sequence-parallel --tensor-model-parallel-size",
    "pp": "--pipeline-model-parallel-size",
    "vpp": "--num-virtual-stages-per-pipeline-rank",
    "ep": "--num-experts 8 --expert-model-parallel-size",
}


def megatron_options(layout: str) -> list[str]:
    words = []
    for word in layout.split():
        if word == "full":
            words += (
                "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1".split()
            )
        else:
            words += [*MEGATRON_OPTIONS[word[:-1]].split(), word[-1]]
    return [*words, "--use-distributed-optimizer"]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "ranks"), MEGATRON)
def test_megatron_core(tmp_path: Path, layout: str, ranks: list[int]) -> None:
    needs("megatron")
    batch = ("--seq-length", "256", "--global-batch-size", "32")
    found = windtunnel(
        tmp_path, "--on", "mtt-s5000:16", EXAMPLE, *megatron_options(layout), *batch, "--train-iters", "2"
    )
    assert [row["rank"] for row in found["ranks"]] == ranks
    assert found["tokens_per_step"] == 32 * 256
    kinds = {kind for kind, _ in collectives(found)}
    assert {"all_gather", "reduce_scatter"} <= kinds
    assert ("all_to_all" in kinds) == ("ep" in layout)
    assert ("send" in kinds) == ("pp" in layout)


@pytest.mark.slow
def test_transformers_trainer(tmp_path: Path) -> None:
    needs("accelerate")
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:8", script("accelerate_trainer.py"))
    assert answer["tokens_per_step"] == 8 * 4 * 128
    assert collectives(answer)["all_reduce", 8] >= 1  # DDP's buckets
    assert any("find_unused_parameters" in notice["what"] for notice in answer["notices"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [("ddp", {("all_reduce", 8)}), ("fsdp2", {("all_gather", 8), ("reduce_scatter", 8)})],
)
def test_accelerate_loop(tmp_path: Path, kind: str, expected: set[tuple[str, int]]) -> None:
    needs("accelerate")
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:8", script("accelerate_loop.py"), kind)
    assert answer["tokens_per_step"] == 8 * 4 * 128
    assert expected <= set(collectives(answer))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["1", "2", "3"])
def test_deepspeed_zero(tmp_path: Path, stage: str) -> None:
    needs("deepspeed")
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:8", script("deepspeed_zero.py"), stage)
    assert answer["tokens_per_step"] == 8 * 4 * 128
    assert collectives(answer)["all_gather", 8] >= 1


def torchtitan(
    folder: Path, config: str, on: str, *options: str, before: tuple[str, ...] = (), status: int = 0
) -> dict[str, Any]:
    """One of the configurations of ``titan_configs.py`` by TorchTitan's own trainer; ``before``: our options."""
    for package in ("torchtitan", "triton"):
        needs(package)
    subprocess.run([sys.executable, script("torchtitan_assets.py"), str(folder)], check=True)
    (folder / "titan_configs.py").write_text((SCRIPTS / "titan_configs.py").read_text())
    chosen = ("--module", "titan_configs", "--config", config)
    run = ("--on", on, *before, "-m", "torchtitan.train", *chosen, *options)
    return windtunnel(folder, *run, status=status, timeout_s=600.0)


def degrees(**named: int | str) -> list[str]:
    return [word for name, value in named.items() for word in (f"--parallelism.{name}", str(value))]


def test_torchtitan_experts(tmp_path: Path) -> None:
    options = degrees(expert_parallel_degree=4)
    found = collectives(torchtitan(tmp_path, "deepseek_v3_debug", "mtt-s5000:8", *options))
    # five layers with experts: counts, tokens there and back; the way back once more for gradients
    assert found["all_to_all", 4] >= 5 * 5
    assert found["all_gather", 2] >= 5  # experts are shared out over the two ranks that hold the same ones
    assert found["reduce_scatter", 2] == 5


TITAN = [
    ("llama3_debug", {}, {("all_gather", 8), ("reduce_scatter", 8)}),
    ("llama3_flex", {"data_parallel_replicate_degree": 2}, {("all_gather", 4), ("all_reduce", 2)}),
    ("llama3_flex", {"tensor_parallel_degree": 2}, {("all_gather", 2), ("reduce_scatter", 2)}),
    ("llama3_flex", {"context_parallel_degree": 2}, {("all_gather", 2), ("reduce_scatter", 2)}),
    ("llama3_full_ac", {}, {("all_gather", 8)}),
    ("llama3_float8", {}, {("all_gather", 8)}),
    ("qwen3_debug", {}, {("all_gather", 8)}),
    ("qwen3_moe_debug", {"expert_parallel_degree": 4}, {("all_to_all", 4)}),
    (
        "deepseek_v3_debug",
        {"expert_parallel_degree": 4, "tensor_parallel_degree": 2},
        {("all_to_all", 4), ("all_gather", 2)},
    ),
    ("qwen3_5_debug", {}, {("all_gather", 8)}),
    ("qwen3_5_moe_debug", {"expert_parallel_degree": 2}, {("all_to_all", 2)}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("config", "layout", "expected"), TITAN)
def test_torchtitan(
    tmp_path: Path, config: str, layout: dict[str, int], expected: set[tuple[str, int]]
) -> None:
    if "qwen3_5" in config and importlib.util.find_spec("torchvision") is None:
        for module in ("transforms/v2/functional", "io"):  # it is imported, and nothing of it is used on text
            (tmp_path / "torchvision" / module).mkdir(parents=True)
    if config == "llama3_float8":
        needs("torchao")
    answer = torchtitan(tmp_path, config, "h100-sxm:8", *degrees(**layout))
    shared = layout.get("tensor_parallel_degree", 1) * layout.get("context_parallel_degree", 1)
    rows, length = {"qwen3_5_debug": (1, 512), "qwen3_5_moe_debug": (2, 512)}.get(config, (8, 2048))
    assert answer["tokens_per_step"] == 8 // shared * rows * length
    assert expected <= set(collectives(answer))
    assert answer["mfu"]["value"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "schedule"),
    [
        ("llama3_flex", "1F1B"),
        ("llama3_flex", "Interleaved1F1B"),
        ("llama3_keeps", "ZBVZeroBubble"),
        ("llama3_keeps", "DualPipeV"),
    ],
)
def test_torchtitan_pipelines(tmp_path: Path, config: str, schedule: str) -> None:
    layout = degrees(pipeline_parallel_degree=2, pipeline_parallel_schedule=schedule)
    answer = torchtitan(tmp_path, config, "h100-sxm:8", *layout)
    assert [row["rank"] for row in answer["ranks"]] == [0, 4]
    assert answer["tokens_per_step"] == 4 * 8 * 2048
    assert answer["bubble_s"] > 0
    assert collectives(answer)["send", 2] >= 8


@pytest.mark.slow
def test_torchtitan_in_three_dimensions(tmp_path: Path) -> None:
    layout = degrees(pipeline_parallel_degree=2, tensor_parallel_degree=2, pipeline_parallel_schedule="1F1B")
    answer = torchtitan(tmp_path, "llama3_flex", "mtt-s5000:16", *layout)
    assert [row["rank"] for row in answer["ranks"]] == [0, 8]
    found = collectives(answer)
    assert {("all_gather", 2), ("all_gather", 4), ("send", 2)} <= set(found)


def test_processes_that_the_script_spawns_are_recorded(tmp_path: Path) -> None:
    """The tutorial's way: ``mp.spawn`` of one process for each card; as many ranks as under ``torchrun``."""
    answer = windtunnel(tmp_path, "--on", "h100-sxm:4", script("ddp_spawn.py"))
    assert answer["cards"] == 4
    assert answer["step_kind"] == "train"
    assert collectives(answer)["all_reduce", 4] >= 1
    assert "spawn" in str(answer["notices"])


def test_processes_that_the_script_starts_one_by_one_are_recorded(tmp_path: Path) -> None:
    """Also on the host's tensors; the script's logger, which is no rank, is left alone."""
    answer = windtunnel(tmp_path, "--on", "h100-sxm:4", "--ranks", "all", script("ddp_processes.py"))
    assert [row["rank"] for row in answer["ranks"]] == [0, 1, 2, 3]
    assert answer["step_kind"] == "train"
    assert collectives(answer)["all_reduce", 4] >= 1
    assert "Process" in str(answer["notices"])
    assert "log: started" in answer["stderr"]
    assert "rank 0 of 4 is done" in answer["stderr"]


def test_starting_too_few_processes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "three.py"
    path.write_text((SCRIPTS / "ddp_processes.py").read_text().replace("range(size)", "range(size - 1)"))
    answer = windtunnel(tmp_path, "--on", "h100-sxm:4", "--ranks", "3", str(path), status=2)
    assert answer["error"]["code"] == "E243"


def test_spawning_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "three.py"
    path.write_text((SCRIPTS / "ddp_spawn.py").read_text().replace("nprocs=world_size", "nprocs=3"))
    answer = windtunnel(tmp_path, "--on", "h100-sxm:4", str(path), status=2)
    assert answer["error"]["code"] == "E243"
    assert "h100-sxm:3" in answer["error"]["hint"]


def test_a_distributed_script_on_one_card_is_told_to_name_more(tmp_path: Path) -> None:
    answer = windtunnel(tmp_path, "--on", "mtt-s5000", script("ddp.py"), status=2)
    assert "hint: the script is distributed: say on how many cards, as --on mtt-s5000:8" in answer["stderr"]


def test_a_line_of_torchrun_stays_as_it_is(tmp_path: Path) -> None:
    line = ("torchrun", "--nproc-per-node", "8", script("ddp.py"))
    answer = windtunnel(tmp_path, "--on", "mtt-s5000:8", *line)
    assert ("all_reduce", 8) in collectives(answer)


@pytest.mark.slow
def test_published_step_of_torchtitan(tmp_path: Path) -> None:
    """Llama-3.1 8B on 8 H100 of 500 W, December 2024: 5,762 tokens/s a card, 82.4 GiB."""
    (tmp_path / "titan_published.py").write_text((SCRIPTS / "titan_published.py").read_text())
    options = ("--module", "titan_published", "--config", "llama3_8b_2024")
    needs("torchtitan")
    subprocess.run([sys.executable, script("torchtitan_assets.py"), str(tmp_path)], check=True)
    (tmp_path / "titan_configs.py").write_text((SCRIPTS / "titan_configs.py").read_text())
    run = ("--steps", "2", "-m", "torchtitan.train", *options)
    answer = windtunnel(tmp_path, "--on", "h100-96g-500w:8", *run, timeout_s=900)
    assert answer["tokens_per_s_per_gpu"]["value"] == pytest.approx(5762, rel=0.12)
    used = answer["memory"]["total_bytes"] - answer["memory"]["headroom_bytes"]
    assert used / 2**30 == pytest.approx(82.4, rel=0.08)


@pytest.mark.slow
def test_published_rate_of_megatron(tmp_path: Path) -> None:
    """GPT 7.1B on 96 H100: 466 TFLOP/s with Transformer Engine; without it pointwise kernels cost more."""
    needs("megatron.core")
    layout = ("--tensor-model-parallel-size", "2", "--sequence-parallel", "--use-distributed-optimizer")
    layout += ("--overlap-grad-reduce", "--overlap-param-gather", "--seq-length", "4096")
    run = (EXAMPLE, "--model", "gpt-7b", *layout, "--global-batch-size", "192")
    answer = windtunnel(tmp_path, "--on", "h100-sxm:96", *run, timeout_s=900)
    assert 0.85 * 465.9 < answer["model_tflops_per_gpu"]["value"] < 465.9
