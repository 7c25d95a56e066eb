"""Makes the kept evidence again: runs of unmodified code, each as a command of its own, and the alignment.

What is not installed is left as it was recorded, and said. Scripts come from the source tree's ``examples`` and
``tests``, so this runs in a checkout.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel.claims.evidence import ALIGN, Run, runs, save_runs
from windtunnel.errors import WindtunnelError
from windtunnel.workloads.digits_vqa.evidence import RECORDED

ROOT = Path(__file__).parents[2]
LIMIT_S = 3600
ENGINES = "/tmp/windtunnel-engines"
"""Where ``tests/engines/run.sh`` puts vLLM unless WINDTUNNEL_ENGINES says otherwise."""
CLIENTS = "python -m pytest tests/engines/test_clients.py"
SERVE = "windtunnel serve qwen3.5-397b-a17b --on mtt-s5000:8 --precision fp8-block --tensor-parallel-size 8"


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
    *(
        Recipe(
            topic="architectures",
            package="transformers",
            title="transformers",
            what=f"{title}: 2,048 tokens read, one decoded, on one card",
            command=f"windtunnel run --on mtt-s5000 --oom continue examples/frontier_models.py {name}",
        )
        for name, title in (
            ("deepseek-v3", "DeepSeek-V3, 671 B"),
            ("glm-5", "GLM-5, 744 B, sparse attention"),
            ("qwen3-235b", "Qwen3-235B-A22B"),
            ("mixtral-8x22b", "Mixtral 8x22B"),
        )
    ),
    Recipe(
        topic="screens",
        package="windtunnel",
        title="windtunnel",
        what="20 sessions of an agent that is sent a screenshot at every turn, on 8 cards that serve "
        "Qwen3.5-397B in FP8",
        command=f"{SERVE} --gui-sessions 20 --rate 0.1",
    ),
    Recipe(
        topic="code-blocks",
        package="windtunnel",
        title="windtunnel",
        what="16 blocks of code one after another through the scheduler",
        command=f"{SERVE} --concurrency 1 --input-len 4000 --output-len 200 --requests 16",
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
    made: dict[str, Run] = {}
    for recipe in RECIPES:
        if recipe.topic in names:
            progress(f"{recipe.title}: {recipe.what}")
            if (found := _run(recipe)) is not None:
                made[recipe.command] = found
    if "stack" in names:
        progress(f"vLLM: {CLIENTS}")
        if (clients := _clients()) is not None:
            made[CLIENTS] = clients
    if made:
        save_runs(merged(runs(), made))


def merged(kept: Sequence[Run], made: dict[str, Run]) -> tuple[Run, ...]:
    """What is on record with what was made anew in its place; what could not be made again stays as it was."""
    known = {run.command for run in kept}
    return (
        *(made.get(run.command, run) for run in kept),
        *(run for command, run in made.items() if command not in known),
    )


def _clients() -> Run | None:
    """Real clients against the real engine, or None where ``tests/engines/run.sh`` has not made its environment."""
    engines = Path(os.environ.get("WINDTUNNEL_ENGINES", ENGINES))
    if not (engines / "bin" / "vllm").exists():
        return None
    ask = "import importlib.metadata as m; print(m.version('vllm'))"
    version = subprocess.run(
        [engines / "bin" / "python", "-c", ask], capture_output=True, text=True, check=False
    ).stdout.strip()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "engines" / "test_clients.py")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    passed = re.search(r"(\d+) passed", done.stdout)
    if done.returncode or passed is None:
        raise WindtunnelError(
            "E810",
            f"clients of vLLM {version} fail",
            values={"said": done.stdout.strip().splitlines()[-1:]},
            hint=CLIENTS,
        )
    return Run(
        topic="stack",
        stack=f"vLLM {version}",
        what="the engine itself as an out-of-tree platform, with the openai package, vllm bench serve, "
        "guidellm, AutoGen "
        "and CrewAI as clients",
        command=CLIENTS,
        outcome=f"{passed[1]} tests passed",
        date=datetime.date.today().isoformat(),
    )


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
    if "ttft_s" in answer:
        return (
            f"{answer['requests']} requests served: first token after {answer['ttft_s']['p50']:.2f} s (p50), "
            f"{answer['ttft_s']['p90']:.2f} s (p90), then {answer['tpot_s']['p50'] * 1e3:.1f} ms a token, "
            f"{answer['e2e_s']['p50']:.1f} s in all (p50); {answer['cache_hit_fraction']:.0%} of prompts "
            f"found in the cache"
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
