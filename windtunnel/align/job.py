"""What one run of a script is asked to do, and what it gave: small files that outlive an interruption."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

import msgspec

import windtunnel


class Role(StrEnum):
    """What a run is for."""

    FREE = "free"  # train to the end, keep losses and answers
    LOCKED = "locked"  # train, and at some steps take the step again in other ways


class Numbers(msgspec.Struct, frozen=True):
    """How to compute: a chip with its overrides, a precision, exact or ideal sums."""

    chip: str
    precision: str
    ideal: bool = False
    overrides: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


class Job(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        steps: stop after so many; 0: when the script ends.
        perturbation: seed of the replica, -1: none.
        locked_steps, candidate: for ``Role.LOCKED``.
        evaluate: name of the script's evaluation function.
        script_sha256: of the script's text, so that a changed script is run again.
    """

    script: str
    argv: tuple[str, ...]
    is_module: bool
    role: Role
    numbers: Numbers
    seed: int
    threads: int
    steps: int
    evaluate: str
    script_sha256: str
    versions: tuple[tuple[str, str], ...]
    perturbation: int = -1
    locked_steps: tuple[int, ...] = ()
    candidate: Numbers | None = None

    def key(self) -> str:
        """Name of the run's files: equal jobs have equal keys."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:20]


class TensorRow(msgspec.Struct, frozen=True):
    """One gradient compared; the fields of ``metrics.TensorComparison`` that verdicts read."""

    name: str
    relative_l2: float
    norm_ratio: float
    cosine: float
    special_mismatches: int
    reference_norm: float
    identical: bool


class PlaceRow(msgspec.Struct, frozen=True):
    """One line of the forward pass compared."""

    module: str
    line: str
    error: float
    identical: bool


class BranchRow(msgspec.Struct, frozen=True):
    """A step taken another way, compared with one baseline.

    Attributes:
        way: rerun, candidate or the name of a defect. against: reference or golden.
        skipped: places that only one execution passed.
    """

    way: str
    against: str
    step: int
    loss: float
    baseline_loss: float
    gradients: tuple[TensorRow, ...]
    places: tuple[PlaceRow, ...]
    skipped: int


class RunRecord(msgspec.Struct, frozen=True):
    """What a run gave.

    Attributes:
        norms: of all gradients, before clipping.
        answers: whether each item of the evaluation was right; None without evaluation.
        failure: a coded error that ended it, as (code, what, hint).
        notes: what was changed so that runs can be compared.
    """

    losses: tuple[float, ...]
    norms: tuple[float, ...]
    answers: tuple[bool, ...] | None
    parameters: int
    seconds: float
    branches: tuple[BranchRow, ...] = ()
    failure: tuple[str, str, str] | None = None
    notes: tuple[str, ...] = ()


def script_digest(script: str, is_module: bool) -> str:
    """SHA-256 of the script's text; empty for a module that is not a file."""
    path: str | None = script
    if is_module:
        spec = find_spec(script)
        path = spec.origin if spec is not None else None
    if path is None or not Path(path).is_file():
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def versions() -> tuple[tuple[str, str], ...]:
    """What a result depends on besides the script."""
    from importlib.metadata import PackageNotFoundError, version

    found = [("windtunnel", windtunnel.__version__)]
    for name in ("torch", "transformers", "numpy"):
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(found)


def decode_record(path: Path) -> RunRecord | None:
    """The record of a finished run; None where there is none or it is damaged."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=RunRecord)
    except (OSError, msgspec.MsgspecError):
        return None
