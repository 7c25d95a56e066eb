"""What `windtunnel align` found: two ways to compute the same training, compared. Plain data.

Deviations are fractions unless their name says nats; curves hold one number a step.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two ways to compute.

    Attributes:
        target: as given, ``mtt-s5000:fp8``.
        precision: in words.
        accumulator: of the products that its linear layers run, in words.
        exactness: bit-exact, specified or ideal.
        assumed: what the arithmetic takes for granted because it is not published.
    """

    target: str
    chip: str
    chip_title: str
    precision: str
    accumulator: str
    exactness: str
    assumed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Deviation:
    """One definition applied to two curves.

    Attributes:
        name: stable key.
        definition: in words; L is the reference's loss, L' the candidate's.
        value: a fraction, except ``tail_gap_nats``, which is in units of the loss.
        signed: whether the value has a sign (positive: the candidate's loss is higher).
    """

    name: str
    definition: str
    value: float
    signed: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A candidate's deviation next to the floor, by one definition.

    Attributes:
        floor_mean, floor_std: of the replicas' deviations from the reference.
        z: (value - floor_mean) / floor_std; infinite if the replicas do not vary and the candidate differs.
        limit: deviations beyond floor_mean ± limit lie outside the 95 % prediction interval.
        inside: whether this candidate could be one more replica. A smaller deviation than theirs is inside.
    """

    deviation: Deviation
    floor: tuple[float, ...]
    floor_mean: float
    floor_std: float
    z: float
    limit: float
    inside: bool

    @property
    def interval(self) -> tuple[float, float]:
        """Where the value would lie in 95 % of runs that differ from this one in rounding alone."""
        low, high = self.deviation.value - self.limit, self.deviation.value + self.limit
        return (low if self.deviation.signed else max(0.0, low)), high


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share of items with its 95 % Wilson interval."""

    right: int
    items: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedEvaluation:
    """Two models on the same items.

    Attributes:
        only_reference, only_candidate: items that one model alone answers right.
        p_value: exact McNemar test, two-sided: how often chance alone splits the disagreements so unevenly.
    """

    reference: Proportion
    candidate: Proportion
    both: int
    only_reference: int
    only_candidate: int
    neither: int
    p_value: float

    @property
    def agreement(self) -> float:
        """Share of items on which both are right or both wrong."""
        return (self.both + self.neither) / self.reference.items


@dataclass(frozen=True, slots=True)
class TensorVerdict:
    """One tensor over all locked steps: medians, so that one unlucky batch does not decide.

    Attributes:
        error: relative L2 error of the gradient.
        norm_change: norm ratio less 1.
        limit: error from which on the tensor is flagged.
        negligible: too small to judge.
        flagged: beyond a limit, or with NaN or infinity that the reference lacks.
    """

    name: str
    error: float
    norm_change: float
    cosine: float
    limit: float
    negligible: bool
    flagged: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where two executions of one step first differ by more than ``limit`` (0: at all).

    Attributes:
        against: what the candidate is compared with: ``golden`` or ``reference``.
        index, of: position among the places of the forward pass that both executions passed.
        error: relative L2 error of what the line computed.
    """

    against: str
    step: int
    limit: float
    index: int
    of: int
    module: str
    line: str
    error: float


@dataclass(frozen=True, slots=True)
class LockedRow:
    """One locked step.

    Attributes:
        loss_golden, loss_reference: deviation of the candidate's loss from either.
        global_golden, global_reference: relative L2 error of all gradients as one vector.
        worst_golden, worst_reference: the largest such error of one tensor that is not negligible.
    """

    step: int
    loss_golden: float
    loss_reference: float
    global_golden: float
    global_reference: float
    worst_golden: float
    worst_reference: float


@dataclass(frozen=True, slots=True)
class ControlResult:
    """Whether a defect was caught, by which tensors, and where it showed first in the forward pass."""

    defect: str
    caught: bool
    flagged: tuple[str, ...]
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class LockedResult:
    """The locked-trajectory comparison.

    Attributes:
        golden, reference: the candidate's gradients against its own recipe with ideal sums, and against the
            reference; worst first.
        rerun_identical: the reference's step taken twice gave the same bits in every gradient and value.
    """

    rows: tuple[LockedRow, ...]
    golden: tuple[TensorVerdict, ...]
    reference: tuple[TensorVerdict, ...]
    places: tuple[Place, ...]
    controls: tuple[ControlResult, ...]
    rerun_identical: bool

    @property
    def flagged(self) -> tuple[str, ...]:
        """Tensors whose gradient the candidate's arithmetic gets wrong."""
        return tuple(verdict.name for verdict in self.golden if verdict.flagged)


@dataclass(frozen=True, slots=True)
class Curves:
    """Loss or gradient norm of every step."""

    reference: tuple[float, ...]
    candidate: tuple[float, ...]
    replicas: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class AccumulatorRow:
    """One accumulator on a product of FP8 values, U[0, 1), against FP64: largest relative error by K."""

    label: str
    depths: tuple[int, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One undisclosed property of the candidate's accumulator varied.

    Attributes:
        change: largest relative change of a result against the accumulator as stated.
        passes_gate: within 5e-3 of the true product, as the public test of the S5000's FP8 kernels demands.
    """

    varied: str
    change: float
    error: float
    passes_gate: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the result rests on, to find and to repeat it.

    Attributes:
        command: that gives it again.
        script_sha256: of the script's text.
        runs_sha256: of every run's losses, gradient norms and answers, in order.
    """

    command: str
    script: str
    script_sha256: str
    runs_sha256: str
    versions: tuple[tuple[str, str], ...]
    seed: int
    threads: int
    ideal: bool
    steps: int
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignResult:
    """All of it.

    Attributes:
        aligned: the answer; ``reasons`` say why, in words.
        losses, norms: curves; ``norms`` are of all gradients before clipping.
        deviations: of the loss, by every definition; empty where the candidate diverged.
        norm_deviations: the same definitions applied to gradient norms.
        evaluation: None where the script has no evaluation.
        replica_scores, replica_p_values: evaluations of the replicas, and McNemar's test against the reference.
        notes: what was changed or left out to compare, one line each.
    """

    aligned: bool
    reasons: tuple[str, ...]
    reference: Side
    candidate: Side
    evidence: Evidence
    locked: LockedResult
    losses: Curves
    norms: Curves
    deviations: tuple[Judged, ...] = ()
    norm_deviations: tuple[Judged, ...] = ()
    evaluation: PairedEvaluation | None = None
    replica_scores: tuple[Proportion, ...] = ()
    replica_p_values: tuple[float, ...] = ()
    accumulators: tuple[AccumulatorRow, ...] = ()
    sensitivity: tuple[SensitivityRow, ...] = ()
    notes: tuple[str, ...] = ()

    def deviation(self, name: str) -> Judged | None:
        """The judged deviation of the loss by one definition; None where there is none."""
        return next((judged for judged in self.deviations if judged.deviation.name == name), None)
