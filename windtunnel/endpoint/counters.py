"""What /metrics reports, since the start: counts, and histograms with vLLM's buckets. Times are the deployment's."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from windtunnel.serving.sequence import Sequence

FIRST_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
GAP_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
WHOLE_S = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
TOKENS = tuple(float(n * 10**power) for power in range(6) for n in (1, 2, 5))
SEVERAL, PREEMPTIONS = (1.0, 2.0, 5.0, 10.0, 20.0), (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
STEP_TOKENS = tuple(float(1 << n) for n in (0, *range(3, 15)))


class Histogram:
    """Counts by upper bounds, with the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Seq[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Observations."""
        return sum(self.counts)


def _histograms() -> dict[str, Histogram]:
    return {
        "time_to_first_token_seconds": Histogram(FIRST_S),
        "inter_token_latency_seconds": Histogram(GAP_S),
        "request_time_per_output_token_seconds": Histogram(GAP_S),
        "e2e_request_latency_seconds": Histogram(WHOLE_S),
        "request_queue_time_seconds": Histogram(WHOLE_S),
        "request_prefill_time_seconds": Histogram(WHOLE_S),
        "request_decode_time_seconds": Histogram(WHOLE_S),
        "request_inference_time_seconds": Histogram(WHOLE_S),
        "request_prompt_tokens": Histogram(TOKENS),
        "request_prefill_kv_computed_tokens": Histogram(TOKENS),
        "request_generation_tokens": Histogram(TOKENS),
        "request_max_num_generation_tokens": Histogram(TOKENS),
        "request_params_max_tokens": Histogram(TOKENS),
        "request_params_n": Histogram(SEVERAL),
        "request_num_preemptions": Histogram(PREEMPTIONS),
        "iteration_tokens_total": Histogram(STEP_TOKENS),
    }


@dataclass(slots=True)
class Counters:
    """``finished`` by reason; ``histograms`` by vLLM's names without their prefix.

    Clients that leave are ``cancelled``: vLLM counts them under no reason, nor in a histogram of finished requests.
    """

    finished: dict[str, int] = field(
        default_factory=lambda: {"stop": 0, "length": 0, "abort": 0, "error": 0, "repetition": 0}
    )
    cancelled: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    histograms: dict[str, Histogram] = field(default_factory=_histograms)

    @property
    def finished_total(self) -> int:
        """Requests answered to their end."""
        return self.finished["stop"] + self.finished["length"]

    def iteration(self, tokens: int) -> None:
        """One step of one rank."""
        self.histograms["iteration_tokens_total"].add(tokens)

    def token(self, number: int, waited_s: float, sequence: Sequence, more: int = 1) -> None:
        """The ``number``-th token of a request, ``waited_s`` after the one before or after arrival.

        ``more``: how many have come at once.
        """
        self.generation_tokens += more
        if number > more:
            self.histograms["inter_token_latency_seconds"].add(waited_s)
            return
        self.prompt_tokens += sequence.request.prompt_tokens
        self.cached_tokens += sequence.cached_tokens
        self.histograms["time_to_first_token_seconds"].add(waited_s)

    def finish(self, sequence: Sequence, arrived_s: float, now_s: float) -> None:
        """A request is answered."""
        request, add = sequence.request, self.histograms
        decode_s = now_s - sequence.first_s
        add["e2e_request_latency_seconds"].add(now_s - arrived_s)
        add["request_queue_time_seconds"].add(sequence.admitted_s - arrived_s)
        add["request_prefill_time_seconds"].add(sequence.first_s - sequence.admitted_s)
        add["request_decode_time_seconds"].add(decode_s)
        add["request_inference_time_seconds"].add(now_s - sequence.admitted_s)
        add["request_prompt_tokens"].add(request.prompt_tokens)
        add["request_prefill_kv_computed_tokens"].add(request.prompt_tokens - sequence.cached_tokens)
        add["request_num_preemptions"].add(sequence.preemptions)
        add["request_generation_tokens"].add(request.output_tokens)
        gaps = request.output_tokens - 1
        add["request_time_per_output_token_seconds"].add(decode_s / gaps if gaps else 0.0)

    def answered(self, answers: Seq[int], max_tokens: int) -> None:
        """All answers to one prompt are there, of so many tokens each; ``max_tokens``: the most each might have."""
        self.histograms["request_params_n"].add(len(answers))
        self.histograms["request_max_num_generation_tokens"].add(max(answers))
        for _ in answers:
            self.histograms["request_params_max_tokens"].add(max_tokens)
