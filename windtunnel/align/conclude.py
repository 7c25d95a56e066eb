"""From the records of a comparison to its result: what is judged, by which yardstick, and the answer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from windtunnel.align import noise
from windtunnel.align.branches import CANDIDATE, GOLDEN, REFERENCE, RERUN, YARD
from windtunnel.align.campaign import Campaign, Runs
from windtunnel.align.controls import require_caught
from windtunnel.align.curves import TAIL, curve
from windtunnel.align.evaluation import paired, proportion
from windtunnel.align.job import BranchRow, Numbers, RunRecord, versions
from windtunnel.align.locked import LockedStep, verdicts
from windtunnel.capture.precision import Precision, fp8_recipe, operand_for
from windtunnel.errors import AnswerIsNo
from windtunnel.numerics.profiles import Exactness, NumericProfile, Operand, profile_of
from windtunnel.numerics.sensitivity import accumulation_errors, undisclosed_variants, width_sweep
from windtunnel.results.align_result import (
    AccumulatorRow,
    AlignResult,
    ControlResult,
    Curves,
    Evidence,
    Judged,
    LockedResult,
    LockedRow,
    PairedEvaluation,
    Place,
    Proportion,
    SensitivityRow,
    Side,
)
from windtunnel.specs.catalogue import chip
from windtunnel.specs.schema import Chip

FELT = 0.05
"""A place differs noticeably from this relative error on: above what rounding to FP8 alone does to a product."""
SIGNIFICANT = 0.05


def conclude(campaign: Campaign, runs: Runs, command: str) -> AlignResult:
    """The result of a finished comparison.

    Raises:
        WindtunnelError: E715, a negative control was not caught; E713, the reference or a replica diverged;
            E712, curves of different lengths.
    """
    locked = _locked(runs.locked)
    require_caught(locked.controls)
    losses = Curves(runs.reference.losses, runs.candidate.losses, tuple(r.losses for r in runs.replicas))
    norms = Curves(runs.reference.norms, runs.candidate.norms, tuple(r.norms for r in runs.replicas))
    curve(losses.reference, "the reference")
    for number, replica in enumerate(losses.replicas):
        curve(replica, f"replica {number + 1}")
    judged, diverged = _judged(losses)
    evaluation = None
    if runs.reference.answers and runs.candidate.answers:
        evaluation = paired(runs.reference.answers, runs.candidate.answers)
    answered = [r.answers for r in runs.replicas if r.answers]
    scores = tuple(proportion(sum(answers), len(answers)) for answers in answered)
    p_values = tuple(paired(runs.reference.answers or (), answers).p_value for answers in answered)
    sides = _side(campaign.reference), _side(campaign.candidate)
    result = AlignResult(
        aligned=False,
        reasons=(),
        reference=sides[0],
        candidate=sides[1],
        evidence=_evidence(campaign, runs, command),
        locked=locked,
        losses=losses,
        norms=norms,
        deviations=judged,
        norm_deviations=_norms_judged(norms) if judged else (),
        evaluation=evaluation,
        replica_scores=scores,
        replica_p_values=p_values,
        accumulators=_accumulators(campaign.reference) + _accumulators(campaign.candidate),
        sensitivity=_sensitivity(campaign.candidate),
        notes=_notes(runs, evaluation is not None),
    )
    answers = _answers(result, diverged, campaign.tolerance)
    return replace(result, aligned=all(good for good, _ in answers), reasons=tuple(why for _, why in answers))


def _answers(result: AlignResult, diverged: str, tolerance: float) -> list[tuple[bool, str]]:
    """Each question that decides, and what it came to."""
    locked = result.locked
    specials = [v.name for v in locked.reference if v.flagged and not math.isfinite(v.error)]
    worst = max((v.error for v in locked.golden if not v.negligible), default=0.0)
    arithmetic = (
        f"arithmetic: {len(locked.flagged)} of {len(locked.golden)} gradients differ from those of ideal sums "
        f"by more than valid arithmetic does; the largest difference of one is {worst:.2%}"
    )
    found = [(not locked.flagged and not specials, arithmetic)]
    if diverged:
        return [*found, (False, f"loss: {diverged}")]
    tail = result.deviation("tail")
    assert tail is not None
    steps = min(TAIL, len(result.losses.reference))
    low, high = tail.floor_mean - tail.limit, tail.floor_mean + tail.limit
    within = abs(tail.deviation.value) <= tolerance
    how = (
        ""
        if tail.inside
        else f"; that is {'within' if within else 'beyond'} the tolerance of {tolerance:.2%}"
    )
    found.append(
        (
            tail.inside or within,
            f"loss: the mean of the last {steps} steps is off by {tail.deviation.value:+.3%}; runs that differ "
            f"in rounding alone are off by {low:+.3%} to {high:+.3%}{how}",
        )
    )
    if result.evaluation is not None:
        found.append(_evaluation_answer(result.evaluation, result.replica_scores))
    return found


def _evaluation_answer(seen: PairedEvaluation, replicas: Sequence[Proportion]) -> tuple[bool, str]:
    """Whether the candidate's model is no worse.

    McNemar's test says whether two models differ, and so do two replicas of one training; worse is what also
    lies below anything that one more replica would score.
    """
    low, high = noise.expected_range([seen.reference.value, *(score.value for score in replicas)])
    worse = (
        seen.only_reference > seen.only_candidate
        and seen.p_value < SIGNIFICANT
        and seen.candidate.value < low
    )
    return not worse, (
        f"evaluation: {seen.candidate.value:.1%} right against {seen.reference.value:.1%} (McNemar p = "
        f"{seen.p_value:.2g}, {seen.reference.items} items); one more replica of the reference would score "
        f"{max(0.0, low):.1%} to {min(1.0, high):.1%}"
    )


def _judged(losses: Curves) -> tuple[tuple[Judged, ...], str]:
    """Every deviation next to the floor; none, and why, where the candidate diverged."""
    try:
        curve(losses.candidate, "the candidate")
    except AnswerIsNo as error:
        return (), error.what
    return noise.judge(losses.reference, losses.candidate, losses.replicas), ""


def _norms_judged(norms: Curves) -> tuple[Judged, ...]:
    every = (norms.reference, norms.candidate, *norms.replicas)
    if not all(math.isfinite(value) for one in every for value in one):
        return ()  # a scaler met infinities and skipped the step
    return noise.judge(norms.reference, norms.candidate, norms.replicas)


def _locked(record: RunRecord) -> LockedResult:
    def rows(way: str, against: str) -> list[BranchRow]:
        return [row for row in record.branches if (row.way, row.against) == (way, against)]

    golden, reference = rows(CANDIDATE, GOLDEN), rows(CANDIDATE, REFERENCE)
    yardstick = [_step(row) for row in rows(YARD, GOLDEN)]
    reruns = rows(RERUN, REFERENCE)
    defects = dict.fromkeys(row.way for row in record.branches if row.way not in (CANDIDATE, RERUN, YARD))
    controls = []
    for defect in defects:
        found = rows(defect, GOLDEN)
        flagged = tuple(v.name for v in verdicts([_step(row) for row in found], yardstick) if v.flagged)
        controls.append(ControlResult(defect, bool(flagged), flagged, _first(found[-1], FELT)))
    places = [_first(row, limit) for row in (golden[-1], reference[-1]) for limit in (0.0, 0.01, FELT)]
    return LockedResult(
        rows=tuple(_locked_row(one, other) for one, other in zip(golden, reference, strict=True)),
        golden=tuple(verdicts([_step(row) for row in golden], yardstick)),
        reference=tuple(verdicts([_step(row) for row in reference])),
        places=tuple(place for place in places if place is not None),
        controls=tuple(controls),
        rerun_identical=all(g.identical for row in reruns for g in row.gradients)
        and all(p.identical for row in reruns for p in row.places),
    )


def _step(row: BranchRow) -> LockedStep:
    return LockedStep(row.step, _deviation(row), {gradient.name: gradient for gradient in row.gradients})


def _deviation(row: BranchRow) -> float:
    return (row.loss - row.baseline_loss) / max(abs(row.baseline_loss), 1e-300)


def _locked_row(golden: BranchRow, reference: BranchRow) -> LockedRow:
    steps = _step(golden), _step(reference)
    worst = [max((v.error for v in verdicts([step]) if not v.negligible), default=0.0) for step in steps]
    return LockedRow(
        golden.step,
        _deviation(golden),
        _deviation(reference),
        steps[0].global_error,
        steps[1].global_error,
        worst[0],
        worst[1],
    )


def _first(row: BranchRow, limit: float) -> Place | None:
    for index, place in enumerate(row.places):
        if place.error > limit if limit else not place.identical:
            against = row.against
            return Place(
                against, row.step, limit, index + 1, len(row.places), place.module, place.line, place.error
            )
    return None


def _chip(numbers: Numbers) -> Chip:
    return chip(numbers.chip, numbers.overrides, tuple(map(Path, numbers.folders)))


def _side(numbers: Numbers) -> Side:
    card = _chip(numbers)
    profile = profile_of(card)
    operand = operand_for(card, Precision(numbers.precision))
    recipe = fp8_recipe(card, Precision(numbers.precision))
    words = (
        f"linear layers in FP8 ({recipe}), the rest under BF16 autocast"
        if recipe
        else {
            Precision.BF16: "BF16 autocast",
            Precision.FP16: "FP16 autocast",
            Precision.TF32: "FP32 multiplied as TF32",
            Precision.FP32: "FP32",
        }.get(Precision(numbers.precision), "as the script says")
    )
    if numbers.ideal:
        accumulator, exactness = (
            "exact products, FP32 sums in the order of the CPU's library",
            Exactness.IDEAL,
        )
    elif operand is None:
        accumulator, exactness = "IEEE FP32 in the order of the CPU's library", Exactness.IDEAL
    else:
        accumulator, exactness = profile.accumulator(operand).describe(), profile.exactness
    assumed = () if exactness is Exactness.IDEAL else profile.assumed
    return Side(
        f"{numbers.chip}:{numbers.precision}",
        card.name,
        card.title,
        words,
        accumulator,
        str(exactness),
        assumed,
    )


def _accumulators(numbers: Numbers) -> tuple[AccumulatorRow, ...]:
    card = _chip(numbers)
    profile = profile_of(card)
    operand = Operand.FP8 if Operand.FP8 in profile.accumulators else Operand.FP16
    rows = [_accumulator_row(f"{card.title}, {operand}", profile, operand, fast=False)]
    if profile.fp8_promotion and operand is Operand.FP8:
        rows.append(
            _accumulator_row(f"{card.title}, {operand}, fast accumulation", profile, operand, fast=True)
        )
    return tuple(rows)


def _accumulator_row(label: str, profile: NumericProfile, operand: Operand, *, fast: bool) -> AccumulatorRow:
    found = accumulation_errors(profile.accumulator(operand, fast=fast))
    return AccumulatorRow(label, tuple(e.depth for e in found), tuple(e.max_relative for e in found))


def _sensitivity(numbers: Numbers) -> tuple[SensitivityRow, ...]:
    """What the candidate's undisclosed properties are worth; nothing where they are known."""
    profile = profile_of(_chip(numbers))
    if profile.exactness is not Exactness.SPECIFIED or Operand.FP8 not in profile.accumulators:
        return ()
    variants = undisclosed_variants(profile.accumulator(Operand.FP8))
    return tuple(
        SensitivityRow(
            found.accumulator.describe(), found.change, found.error.max_relative, found.passes_gate
        )
        for found in width_sweep(variants)
    )


def _evidence(campaign: Campaign, runs: Runs, command: str) -> Evidence:
    digest = hashlib.sha256()
    for record in (runs.reference, runs.candidate, *runs.replicas, runs.locked):
        timeless = msgspec.structs.replace(record, seconds=0.0)
        digest.update(msgspec.msgpack.encode(timeless))
    return Evidence(
        command=command,
        script=campaign.script,
        script_sha256=runs.script_sha256,
        runs_sha256=digest.hexdigest(),
        versions=versions(),
        seed=campaign.seed,
        threads=campaign.threads,
        ideal=campaign.candidate.ideal,
        steps=len(runs.reference.losses),
        parameters=runs.reference.parameters,
    )


def _notes(runs: Runs, evaluated: bool) -> tuple[str, ...]:
    notes = list(runs.reference.notes)
    if not evaluated:
        notes.append(
            "no evaluation: the script defines none (--evaluate names a function of the trained model)"
        )
    skipped = max((row.skipped for row in runs.locked.branches if row.way == CANDIDATE), default=0)
    if skipped:
        notes.append(
            f"{skipped} places of the forward pass were passed by one execution only and not compared"
        )
    same = runs.locked.losses == runs.reference.losses[: len(runs.locked.losses)]
    notes.append(
        f"the reference's first {len(runs.locked.losses)} steps were run twice: "
        + ("losses identical bit for bit" if same else "losses DIFFER: the script is not deterministic")
    )
    return tuple(notes)
