"""Makes the kept evidence again: runs of unmodified code, each as a command of its own, and the alignment.

What is not installed is left as it was recorded, and said. Scripts come from the source tree's ``examples`` and
``tests``, so this runs in a checkout.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.claims.evidence import Run, runs, save_runs
from windtunnel.errors import WindtunnelError
from windtunnel.workloads.digits_vqa.evidence import RECORDED

ROOT = Path(__file__).parents[2]
LIMIT_S = 3600
SERVE = "windtunnel serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8-block --tensor-parallel-size 8"
ALIGN = "windtunnel align digits-vqa --steps 60 --reference h100-sxm:bf16 --candidate mtt-s5000:fp8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One run to make: ``package`` is whose code it is; ``{}`` in ``what`` takes its version."""

    topic: str
    package: str
    title: str
    what: str
    command: str


RECIPES = (
    Recipe(
        topic="stack",
        package="torch",
        title="PyTorch",
        what="GPT training loop written for `cuda`",
        command="windtunnel run --on mtt-s5000 examples/train_gpt.py --steps 2",
    ),
    Recipe(
        topic="stack",
        package="megatron-core",
        title="Megatron-core",
        what="GPTModel, tensor parallel 2, pipeline 2, distributed optimizer",
        command="windtunnel run --on mtt-s5000:16 examples/train_megatron.py --tensor-model-parallel-size 2 "
        "--sequence-parallel --pipeline-model-parallel-size 2 --use-distributed-optimizer --seq-length 256 "
        "--global-batch-size 32 --train-iters 2",
    ),
    Recipe(
        topic="migration",
        package="transformers",
        title="transformers Trainer",
        what="a Trainer script that names `cuda` only",
        command="windtunnel run --on mtt-s5000 tests/integration/scripts/hf_trainer.py",
    ),
    Recipe(
        topic="migration",
        package="torch",
        title="PyTorch DDP",
        what="a torchrun script over `nccl`",
        command="windtunnel run --on mtt-s5000:8 tests/integration/scripts/ddp.py",
    ),
    Recipe(
        topic="migration",
        package="accelerate",
        title="accelerate",
        what="a training loop under mixed precision",
        command="windtunnel run --on mtt-s5000 tests/integration/scripts/hf_accelerate.py",
    ),
    Recipe(
        topic="qwen3.5",
        package="transformers",
        title="transformers",
        what="all 397 B parameters with the vision tower: a picture and 2,048 tokens read, one decoded, on one card",
        command="windtunnel run --on mtt-s5000 --oom continue examples/qwen3_5_397b.py",
    ),
    *(
        Recipe(
            topic="agents",
            package="windtunnel",
            title=f"{team}, replayed by windtunnel",
            what="teams on 8 cards that serve Qwen3.5-397B in FP8",
            command=f"{SERVE} --agents {team}×8",
        )
        for team in ("autogen:swarm", "autogen:selector", "crewai:sequential", "crewai:hierarchical")
    ),
)


def rerun(names: Sequence[str], progress: Callable[[str], None]) -> None:
    """Make the evidence of the claims called ``names`` again.

    Raises:
        WindtunnelError: E810, a run that was recorded as working fails now.
    """
    if "robobrain" in names:
        progress(ALIGN)
        _align()
    wanted = [recipe for recipe in RECIPES if recipe.topic in names]
    kept = [
        run for run in runs() if run.topic not in names or not any(run.command == r.command for r in wanted)
    ]
    made = []
    for recipe in wanted:
        progress(f"{recipe.title}: {recipe.what}")
        if (found := _run(recipe)) is not None:
            made.append(found)
    if made:
        save_runs((*kept, *made))


def _run(recipe: Recipe) -> Run | None:
    """The run, or None where the package is not installed."""
    try:
        version = importlib.metadata.version(recipe.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    words = shlex.split(recipe.command)
    place = 2 if words[1] == "run" else 1
    done = _call([*words[1:place], "--json", *words[place:]])
    if done.returncode not in (0, 1):
        raise WindtunnelError(
            "E810",
            f"{recipe.title} {version} fails: {recipe.what}",
            values={"command": recipe.command, "said": done.stderr.strip().splitlines()[-1:] or "nothing"},
            hint=recipe.command,
        )
    return Run(
        topic=recipe.topic,
        stack=f"{recipe.title} {version}",
        what=recipe.what,
        command=recipe.command,
        outcome=_outcome(done.stdout),
        date=datetime.date.today().isoformat(),
    )


def _outcome(text: str) -> str:
    answer = json.loads(text)
    if "sustained_teams" in answer:
        most, cost = answer["sustained_teams"], answer["cost_per_task"]
        return (
            f"{most['value']:,.0f} teams at once ({most['low']:,.0f} – {most['high']:,.0f}) keep their latency; "
            f"at {answer['teams']} teams a task of {answer['calls_per_task']} calls takes "
            f"{answer['task_s']['p50']:,.1f} s (p50), first tokens {answer['ttft_s']['p90']:.2f} s (p90), "
            f"and costs {cost['value']:.3f} at an assumed "
            f"{answer['card_hour_price']:g} a card hour; {answer['cached_fraction']:.0%} of prompts found in the cache"
        )
    seconds = answer["step_time_s"]["value"]
    return f"runs; {answer['step_kind']} predicted at {seconds * 1e3:,.1f} ms"


def _align() -> None:
    words = shlex.split(ALIGN)
    with tempfile.TemporaryDirectory() as kept:
        done = _call([*words[1:], "--out", kept])
        made = Path(kept) / "align.json"
        if done.returncode not in (0, 1) or not made.exists():
            raise WindtunnelError("E810", "the comparison fails", values={"command": ALIGN}, hint=ALIGN)
        shutil.copy(made, RECORDED)


def _call(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run in a folder of its own: what scripts save does not land in the checkout."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("examples", "tests"):
            (Path(scratch) / name).symlink_to(ROOT / name)
        return subprocess.run(
            [sys.executable, "-m", "windtunnel", *words],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
