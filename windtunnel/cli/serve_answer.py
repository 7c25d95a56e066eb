"""What `windtunnel serve` prints: a table of latencies, the figures that matter, the verdict; or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from windtunnel import units
from windtunnel.cli import output
from windtunnel.estimate import Estimate
from windtunnel.report.text_table import TextColumn, render
from windtunnel.results.serving_result import QUANTILES, ServingResult, Spread, TierUse

_LATENCIES = (
    ("Time to first token", "ttft_s"),
    ("Time per output token", "tpot_s"),
    ("Gap between tokens", "itl_s"),
    ("Whole request", "e2e_s"),
)


def text(result: ServingResult, width: int) -> list[str]:
    """The answer for a terminal of ``width`` columns."""
    head = f"{result.model_title} on {result.cards} × {result.chip_title}"
    lines = [head, *output.wrapped(result.layout, width, " "), *output.wrapped(result.load, width, " "), ""]
    lines += _latencies(result, width)
    lines += ["", *_figures(result, width)]
    if overload := _overload(result):
        lines += ["", *output.wrapped(overload, width, "")]
    if result.limits:
        lines += ["", *_sla(result, width)]
    lines += ["", "Rests on"]
    for said in result.assumptions:
        lines += output.wrapped(said, width, " ")
    return lines


def rates_text(rates: Sequence[float], results: Sequence[ServingResult], width: int) -> list[str]:
    """Goodput and latencies against the rate, and what a card gives against what a user sees."""
    first = results[0]
    head = f"{first.model_title} on {first.cards} × {first.chip_title}"
    columns = [
        TextColumn(name, right=True, rank=rank)
        for name, rank in (
            ("Rate", 0), ("Goodput", 0), ("TTFT p50", 1), ("TTFT p99", 0), ("TPOT p50", 2), ("TPOT p99", 0),
            ("Tokens/s a card", 0), ("a user", 0), ("Hits", 3), ("Cache", 2),
        )
    ]  # fmt: skip
    rows = [
        (
            f"{rate:g}/s",
            f"{result.goodput_rps:.3g}/s",
            units.seconds(result.ttft_s.p50),
            units.seconds(result.ttft_s.p99),
            units.seconds(result.tpot_s.p50),
            units.seconds(result.tpot_s.p99),
            f"{result.decode_tokens_per_s_per_gpu.value:,.0f}",
            f"{result.tokens_per_s_per_user.value:,.1f}",
            units.percent(result.cache_hit_fraction),
            units.percent(result.peak_cache_fraction),
        )
        for rate, result in zip(rates, results, strict=True)
    ]
    layout = output.wrapped(first.layout, width, " ")
    traffic, _, _ = first.load.rpartition(", ")  # without the rate
    lines = [head, *layout, *output.wrapped(traffic, width, " "), "", *render(columns, rows, width)]
    met = [rate for rate, result in zip(rates, results, strict=True) if result.meets_sla]
    if first.limits:
        lines += ["", f"SLA met up to {max(met):g} requests/s" if met else "SLA met at none of these rates"]
    return lines


def _latencies(result: ServingResult, width: int) -> list[str]:
    columns = [
        TextColumn("Latency"),
        TextColumn("mean", right=True),
        TextColumn("80 % interval", right=True, rank=1),
        *(TextColumn(name, right=True) for name in ("p50", "p90", "p99")),
    ]
    rows = []
    for label, key in _LATENCIES:
        spread: Spread = getattr(result, key)
        if spread.mean:
            mean, *percentiles = (units.seconds(value) for value in spread.to_dict().values())
            rows.append((label, mean, _between(result, key), *percentiles))
    return render(columns, rows, width)


def _between(result: ServingResult, key: str) -> str:
    """The mean at both ends of the interval."""
    if result.fast is None or result.slow is None:
        return ""
    ends: list[Spread] = [getattr(end, key) for end in (result.fast, result.slow)]
    low, high = sorted([*(end.mean for end in ends), getattr(result, key).mean])[::2]
    return f"{units.seconds(low)} – {units.seconds(high)}"


def _figures(result: ServingResult, width: int) -> list[str]:
    decode, prefill = result.decode_tokens_per_s_per_gpu, result.prefill_tokens_per_s_per_gpu
    share = result.weights_bytes / result.usable_bytes
    rows = [
        ("Requests", f"{result.requests_per_s:.3g}/s", _requests(result)),
        *(
            [("Waiting", f"{result.peak_waiting:,}", f"at most; {result.offered_rps:.3g}/s came")]
            if result.offered_rps
            else []
        ),
        ("Output tokens a card", _rate(decode), f"roofline {result.roofline_decode:,.0f} at this batch"),
        ("Prompt tokens a card", _rate(prefill), f"roofline {result.roofline_prefill:,.0f}"),
        (
            "Tokens a user",
            _rate(result.tokens_per_s_per_user),
            f"mean batch {result.mean_batch:.1f} a rank",
        ),
        ("Prefix cache hits", units.percent(result.cache_hit_fraction), "of prompt tokens"),
        *((f"Hits in {tier.name}", units.percent(tier.hit_fraction), _tier(tier)) for tier in result.tiers),
        (
            "Cache of a rank",
            f"{result.cache_tokens:,} tokens",
            f"{units.gib(result.cache_bytes)}; peak {units.percent(result.peak_cache_fraction)} used, "
            f"{result.preemptions:,} preemptions",
        ),
        ("Weights a card", units.gib(result.weights_bytes), f"{units.percent(share)} of usable"),
        (
            "Busy",
            units.percent(result.busy_fraction),
            f"{result.steps:,} steps in {result.duration_s:,.1f} s",
        ),
    ]
    return render([TextColumn("Deployment"), TextColumn("", right=True), TextColumn("", rank=1)], rows, width)


def _tier(tier: TierUse) -> str:
    return (
        f"of prompt tokens; holds {tier.capacity_tokens:,} tokens, read {tier.read_bytes / 1e9:,.1f} GB "
        f"at {tier.bytes_per_s / 1e9:,.1f} GB/s a rank, {tier.dropped:,} tokens dropped"
    )


def _requests(result: ServingResult) -> str:
    said = [f"{result.requests:,} served"]
    if result.rejected:
        said.append(f"{result.rejected:,} too long for the cache")
    if result.bad_lines:
        said.append(f"{result.bad_lines:,} lines of the trace unreadable")
    if result.limits:
        said.append(f"goodput {result.goodput_rps:.3g}/s")
    return ", ".join(said)


def _overload(result: ServingResult) -> str:
    """What to say where requests came faster than they could be answered; empty elsewhere."""
    running = max((moment.running for moment in result.moments), default=0)
    if not result.offered_rps or result.peak_waiting <= QUEUE_GROWS * running:
        return ""
    return (
        f"Overloaded: {result.offered_rps:.3g} requests/s came and {result.requests_per_s:.3g}/s were answered, so the "
        f"queue grew to {result.peak_waiting:,}; latencies are those of this traffic, more of it waits longer"
    )


QUEUE_GROWS = 2
"""A queue of this many times what runs at once is no burst any more."""


def _rate(rate: Estimate) -> str:
    if rate.high <= rate.low * SAME:
        return f"{units.significant(rate.value)}/s"
    if rate.value < 10:
        return f"{rate.value:.2f}/s ({rate.low:.2f} – {rate.high:.2f})"
    if rate.value < 100:
        return f"{rate.value:.1f}/s ({rate.low:.1f} – {rate.high:.1f})"
    return f"{rate.value:,.0f}/s ({rate.low:,.0f} – {rate.high:,.0f})"


SAME = 1.01
"""Ends that are this close are one number: what comes at its own pace is served at that pace."""


def _sla(result: ServingResult, width: int) -> list[str]:
    columns = [
        TextColumn("SLA"),
        TextColumn("most", right=True),
        TextColumn("is", right=True),
        TextColumn(""),
    ]
    rows = [
        (
            f"{limit.what.upper()} {limit.percentile}",
            units.seconds(limit.most_s),
            units.seconds(limit.actual_s),
            "met" if limit.met else "missed",
        )
        for limit in result.limits
    ]
    return render(columns, rows, width)


def as_json(result: ServingResult) -> dict[str, object]:
    """The object of ``--json``."""
    plain = {
        name: getattr(result, name)
        for name in (
            "model", "chip", "chip_title", "cards", "replicas", "layout", "load", "requests", "rejected",
            "prompt_tokens", "output_tokens", "duration_s", "busy_fraction", "requests_per_s", "offered_rps",
            "goodput_rps", "peak_waiting",
            "cache_hit_fraction", "cache_tokens", "peak_cache_fraction",
            "preemptions", "steps", "mean_batch", "weights_bytes", "cache_bytes", "usable_bytes", "bad_lines",
        )
    }  # fmt: skip
    spreads = {key: getattr(result, key).to_dict() for _, key in _LATENCIES}
    ends = {
        name: end.to_dict() for name, end in (("fast", result.fast), ("slow", result.slow)) if end is not None
    }
    return {
        "schema": output.schema("serve"),
        "status": "ok" if result.meets_sla else "no",
        **plain,
        **spreads,
        "interval_80": ends or None,
        "tokens_per_s_per_user": result.tokens_per_s_per_user.to_dict(),
        "decode_tokens_per_s_per_gpu": result.decode_tokens_per_s_per_gpu.to_dict(),
        "prefill_tokens_per_s_per_gpu": result.prefill_tokens_per_s_per_gpu.to_dict(),
        "roofline": {
            "decode_tokens_per_s_per_gpu": result.roofline_decode,
            "prefill_tokens_per_s_per_gpu": result.roofline_prefill,
        },
        "sla": [
            {
                "what": limit.what, "percentile": limit.percentile, "most_s": limit.most_s,
                "actual_s": limit.actual_s, "met": limit.met,
            }
            for limit in result.limits
        ],
        "assumptions": list(result.assumptions),
        "quantiles": list(QUANTILES),
        "ttft_quantiles_s": list(result.ttft_quantiles_s),
        "tpot_quantiles_s": list(result.tpot_quantiles_s),
        "e2e_quantiles_s": list(result.e2e_quantiles_s),
        "moments": [asdict(moment) for moment in result.moments],
        "tiers": [asdict(tier) for tier in result.tiers],
    }  # fmt: skip
