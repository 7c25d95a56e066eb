"""What `windtunnel serve` says about one deployment under one load. Plain data; times in seconds.

TTFT, TPOT, ITL and E2E are as vLLM's benchmark defines them: TPOT is a request's mean time per token after the
first, ITL every single gap between tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles of one latency over requests (ITL: over gaps)."""

    mean: float
    p50: float
    p90: float
    p99: float

    def to_dict(self) -> dict[str, float]:
        """The JSON form."""
        return {"mean": self.mean, "p50": self.p50, "p90": self.p90, "p99": self.p99}


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The same load with all steps at one end of their 80 % interval."""

    duration_s: float
    ttft_s: Spread
    tpot_s: Spread
    itl_s: Spread
    e2e_s: Spread

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        names = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
        return {"duration_s": self.duration_s, **{name: getattr(self, name).to_dict() for name in names}}


@dataclass(frozen=True, slots=True)
class Limit:
    """One term of an SLA: ``percentile`` of ``what`` at most ``most_s``; ``actual_s`` is what came out."""

    what: str
    percentile: str
    most_s: float
    actual_s: float

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.actual_s <= self.most_s


@dataclass(frozen=True, slots=True)
class Moment:
    """All replicas at one time: part of the cache that is held, sequences running and waiting."""

    time_s: float
    cache_fraction: float
    running: int
    waiting: int


@dataclass(frozen=True, slots=True)
class TierUse:
    """One tier of cache beyond the card, over all ranks.

    Attributes:
        capacity_tokens: of one rank (storage: of all). tokens: held at the end.
        hit_fraction: of all prompt tokens, found there and not on a faster tier.
        asked, read, written: tokens. dropped: tokens that it had no room to keep.
        read_bytes, written_bytes: what crossed its link.
    """

    name: str
    capacity_tokens: int
    tokens: int
    hit_fraction: float
    asked: int
    read: int
    written: int
    dropped: int
    read_bytes: float
    written_bytes: float
    bytes_per_s: float


QUANTILES = tuple(percent / 100 for percent in (0, 1, 2, *range(5, 100, 5), 98, 99, 100))
"""Points at which distributions are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingResult:
    """One deployment under one load.

    Attributes:
        layout: the deployment in words. load: the traffic in words.
        duration_s: from the first arrival to the last answer; busy_fraction: of it, over replicas.
        goodput_rps: requests a second that met every term of the SLA; all of them without an SLA.
        decode_tokens_per_s_per_gpu: output tokens ÷ duration ÷ cards.
        prefill_tokens_per_s_per_gpu: prompt tokens, cache hits included, ÷ duration ÷ cards.
        cache_hit_fraction: of prompt tokens, on the card; ``tiers`` has the others'.
        cache_tokens: capacity of one attention rank.
        tokens_per_s_per_user: one over the mean TPOT.
        offered_rps: requests a second that came; 0 where they came all at once or waited for answers.
        peak_waiting: most requests waiting at once.
        fast, slow: latencies at the ends of the 80 % interval, where they were asked for.
        *_quantiles_s: the distributions over requests at ``QUANTILES``. moments: queue and cache over time.
        roofline_*: what weights, cache and products alone would allow at the same batch.
    """

    model: str
    model_title: str
    chip: str
    chip_title: str
    cards: int
    replicas: int
    layout: str
    load: str
    requests: int
    rejected: int
    prompt_tokens: int
    output_tokens: int
    duration_s: float
    busy_fraction: float
    ttft_s: Spread
    tpot_s: Spread
    itl_s: Spread
    e2e_s: Spread
    requests_per_s: float
    offered_rps: float
    goodput_rps: float
    peak_waiting: int
    decode_tokens_per_s_per_gpu: Estimate
    prefill_tokens_per_s_per_gpu: Estimate
    tokens_per_s_per_user: Estimate
    cache_hit_fraction: float
    cache_tokens: int
    peak_cache_fraction: float
    preemptions: int
    steps: int
    mean_batch: float
    weights_bytes: int
    cache_bytes: int
    usable_bytes: int
    roofline_decode: float
    roofline_prefill: float
    limits: tuple[Limit, ...] = ()
    bad_lines: int = 0
    replayed_times_real: float = 0.0
    assumptions: tuple[str, ...] = ()
    ttft_quantiles_s: tuple[float, ...] = ()
    tpot_quantiles_s: tuple[float, ...] = ()
    e2e_quantiles_s: tuple[float, ...] = ()
    moments: tuple[Moment, ...] = ()
    tiers: tuple[TierUse, ...] = ()
    fast: End | None = None
    slow: End | None = None

    @property
    def meets_sla(self) -> bool:
        """Whether every term holds."""
        return all(limit.met for limit in self.limits)
