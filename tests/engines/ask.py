"""Asks the engines' own classes again and compares with the recorded answers: ``ask.py [--update] [NAME ...]``.

Each question is one process of the engines' environment: seeded cases in, what was decided out. What is kept of it in
``tests/golden/serving`` are facts (batches, times, orders), which the unit tests hold the native schedulers to.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.engines import (  # noqa: E402  (found by the line above)
    cases,
    placement_cases,
    sglang_cases,
    sglang_disagg_cases,
    sglang_scheduler_cases,
)

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "serving"


@dataclass(frozen=True)
class Question:
    """``oracle`` answers ``cases``; ``name`` is the golden file."""

    name: str
    engine: str
    oracle: str
    cases: Callable[[], list[Any]]


SGLANG = "sglang_scheduler_oracle.py"
QUESTIONS = (
    Question("vllm_scheduler", "vllm", "vllm_oracle.py", cases.cases),
    Question("vllm_run_ahead", "vllm", "vllm_oracle.py", cases.ahead_cases),
    Question("vllm_drafts", "vllm", "vllm_oracle.py", cases.draft_cases),
    Question("vllm_state_drafts", "vllm", "vllm_oracle.py", cases.state_draft_cases),
    Question("vllm_offload", "vllm", "vllm_oracle.py", cases.offload_cases),
    Question("expert_placement", "sglang", "placement_oracle.py", placement_cases.placements),
    Question("sglang_order", "sglang", "sglang_oracle.py", sglang_cases.queues),
    Question("sglang_scheduler", "sglang", SGLANG, sglang_scheduler_cases.cases),
    Question("sglang_overlap", "sglang", SGLANG, sglang_scheduler_cases.overlap_cases),
    Question("sglang_mixed_chunks", "sglang", SGLANG, sglang_scheduler_cases.mixed_cases),
    Question("sglang_drafts", "sglang", SGLANG, sglang_scheduler_cases.draft_cases),
    Question("sglang_state_drafts", "sglang", SGLANG, sglang_scheduler_cases.state_draft_cases),
    Question("sglang_unbuffered_states", "sglang", SGLANG, sglang_scheduler_cases.unbuffered_cases),
    Question("sglang_mixed_states", "sglang", SGLANG, sglang_scheduler_cases.state_mixed_cases),
    Question("sglang_host", "sglang", SGLANG, sglang_scheduler_cases.host_cases),
    Question("sglang_host_overlap", "sglang", SGLANG, sglang_scheduler_cases.host_overlap_cases),
    Question("sglang_host_drafts", "sglang", SGLANG, sglang_scheduler_cases.host_draft_cases),
    Question("sglang_disagg", "sglang", "sglang_disagg_oracle.py", sglang_disagg_cases.cases),
    Question("sglang_disagg_drafts", "sglang", "sglang_disagg_oracle.py", sglang_disagg_cases.draft_cases),
    Question("sglang_host_states", "sglang", SGLANG, sglang_scheduler_cases.host_state_cases),
    Question("sglang_policies", "sglang", SGLANG, sglang_scheduler_cases.policy_cases),
    Question("sglang_states", "sglang", SGLANG, sglang_scheduler_cases.state_cases),
)


def main() -> int:
    """Ask; exit status 1 when an answer moved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="golden files; default: all")
    parser.add_argument("--update", action="store_true", help="keep what is answered now")
    args = parser.parse_args()
    python = Path(os.environ.get("WINDTUNNEL_ENGINES", "/tmp/windtunnel-engines")) / "bin" / "python"
    moved = 0
    for question in QUESTIONS:
        if args.names and question.name not in args.names:
            continue
        version, text = _asked(question, python)
        golden = GOLDEN / f"{question.name}.json"
        same = golden.exists() and golden.read_text(encoding="utf-8") == text
        print(f"{question.engine} {version}: {question.name} {'unchanged' if same else 'moved'}", flush=True)
        if not same and golden.exists():
            print("  " + ", ".join(_moved(json.loads(golden.read_text(encoding="utf-8")), json.loads(text))))
        if args.update:
            golden.write_text(text, encoding="utf-8")
        moved += not same
    return 1 if moved and not args.update else 0


def _asked(question: Question, python: Path) -> tuple[str, str]:
    """The engine's version, and its answers as they are kept."""
    words = [str(python), "-c", f"import importlib.metadata as m; print(m.version('{question.engine}'))"]
    version = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run(
            [str(python), str(HERE / question.oracle)],
            input=json.dumps(question.cases()), stdout=subprocess.PIPE, stderr=log, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if done.returncode:
            log.seek(0)
            sys.exit(f"{question.oracle} failed:\n{log.read()[-3000:]}")
    answers = json.loads(done.stdout.strip().splitlines()[-1])  # engines print before they answer
    return version, recorded(question.engine, version, answers)


def recorded(engine: str, version: str, answers: list[Any]) -> str:
    """What is kept: one line a run, or the orders as they are."""
    if not isinstance(answers[0], dict):
        return json.dumps({engine: version, "orders": answers}, separators=(",", ":"))
    runs = []
    for run in answers:
        more = {name: value for name, value in run.items() if name not in ("name", "steps", "times")}
        runs.append({**cases.condensed(run["name"], run["steps"], run["times"]), **more})
    text = json.dumps({engine: version, "runs": runs}, separators=(",", ":"))
    return text.replace('{"name"', '\n{"name"') + "\n"


def _moved(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    if "orders" in new:
        pairs = enumerate(zip(old["orders"], new["orders"], strict=True))
        return [f"order {place}" for place, (before, after) in pairs if before != after] or ["version"]
    before = {run["name"]: run for run in old["runs"]}
    return [run["name"] for run in new["runs"] if before.get(run["name"]) != run] or ["version"]


if __name__ == "__main__":
    sys.exit(main())
