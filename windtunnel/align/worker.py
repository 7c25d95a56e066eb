"""One run, in a process of its own: ``python -m windtunnel.align.worker JOB.json RECORD``.

The script runs unmodified on a values-mode card. Beside the record stands ``.progress``, the number of steps.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from windtunnel.align.branches import Branches
from windtunnel.align.instruments import Instruments
from windtunnel.align.job import Job, Role, RunRecord
from windtunnel.align.noise import perturb
from windtunnel.capture.cuda_names import CudaNames
from windtunnel.capture.launch import Ending, Target, flush_output, run_target
from windtunnel.capture.precision import Precision, become
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip


def main() -> int:
    """Run the job and write its record."""
    job = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)
    out = Path(sys.argv[2])
    record = perform(job, out)
    partial = out.with_suffix(".partial")
    partial.write_bytes(msgspec.msgpack.encode(record))  # unlike JSON it keeps NaN and infinity
    partial.replace(out)
    return 0


def perform(job: Job, out: Path) -> RunRecord:
    """Run the script as the job says; what goes wrong in it is part of the record."""
    started = time.perf_counter()
    _settle(job)
    card = chip(job.numbers.chip, job.numbers.overrides, tuple(map(Path, job.numbers.folders)))
    last = max(job.locked_steps) + 1 if job.locked_steps else job.steps
    answers: tuple[bool, ...] | None = None
    failure: tuple[str, str, str] | None = None
    with Session(card, "values", stop_after=last or None) as session, CudaNames(session):
        session.recorder.paused = True
        become(session.state, card, Precision(job.numbers.precision), ideal=job.numbers.ideal)
        instruments = Instruments(session)
        instruments.install()
        branches = Branches(session, job, instruments, out.parent)
        instruments.on_begin = branches if job.role is Role.LOCKED else _replica(job, instruments)
        instruments.on_end = lambda step, loss: _tell(out, step)
        ending = run_target(Target(job.script, job.argv, job.is_module))
        flush_output()
        if branches.way:
            branches.fail(ending.detail or "the script ended before the step did")
        failure = _failure(ending)
        if failure is None and job.role is Role.FREE:
            session.steps.stop_after = None  # the evaluation calls the model, too
            try:
                answers = _evaluated(job, instruments)
            except WindtunnelError as error:
                failure = error.code, error.what, error.hint
    return RunRecord(
        tuple(instruments.losses),
        tuple(instruments.norms),
        answers,
        instruments.elements,
        time.perf_counter() - started,
        tuple(branches.rows),
        failure,
        tuple(sorted(instruments.notes)),
    )


def _settle(job: Job) -> None:
    """Everything that must be the same in every run."""
    # A first backward pass without a card starts PyTorch's engine without device threads, for good: then
    # the process may fork, and whatever the script draws or computes happens in one thread and one order.
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    torch.autograd.set_multithreading_enabled(False)
    torch.set_num_threads(1 if job.role is Role.LOCKED else job.threads)
    random.seed(job.seed)
    np.random.seed(job.seed % 2**32)
    torch.manual_seed(job.seed)


def _replica(job: Job, instruments: Instruments) -> Any:
    if job.perturbation < 0:
        return None

    def begin(step: int, module: torch.nn.Module) -> None:
        if step == 0:
            perturb(list(instruments.parameters().values()), job.perturbation)

    return begin


def _failure(ending: Ending) -> tuple[str, str, str] | None:
    if ending.error is not None:
        sys.stderr.write(ending.shown)
        return ending.error.code, ending.error.what, ending.error.hint
    if ending.exit_status != 0:
        return "E440", f"the script ended with {ending.detail}", "run it with `windtunnel run --values` first"
    return None


def _evaluated(job: Job, instruments: Instruments) -> tuple[bool, ...] | None:
    """The script's own evaluation of the trained model, item by item. Raises E720."""
    function = instruments.namespace.get(job.evaluate)
    model = instruments.model()
    if not callable(function) or model is None:
        return None
    try:
        answers = [bool(answer) for answer in function(model)]
    except Exception as error:  # anything a script can raise
        raise WindtunnelError(
            "E720",
            f"`{job.evaluate}` of the script failed: {type(error).__name__}: {error}",
            hint="it takes the trained model and returns one true or false for each item",
        ) from error
    return tuple(answers)


def _tell(out: Path, step: int) -> None:
    out.with_suffix(".progress").write_text(str(step + 1))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a script's leftovers (threads, pools) may not hold the process
