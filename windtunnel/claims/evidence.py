"""Evidence that takes longer than a page may: kept with the command that made it and the hash of its content.

* ``workloads/digits_vqa/align.json``: a comparison that ``windtunnel align`` saved.
* ``evidence/runs.json``: runs of unmodified code, with versions.

``windtunnel claims --rerun`` makes them again.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from windtunnel.claims.claim import Answer, Setting, Steady, Variation
from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.results.align_result import AlignResult, Judged
from windtunnel.workloads.digits_vqa.evidence import recorded

ALIGN = (
    "windtunnel align --steps 250 --replicas 5 --reference h100-sxm:bf16 --candidate mtt-s5000:fp8 digits-vqa"
)
"""Makes the kept comparison again, in about half an hour of one core."""

FOLDER = "evidence"
STUDENT = (0.242, 0.438, 0.515, 0.552, 0.574, 0.588, 0.598, 0.606, 0.611, 0.616)
"""Student's quantile at 90 % over that at 97.5 %, for 1 to 10 degrees of freedom."""
STUDENT_90 = (3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372)
"""Student's quantile at 90 % for 1 to 10 degrees of freedom."""
PUBLISHED = 0.62
"""Percent: what BAAI reports."""
RUNS = "runs.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of unmodified code on the card.

    Attributes:
        topic: which claim it belongs to. stack: whose code, with its version. what: what ran.
        outcome: what came out, in words. date: when.
    """

    topic: str
    stack: str
    what: str
    command: str
    outcome: str
    date: str


def folder() -> Path:
    """Where the evidence lies."""
    return Path(str(importlib.resources.files("windtunnel.claims"))) / FOLDER


def runs() -> tuple[Run, ...]:
    """All runs on record.

    Raises:
        WindtunnelError: E809, the file is not what its hash says.
    """
    path = folder() / RUNS
    if not path.exists():
        return ()
    data = json.loads(path.read_text(encoding="utf-8"))
    if digest(data["runs"]) != data["sha256"]:
        raise WindtunnelError(
            "E809",
            "the evidence of runs was changed after it was recorded",
            values={"file": RUNS, "recorded": data["sha256"][:12], "is": digest(data["runs"])[:12]},
            hint="windtunnel claims stack --rerun",
        )
    return tuple(Run(**run) for run in data["runs"])


def save_runs(found: tuple[Run, ...]) -> None:
    """Write the runs with their hash."""
    rows = [asdict(run) for run in found]
    text = json.dumps({"sha256": digest(rows), "runs": rows}, indent=1, ensure_ascii=False)
    folder().mkdir(exist_ok=True)
    (folder() / RUNS).write_text(text + "\n", encoding="utf-8")


def digest(rows: list[dict[str, str]]) -> str:
    """SHA-256 of the rows in canonical JSON."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def stack_runs(topic: str) -> tuple[str, ...]:
    """The runs of one topic, in words."""
    return tuple(
        f"{run.stack}: {run.what}: {run.outcome} ({run.date}; `{run.command}`)"
        for run in runs()
        if run.topic == topic
    )


def alignment() -> Answer:
    """The answer of the stored comparison: one setting for each definition of deviation."""
    found = recorded()
    told = [judged for judged in found.deviations if judged.deviation.name != "tail_gap_nats"]
    settings = tuple(_setting(judged, found) for judged in told)
    reached = [judged for judged in told if 100 * abs(judged.deviation.value) <= PUBLISHED]
    kept = [row for row in found.sensitivity if row.passes_gate]
    moved = max((row.change for row in kept), default=0.0)
    return Answer(
        settings=settings,
        variations=tuple(
            Variation(
                of="which deviation is meant",
                becomes=judged.deviation.definition,
                prediction=setting.prediction,
            )
            for judged, setting in zip(told, settings, strict=True)
        ),
        steady=(
            Steady(
                of="what is undisclosed of the accumulator",
                why=f"{len(kept)} of {len(found.sensitivity)} variants of it pass the public test of the S5000's FP8 "
                f"kernels; they move a product by {moved:.2%} at most",
            ),
            Steady(
                of="a small vision-language model on digits stands for it",
                why="not varied: no larger one can be trained here. Noise of a larger batch is smaller, so every "
                "deviation but that of the first steps would be",
            ),
        ),
        would_take="a definition of deviation that rounding alone keeps below the figure. By itself the "
        "deviation is below it "
        + (
            "by this definition only: " + "; ".join(judged.deviation.definition for judged in reached)
            if reached
            else "by no definition"
        )
        + "; by the others it agrees, where it does, because the noise of rounding reaches down to the figure",
        why=_why(found),
    )


def alignment_scores() -> Answer:
    """The trained models' scores of the stored comparison, in percentage points over the reference's."""
    found = recorded()
    if found.evaluation is None:
        return Answer()
    reference, candidate = found.evaluation.reference.value, found.evaluation.candidate.value
    replicas = [score.value for score in found.replica_scores]
    noise = _prediction_half([100 * (score - reference) for score in replicas])
    gap = 100 * (candidate - reference)
    mean = sum(replicas) / len(replicas)
    beside_mean = 100 * (candidate - mean)
    return Answer(
        settings=(
            Setting(
                label="one training on each side; interval: what trainings that differ in rounding alone do",
                prediction=Estimate(gap, gap - noise, gap + noise, ((Source.ASSUMED, 1.0),)),
                command=found.evidence.command,
            ),
        ),
        variations=(
            Variation(
                of="one training on each side stands for many",
                becomes="against the mean of the reference's replicas",
                prediction=Estimate(
                    beside_mean, beside_mean - noise, beside_mean + noise, ((Source.ASSUMED, 1.0),)
                ),
            ),
            Variation(
                of="one training on each side stands for many",
                becomes="no allowance for rounding",
                prediction=Estimate.exact(gap, Source.ASSUMED),
            ),
        ),
        steady=(
            Steady(
                of="a small vision-language model on digits stands for it",
                why="not varied: no larger one can be trained here",
            ),
        ),
        would_take="scores of several trainings on each side: one pair cannot tell arithmetic from luck",
        why=(
            f"reference {reference:.1%}, candidate {candidate:.1%} of {found.evaluation.reference.items} questions "
            f"(McNemar p = {found.evaluation.p_value:.3f}); replicas of the reference: "
            + ", ".join(f"{score:.1%}" for score in replicas),
            f"a model that answers {reference:.0%} right after {found.evidence.steps} steps has hardly learnt the "
            "task: weak evidence against a claim about a trained one, and replicas of one side differ by as much",
        ),
    )


def _prediction_half(gaps: list[float]) -> float:
    """Half-width of the central 80 % for one more run, from the spread of replicas about their mean (Student)."""
    count = len(gaps)
    mean = sum(gaps) / count
    spread = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (count - 1))
    return STUDENT_90[min(count - 1, len(STUDENT_90)) - 1] * spread * math.sqrt(1 + 1 / count)


def _setting(judged: Judged, found: AlignResult) -> Setting:
    value = 100 * abs(judged.deviation.value)
    low, high = max(0.0, value - _half_width(judged)), value + _half_width(judged)
    inside = (
        "as replicas that differ in rounding alone" if judged.inside else "more than rounding alone gives"
    )
    return Setting(
        label=f"{judged.deviation.definition}: {inside} (z {judged.z:+.1f})",
        prediction=Estimate(value, low, high, ((Source.ASSUMED, 1.0),)),
        command=found.evidence.command,
    )


def _half_width(judged: Judged) -> float:
    """Of the central 80 %, in percent, from a prediction interval of 95 %: both are Student's for the replicas."""
    place = min(len(judged.floor) - 1, len(STUDENT)) - 1
    return 100 * judged.limit * STUDENT[max(place, 0)]


def _why(found: AlignResult) -> tuple[str, ...]:
    sides = f"{found.reference.target} against {found.candidate.target}, {found.evidence.steps} steps"
    lines = [f"{sides}, {found.evidence.parameters:,} parameters, {len(found.losses.replicas)} replicas"]
    caught = sum(control.caught for control in found.locked.controls)
    lines.append(f"injected defects caught: {caught} of {len(found.locked.controls)}")
    if found.evaluation is not None:
        right = found.evaluation
        lines.append(
            f"evaluation: reference {right.reference.value:.1%}, candidate {right.candidate.value:.1%}, "
            f"p = {right.p_value:.2f}"
        )
    kept = [row for row in found.sensitivity if row.passes_gate]
    lines.append(
        f"undisclosed properties of the accumulator varied: {len(kept)} of {len(found.sensitivity)} variants pass the "
        "public test of the S5000's FP8 kernels"
    )
    return (*lines, f"runs {found.evidence.runs_sha256[:12]}; {'; '.join(found.candidate.assumed)}")
