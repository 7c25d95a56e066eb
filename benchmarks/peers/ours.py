"""The job given to Windtunnel: as a recipe, and as Megatron-core's own code recorded and replayed."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.job import Answer, Job
from benchmarks.peers.process import Ran, run
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.recipes.layout import Layout, Precision, Recompute, Sharding
from windtunnel.recipes.training import TrainingRecipe, training_step
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_megatron.py"


def recipe_of(job: Job) -> TrainingRecipe:
    """The job as a recipe."""
    layout = Layout(
        cards=job.cards,
        tensor=job.tensor,
        pipeline=job.pipeline,
        global_batch=job.global_batch,
        sequence=job.sequence,
        precision=Precision.FP16,
        recompute=Recompute.FULL,
        sharding=Sharding.ZERO1,
        overlap_grad_reduce=False,
        overlap_param_gather=False,
    )
    return training_step(shipped_model(job.model), layout)


def ask_recipe(job: Job, version: str) -> Answer:
    """Recipe and pipeline replay, nothing kept from before."""
    started = time.process_time()
    cluster = cluster_of(job.chip, job.cards)
    step = TrainingPredictor(cluster.chip, NetworkModel(cluster)).predict(recipe_of(job)).step_time_s
    return Answer(
        "Windtunnel, recipe",
        version,
        step_s=step.value,
        low_s=step.low,
        high_s=step.high,
        start_s=started,
        answer_s=time.process_time() - started,
    )


def ask_recorded(job: Job, version: str, python: str, model: str) -> Answer:
    """Megatron-core recorded stage by stage, then the saved ranks priced and replayed in a process of their own."""
    with tempfile.TemporaryDirectory() as folder:
        layout = (
            f"--model {model} --seq-length {job.sequence} --global-batch-size {job.global_batch} "
            f"--tensor-model-parallel-size {job.tensor} --pipeline-model-parallel-size {job.pipeline} "
            "--sequence-parallel --use-distributed-optimizer --train-iters 1 "
            "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
        )
        on = f"{job.chip}:{job.cards}"
        _, recorded = _run(
            python, folder, "--on", on, "--out", "job.wt", "--steps", "1", str(EXAMPLE), *layout.split()
        )
        answer, replayed = _run(python, folder, "--on", on, "job.wt")
    step = answer["step_time_s"]
    return Answer(
        "Windtunnel, Megatron-core recorded",
        version,
        step_s=step["value"],
        low_s=step["low"],
        high_s=step["high"],
        start_s=0.0,
        prepare_s=recorded.processor_s,
        answer_s=replayed.processor_s,
        peak_gb=max(recorded.peak_gb, replayed.peak_gb),
        note=f"{len(answer['ranks'])} ranks recorded once; the answer is the replay of the files, start included",
    )


def _run(python: str, folder: str, *arguments: str) -> tuple[dict[str, Any], Ran]:
    """The answer of `windtunnel run` and what it took."""
    ran = run([python, "-W", "ignore", "-m", "windtunnel", "run", "--json", *arguments], Path(folder))
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer, ran


if __name__ == "__main__":
    given = Job(**json.loads(Path(sys.argv[1]).read_text()))
    told = ask_recipe(given, "")
    print(
        json.dumps(
            {name: getattr(told, name) for name in ("step_s", "low_s", "high_s", "start_s", "answer_s")}
        )
    )
