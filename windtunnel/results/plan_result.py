"""What a search over training layouts found: rows of layouts, best first, and how far it looked."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate
from windtunnel.results.run_result import StepParts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One layout of a training job, priced.

    Attributes:
        tensor, pipeline, chunks, context, expert, data: degrees; ``chunks`` are model chunks of a stage.
        micro_batch: sequences of one forward. micro_batches: of one step on one rank.
        mfu: full attention counted; mfu_causal: the causal half.
        peak_bytes: of the fullest card, buffers of the collective library included.
    """

    tensor: int
    pipeline: int
    chunks: int
    context: int
    expert: int
    data: int
    micro_batch: int
    micro_batches: int
    schedule: str
    recompute: str
    sharding: str
    step_time_s: Estimate
    tokens_per_s_per_gpu: Estimate
    tokens_per_s: Estimate
    mfu: Estimate
    mfu_causal: Estimate
    parts: StepParts
    peak_bytes: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """The answer for one cluster.

    Attributes:
        rows: best first; empty where nothing fits.
        considered, fitting, priced: numbers of layouts that multiply up, whose memory surely fits, and whose
            step was simulated.
        unpriced_gain: the most by which a layout that was not simulated could be faster than the best, as a
            fraction of its step time; 0 where the search proved that none is.
        least_bytes: peak of the thriftiest layout, where nothing fits.
        mfu_peak: the peak that MFU is measured against, in words.
        left_out: layouts that were not looked at, and why; empty where all were.
    """

    model: str
    chip: str
    chip_title: str
    cards: int
    global_batch: int
    sequence: int
    precision: str
    optimizer: str
    usable_bytes: int
    mfu_peak: str
    model_flops_per_token: float
    considered: int
    fitting: int
    priced: int
    unpriced_gain: float
    rows: tuple[PlanRow, ...]
    least_bytes: Estimate | None = None
    left_out: str = ""

    @property
    def best(self) -> PlanRow | None:
        """The fastest layout, if any fits."""
        return self.rows[0] if self.rows else None
