"""Locked steps: the same step of an unmodified script, taken again in other ways by copies of the process.

Just before a step the process forks: weights, batch, random numbers and everything else are the same in the
copy, which changes its arithmetic (or has a defect injected), runs the script's own code to the end of the
backward pass, leaves loss, gradients and what every line of the forward pass computed, and is gone. PyTorch
allows that as long as the process has no autograd threads (``worker.py`` sees to it).
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from windtunnel.align.controls import Defect, injected, middle_matrix, suite
from windtunnel.align.instruments import Instruments
from windtunnel.align.job import BranchRow, Job, Numbers, PlaceRow, TensorRow
from windtunnel.align.locked import yardstick_size
from windtunnel.align.metrics import compare, compare_all
from windtunnel.align.noise import perturb
from windtunnel.capture.observe import Observer, Seen
from windtunnel.capture.precision import Precision, become, operand_for
from windtunnel.capture.session import Session
from windtunnel.errors import WindtunnelError
from windtunnel.numerics.profiles import profile_of
from windtunnel.specs.catalogue import chip

REFERENCE, RERUN, GOLDEN, CANDIDATE, YARD = "reference", "rerun", "golden", "candidate", "yardstick"
YARDSTICKS = 2


@dataclass(frozen=True, slots=True)
class Taken:
    """A step as one copy took it."""

    loss: float
    gradients: dict[str, torch.Tensor]
    seen: list[Seen]
    has_attention: bool


class Branches:
    """Takes the locked steps of a run in every way and keeps the comparisons.

    Attributes:
        rows: the comparisons so far.
        way: in a copy, what it is for; empty in the run itself.
    """

    def __init__(self, session: Session, job: Job, instruments: Instruments, folder: Path) -> None:
        self.rows: list[BranchRow] = []
        self.way = ""
        self._session, self._job, self._instruments = session, job, instruments
        self._file = folder / f"step-{os.getpid()}.pt"
        self._injected = ExitStack()
        self._observer: Observer | None = None

    def __call__(self, step: int, module: torch.nn.Module) -> None:
        """Before a step. Returns once for the run itself and once in every copy."""
        if step not in self._job.locked_steps or self.way:
            return
        plain, candidate = self._job.numbers, self._job.candidate
        assert candidate is not None
        ideal = Numbers(candidate.chip, candidate.precision, True, candidate.overrides, candidate.folders)
        reference = self._take(REFERENCE, plain)
        if reference is None:
            return
        self._add(RERUN, REFERENCE, step, reference, taken := self._take(RERUN, plain))
        golden = self._take(GOLDEN, ideal) if taken else None
        if golden is None:
            return
        for seed in range(YARDSTICKS):
            moved = self._take(YARD, ideal, perturbation=1000 * step + seed)
            if moved is None:
                return
            self._add(YARD, GOLDEN, step, golden, moved)
        found = self._take(CANDIDATE, candidate)
        if found is None:
            return
        self._add(CANDIDATE, GOLDEN, step, golden, found)
        self._add(CANDIDATE, REFERENCE, step, reference, found)
        target = middle_matrix({name: g for name, g in reference.gradients.items() if bool(g.any())})
        for defect in suite(reference.has_attention):
            broken = self._take(str(defect), candidate, defect, target)
            if broken is None:
                return
            self._add(str(defect), GOLDEN, step, golden, broken)

    def _add(self, way: str, against: str, step: int, baseline: Taken, taken: Taken | None) -> None:
        if taken is not None:
            self.rows.append(_row(way, against, step, baseline, taken))

    def _take(
        self,
        way: str,
        numbers: Numbers,
        defect: Defect | None = None,
        target: str = "",
        perturbation: int | None = None,
    ) -> Taken | None:
        """The step in another way; None in the copy that is about to take it."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            self._change(way, numbers)
            parameters = self._instruments.parameters()
            if defect is not None:
                self._injected.enter_context(injected(defect, parameters, target))
            if perturbation is not None:
                perturb(list(parameters.values()), perturbation, _yardstick(self._job))
            return None
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            words = self._file.read_text(errors="replace") if self._file.exists() else "it ended early"
            raise WindtunnelError(
                "E721",
                f"a locked step could not be taken as {way}: {words}",
                hint="run the script with `windtunnel run --values` on that chip first",
                values={"chip": numbers.chip, "precision": numbers.precision},
            )
        loaded = torch.load(self._file, weights_only=False)
        self._file.unlink()
        return Taken(**loaded)

    def _change(self, way: str, numbers: Numbers) -> None:
        self.way = way
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        card = chip(numbers.chip, numbers.overrides, tuple(map(Path, numbers.folders)))
        become(self._session.state, card, Precision(numbers.precision), ideal=numbers.ideal)
        self._observer = Observer(self._session.state)
        self._instruments.watch_backward()
        self._instruments.keep_gradients = True
        self._instruments.on_end = self._leave

    def _leave(self, step: int, loss: float) -> None:
        assert self._observer is not None
        taken = {
            "loss": loss,
            "gradients": self._instruments.gradients,
            "seen": self._observer.seen(),
            "has_attention": self._observer.has_attention,
        }
        torch.save(taken, self._file)
        os._exit(0)

    def fail(self, words: str) -> None:
        """In a copy: the script ended without a step."""
        self._file.write_text(words)
        os._exit(1)


def _yardstick(job: Job) -> float:
    """For the accumulator that the candidate's linear layers run on."""
    assert job.candidate is not None
    card = chip(job.candidate.chip, job.candidate.overrides, tuple(map(Path, job.candidate.folders)))
    operand = operand_for(card, Precision(job.candidate.precision))
    accumulators = profile_of(card).accumulators
    bits = 23 if operand is None or job.candidate.ideal else accumulators[operand].fraction_bits
    return yardstick_size(bits)


def _row(way: str, against: str, step: int, baseline: Taken, taken: Taken) -> BranchRow:
    gradients = tuple(
        TensorRow(
            name,
            found.relative_l2,
            found.norm_ratio,
            found.cosine,
            found.special_mismatches,
            found.reference_norm,
            found.identical,
        )
        for name, found in compare_all(baseline.gradients, taken.gradients).items()
    )
    places, skipped = _places(baseline.seen, taken.seen)
    return BranchRow(way, against, step, taken.loss, baseline.loss, gradients, places, skipped)


def _places(baseline: list[Seen], taken: list[Seen]) -> tuple[tuple[PlaceRow, ...], int]:
    """Places that both passed with one shape, in the baseline's order, and how many others there were."""
    others = {(seen.module, seen.line, seen.visit): seen for seen in taken}
    rows = []
    for seen in baseline:
        other = others.get((seen.module, seen.line, seen.visit))
        if other is not None and other.shape == seen.shape:
            found = compare(seen.values, other.values)
            rows.append(PlaceRow(seen.module, seen.line, found.relative_l2, found.identical))
    return tuple(rows), len(baseline) + len(taken) - 2 * len(rows)
