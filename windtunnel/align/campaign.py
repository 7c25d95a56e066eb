"""All runs of a comparison: which are needed, which are there already, and how they are carried out.

Every run is a process of its own (``worker.py``) and leaves one file named by its job. A comparison that was
interrupted goes on where it stopped, and an equal one costs nothing.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from windtunnel.align.curves import curve
from windtunnel.align.job import Job, Numbers, Role, RunRecord, decode_record, script_digest, versions
from windtunnel.errors import WindtunnelError

POLL_S = 0.1
LOCKED_AT = (0.0, 0.1, 0.25, 0.5)
"""Where on the reference's trajectory steps are taken again, as fractions of it."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Campaign:
    """A comparison as asked for.

    Attributes:
        steps: stop the script after so many steps; 0: when it ends.
        tolerance: deviation of the last steps' mean loss that is accepted though it is more than rounding does.
        parallel: runs at the same time.
        fresh: run everything again.
    """

    script: str
    argv: tuple[str, ...]
    is_module: bool
    reference: Numbers
    candidate: Numbers
    folder: Path
    steps: int = 0
    replicas: int = 3
    seed: int = 0
    threads: int = 1
    evaluate: str = "evaluate_items"
    tolerance: float = 0.005
    parallel: int = 1
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Runs:
    """The records of a comparison. ``reused``: how many were there already."""

    reference: RunRecord
    candidate: RunRecord
    replicas: tuple[RunRecord, ...]
    locked: RunRecord
    script_sha256: str
    reused: int


def carry_out(campaign: Campaign, report: Report) -> Runs:
    """Run what is missing. ``report`` is told what happens, in words.

    Raises:
        WindtunnelError: E712, the script has no loss; E713, its loss is not finite; E723, no folder to keep
            runs in; whatever ended a run.
    """
    workshop = _Workshop(campaign, report)
    plain = workshop.job(campaign.reference)
    (reference,) = workshop.all({"reference": plain})
    if not reference.losses:
        raise WindtunnelError(
            "E712",
            f"`{campaign.script}` has no losses to compare: no step called backward() on one number and "
            "then optimizer.step()",
            hint="align a script that trains with torch.optim; `windtunnel run --values` shows what it does",
            values={"steps": 0},
        )
    curve(reference.losses, "the reference")
    steps = len(reference.losses)
    locked = tuple(sorted({min(steps - 1, math.ceil(fraction * steps)) for fraction in LOCKED_AT}))
    jobs = {
        "locked steps": msgspec.structs.replace(
            plain, role=Role.LOCKED, steps=0, locked_steps=locked, candidate=campaign.candidate
        ),
        "candidate": workshop.job(campaign.candidate),
    }
    for index in range(campaign.replicas):
        jobs[f"replica {index + 1}"] = msgspec.structs.replace(plain, perturbation=index)
    records = workshop.all(jobs)
    digest = plain.script_sha256
    return Runs(reference, records[1], tuple(records[2:]), records[0], digest, workshop.reused)


@dataclass(slots=True)
class _Running:
    name: str
    job: Job
    process: subprocess.Popen[bytes]


class _Workshop:
    def __init__(self, campaign: Campaign, report: Report) -> None:
        self.reused = 0
        self._campaign, self._report = campaign, report
        self._folder = campaign.folder / "runs"
        self._script_digest = script_digest(campaign.script, campaign.is_module)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WindtunnelError(
                "E723",
                f"runs cannot be kept in `{self._folder}`: {error.strerror}",
                hint="name a folder that you may write to: --out DIR",
            ) from None

    def job(self, numbers: Numbers) -> Job:
        campaign = self._campaign
        return Job(
            script=campaign.script,
            argv=campaign.argv,
            is_module=campaign.is_module,
            role=Role.FREE,
            numbers=numbers,
            seed=campaign.seed,
            threads=campaign.threads,
            steps=campaign.steps,
            evaluate=campaign.evaluate,
            script_sha256=self._script_digest,
            versions=versions(),
        )

    def all(self, jobs: dict[str, Job]) -> list[RunRecord]:
        """The records of jobs, by what each is called, in order."""
        found: dict[str, RunRecord] = {}
        waiting = []
        for name, job in jobs.items():
            kept = None if self._campaign.fresh else decode_record(self._path(job))
            if kept is not None and kept.failure is None:
                found[name] = kept
                self.reused += 1
            else:
                waiting.append((name, job))
        running: list[_Running] = []
        try:
            while waiting or running:
                while waiting and len(running) < self._campaign.parallel:
                    running.append(self._start(*waiting.pop(0)))
                time.sleep(POLL_S)
                self._tell(running, len(found), len(jobs))
                for done in [one for one in running if one.process.poll() is not None]:
                    running.remove(done)
                    found[done.name] = self._finished(done)
        finally:
            for one in running:
                one.process.kill()
                one.process.wait()
        return [found[name] for name in jobs]

    def _path(self, job: Job) -> Path:
        return self._folder / f"{job.key()}.run"

    def _start(self, name: str, job: Job) -> _Running:
        path = self._path(job)
        path.unlink(missing_ok=True)
        path.with_suffix(".progress").unlink(missing_ok=True)
        path.with_suffix(".json").write_bytes(msgspec.json.encode(job))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(job.threads),
            "PYTHONHASHSEED": str(job.seed % 2**32),
        }
        command = [sys.executable, "-m", "windtunnel.align.worker"]
        with path.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(path.with_suffix(".json")), str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        return _Running(name, job, process)

    def _finished(self, done: _Running) -> RunRecord:
        path = self._path(done.job)
        log = path.with_suffix(".log")
        record = decode_record(path)
        if record is None:
            raise WindtunnelError(
                "E724",
                f"the run `{done.name}` ended early with status {done.process.returncode}",
                hint=f"its output is in {log}",
            )
        if record.failure is not None:
            code, what, hint = record.failure
            numbers = done.job.numbers
            raise WindtunnelError(
                code,
                what,
                hint=hint,
                values={"run": done.name, "on": f"{numbers.chip}:{numbers.precision}", "output": str(log)},
            )
        return record

    def _tell(self, running: Sequence[_Running], done: int, of: int) -> None:
        parts = []
        for one in running:
            try:
                steps = self._path(one.job).with_suffix(".progress").read_text()
            except OSError:
                steps = "0"
            wanted = max(one.job.locked_steps, default=one.job.steps - 1) + 1
            parts.append(f"{one.name}: step {steps}" + (f" of {wanted}" if wanted else ""))
        self._report(f"{done} of {of} runs done; " + ", ".join(parts))
