"""What `windtunnel run` says about one program on one chip. Plain data: reports render it, JSON stores it.

Times are seconds, sizes bytes. Field names are the keys of ``results/columns.py``, where each is defined.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from windtunnel.estimate import Estimate, Source
from windtunnel.program.program import Notice, Outcome, StepKind


@dataclass(frozen=True, slots=True, kw_only=True)
class StepParts:
    """Disjoint parts of the step on the critical rank; they sum to ``step_time_s``."""

    compute_s: float
    exposed_comm_s: float = 0.0
    bubble_s: float = 0.0
    host_gap_s: float = 0.0
    optimizer_s: float = 0.0
    io_s: float = 0.0

    @property
    def total_s(self) -> float:
        """The sum of the parts."""
        return (
            self.compute_s
            + self.exposed_comm_s
            + self.bubble_s
            + self.host_gap_s
            + self.optimizer_s
            + self.io_s
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRow:
    """Operations of one kind at one place, summed over the step.

    ``limit`` says what bounds the kernel: compute, memory, l2, latency, launch or network.
    ``seconds`` is device time (kernel time for collectives), before overlap.
    """

    name: str
    family: str
    phase: str
    module: str
    line: str
    stream: str
    shapes: str
    count: int
    seconds: float
    low_s: float
    high_s: float
    flops: float
    bytes_moved: float
    precision: str
    limit: str
    source: Source
    formula: str  # the arithmetic of one such kernel with numbers filled in
    # the kernel alone against the chip's ceilings, for the roofline; 0 where it does not apply
    peak_fraction: float = 0.0
    bandwidth_fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class Span:
    """One interval on a track of the timeline (a kernel on a stream, a call on the host)."""

    track: int
    start_s: float
    duration_s: float
    op: int  # index into RunResult.ops, or -1
    critical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStorage:
    """``count`` equal storages alive at the memory peak; ``bytes`` is their sum."""

    bytes: int
    count: int
    category: str
    line: str
    module: str
    op: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResult:
    """Memory of one card over the recorded program.

    ``timeline``: rows of (fraction of the recording's events, active bytes by category in
    ``categories`` order), at most a few thousand; ``reserved`` beside it.
    """

    peak_reserved_bytes: Estimate
    peak_active_bytes: Estimate
    usable_bytes: int
    total_bytes: int
    fits: bool
    peak_by_category: tuple[tuple[str, int], ...]
    peak_at: str  # the source line at which the peak stands
    largest: tuple[LiveStorage, ...] = ()
    categories: tuple[str, ...] = ()
    timeline: tuple[tuple[float, tuple[int, ...], int], ...] = ()
    out_of_memory_at: str = ""  # the line and op that did not fit, empty when all fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Communication:
    """One group and collective, summed over the step."""

    collective: str
    group: str
    ranks: int
    count: int
    bytes: float
    seconds: float
    exposed_s: float
    algbw_bytes_per_s: float
    busbw_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class LanePiece:
    """A stretch of a rank's step in which it mostly did one thing: ``forward``, ``communication``, …"""

    start_s: float
    duration_s: float
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankResult:
    """One recorded rank in the step of a cluster; ``count`` ranks of the cluster do the same.

    Attributes:
        critical: the rank that ends last; its intervals are ``RunResult.spans``.
        lane: the step at a glance; where nothing is said the rank stands still.
        tracks, spans: the intervals of a rank that is not critical; ``Span.op`` counts in ``names``.
    """

    rank: int
    count: int
    step_time_s: float
    parts: StepParts
    peak_reserved_bytes: float
    critical: bool = False
    lane: tuple[LanePiece, ...] = ()
    tracks: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPoint:
    """One size of a cluster in a scaling study.

    Attributes:
        efficiency: throughput per card against the smallest size. limit: the part of the step that grew most.
        work_per_step: tokens of the global batch, else samples; 0 where neither is known.
    """

    cards: int
    step_time_s: Estimate
    tokens_per_s_per_gpu: Estimate | None
    mfu: Estimate | None
    efficiency: float
    parts: StepParts
    peak_reserved_bytes: float
    limit: str
    work_per_step: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRunInput:
    """A figure that a long run rests on, as text with its unit, and where it comes from; stated by the user: None."""

    what: str
    value: str
    source: Source | None
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRun:
    """Days of training with failures, checkpoints and stragglers: many seeded histories of one job.

    The parts are means over histories, as fractions of the wall-clock time; they sum to 1.

    Attributes:
        effective: useful training at full speed over wall-clock time, with the spread of histories.
        failures: interruptions in the whole time. tokens: trained on in it, lost work not counted.
    """

    days: float
    cards: int
    histories: int
    seed: int
    effective: Estimate
    failures: Estimate
    tokens: Estimate | None
    useful: float
    stragglers: float
    checkpoints: float
    lost: float
    restarts: float
    checkpoint_interval_s: float
    inputs: tuple[LongRunInput, ...]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What the step time would be if one number of the chip changed."""

    what: str
    change: str
    step_time_s: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A limit of the chip, drawn in the roofline: a compute peak (FLOP/s) or a bandwidth (B/s)."""

    label: str  # "bf16", "HBM", "L2"
    value: float
    per_byte: bool  # True: B/s, a slope; False: FLOP/s, a flat roof
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestMeasured:
    """A public measurement close to what was predicted, and what the model says about it."""

    what: str
    where: str  # publication, and the place in it
    measured: float
    predicted: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The prediction for one program on one chip (or cluster of them)."""

    chip: str
    chip_title: str
    cards: int
    step_kind: StepKind
    step_time_s: Estimate
    parts: StepParts
    tokens_per_step: int  # over all cards
    samples_per_step: int
    tokens_per_s_per_gpu: Estimate | None
    model_flops_per_step: float  # one card, no recomputation, full attention
    model_flops_per_step_causal: float
    hardware_flops_per_step: float  # one card, with recomputation
    model_flops_per_token: float
    model_tflops_per_gpu: Estimate | None
    mfu: Estimate | None
    mfu_causal: Estimate | None
    hfu: Estimate | None
    mbu: Estimate | None
    mfu_peak: str  # which peak: "bf16 989 TFLOP/s"
    memory: MemoryResult
    ops: tuple[OpRow, ...]
    spans: tuple[Span, ...] = ()
    tracks: tuple[str, ...] = ()
    communication: tuple[Communication, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    steps: tuple[tuple[str, float], ...] = ()  # every step found: (kind, seconds)
    notices: tuple[Notice, ...] = ()
    warnings: tuple[str, ...] = ()
    outcome: Outcome = Outcome.COMPLETE
    outcome_detail: str = ""
    recorded_ops: int = 0
    recorded_collectives: int = 0
    recorded_s: float = 0.0
    command: str = ""
    program_hash: str = ""
    assumptions: tuple[str, ...] = field(default=())  # facts of the chip that are assumed and were used
    ceilings: tuple[Ceiling, ...] = ()  # of the chip, for the roofline
    nearest_measured: tuple[NearestMeasured, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()  # (what, version): windtunnel, torch, chip data, fitted tables
    ranks: tuple[RankResult, ...] = ()  # recorded ranks of a cluster, in order
    scaling: tuple[ScalingPoint, ...] = ()  # the same job on clusters of several sizes
    long_run: LongRun | None = None  # days of it, with failures
