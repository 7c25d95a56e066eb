"""One job, several simulators, one run: what they answer and how long they take.

    CALCULON=… SIMUMAX=… ASTRA_SIM=… python -m benchmarks.bench_peers [--cards 64]

Each variable is a checkout (ASTRA-sim with its analytical backend built); what is not given is skipped by name.
``PEERS_PYTHON``: a Python with what Calculon (psutil) and SimuMax (its requirements.txt) import; ``MEGATRON_PYTHON``:
one with this project and megatron-core. Processor seconds, in processes of their own, one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.peers.job import Answer, Job
from benchmarks.peers.process import run

SIDES = Path(__file__).parent / "peers"


def revision(checkout: Path) -> str:
    """The commit of a checkout, or of the file REVISION in an unpacked one."""
    told = checkout / "REVISION"
    if told.exists():
        return told.read_text().strip()
    command = ["git", "-C", str(checkout), "log", "-1", "--format=%h (%cs)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "revision unknown"


def in_process(name: str, told: str, command: list[str], job: Job, *rest: str) -> Answer:
    """What a command prints about a job in a file, as JSON on its last line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job.fields()))
        ran = run([*command, str(path), *rest])
    return Answer(name, told, peak_gb=ran.peak_gb, **json.loads(ran.stdout.splitlines()[-1]))


def in_python(name: str, script: str, job: Job, variable: str) -> Answer:
    """The answer of one of the scripts in ``peers`` under the peers' Python."""
    checkout = given(variable)
    python = os.environ.get("PEERS_PYTHON", sys.executable)
    command = [python, "-W", "ignore", str(SIDES / script)]
    return in_process(name, revision(checkout), command, job, str(checkout))


def calculon(job: Job) -> Answer:
    """Calculon's answer."""
    return in_python("Calculon", "calculon_side.py", job, "CALCULON")


def simumax(job: Job) -> Answer:
    """SimuMax's answer."""
    return in_python("SimuMax", "simumax_side.py", job, "SIMUMAX")


def astra(job: Job) -> Answer:
    """ASTRA-sim's answer for one replica: a trace for every rank has its size and its time."""
    from benchmarks.peers import astra as side

    checkout = given("ASTRA_SIM")
    if not (checkout / side.BINARY).exists():
        raise LookupError(f"ASTRA_SIM has no {side.BINARY}: build its analytical backend")
    replica = replace(job, cards=job.tensor * job.pipeline, global_batch=job.micro_batches)
    return side.ask(replica, checkout, revision(checkout), limit_s=1500)


def recipe(job: Job) -> Answer:
    """Our own from a recipe, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.peers.ours"]
    return in_process("Windtunnel, recipe", version("windtunnel"), command, job)


def recorded(job: Job) -> Answer:
    """Our own from recorded code."""
    from benchmarks.peers.ours import ask_recorded

    python = os.environ.get("MEGATRON_PYTHON", "")
    if not python:
        raise LookupError("MEGATRON_PYTHON is not given: a Python with this project and megatron-core")
    return ask_recorded(job, version("windtunnel"), python, job.model)


def given(name: str) -> Path:
    """The checkout that a variable names."""
    if not os.environ.get(name):
        raise LookupError(f"{name} is not given: a checkout of it")
    return Path(os.environ[name]).resolve()


SIMULATORS: tuple[Callable[[Job], Answer], ...] = (calculon, simumax, astra, recipe, recorded)


def main() -> int:
    """Print what each said; the exit status is 1 when one that was given failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cards", type=int, default=1024)
    job = Job(cards=(cards := parser.parse_args().cards), global_batch=cards)
    table = Table(
        "simulator", "revision", "step", "80 % interval", "start", "prepare", "answer", "peak memory",
        title=f"{job.model} on {job.cards:,} {job.chip}: TP {job.tensor}, PP {job.pipeline}, DP {job.data}, "
        f"{job.micro_batches} micro-batches of {job.sequence:,} tokens, layers recomputed",
    )  # fmt: skip
    failed, words = 0, []
    for ask in SIMULATORS:
        try:
            answer = ask(job)
        except LookupError as missing:
            words.append(f"{ask.__name__}: skipped: {missing}")
            continue
        except RuntimeError as error:
            failed += 1
            words.append(f"{ask.__name__}: failed: {error}")
            continue
        interval = f"{answer.low_s:.1f} – {answer.high_s:.1f} s" if answer.high_s else ""
        table.add_row(
            answer.name, answer.version, f"{answer.step_s:.2f} s", interval, f"{answer.start_s:.2f} s",
            f"{answer.prepare_s:.1f} s", f"{answer.answer_s:.3f} s", f"{answer.peak_gb:.2f} GB",
        )  # fmt: skip
        if answer.note:
            words.append(f"{answer.name}: {answer.note}")
    console = Console(width=140)
    console.print(table)
    for line in words:
        console.print(line, style="dim", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
