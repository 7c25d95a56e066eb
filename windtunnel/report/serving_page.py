"""The page of `windtunnel serve`: latencies, queue and cache over time, rates. One offline file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from windtunnel import units
from windtunnel.estimate import Estimate
from windtunnel.report import html
from windtunnel.report.figure_cards import Card, card
from windtunnel.report.files import write_bytes
from windtunnel.report.line_plots import LinePlot, Series, linear, over_time, plot, seconds
from windtunnel.results.serving_result import QUANTILES, ServingResult, Spread

LATENCIES = (
    ("Time to first token", "ttft_s"),
    ("Time per output token", "tpot_s"),
    ("Gap between tokens", "itl_s"),
    ("Whole request", "e2e_s"),
)
CURVES = (("Time to first token", "ttft"), ("Time per output token", "tpot"), ("Whole request", "e2e"))


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a bar."""

    name: str
    share: float
    color: int


@dataclass(frozen=True, slots=True)
class Run:
    """One load on the page; ``name`` tells it from the others."""

    name: str
    result: ServingResult
    distributions: tuple[LinePlot, ...]
    over_time: tuple[LinePlot, ...]
    prompt_tokens: tuple[Slice, ...]

    def spreads(self) -> list[tuple[str, list[tuple[float, tuple[float, ...]]]]]:
        """Latencies that there are: mean and percentiles, each with its 80 % interval where there is one."""
        found: list[tuple[str, list[tuple[float, tuple[float, ...]]]]] = []
        for label, key in LATENCIES:
            spread: Spread = getattr(self.result, key)
            ends: list[Spread] = [getattr(end, key) for end in (self.result.fast, self.result.slow) if end]
            if spread.mean:
                columns = zip(*(one.to_dict().values() for one in (spread, *ends)), strict=True)
                found.append((label, [(one[0], (min(one), max(one)) if ends else ()) for one in columns]))
        return found


def render(results: Sequence[ServingResult], rates: Sequence[float] = ()) -> str:
    """The page of one load, or of the same traffic at several rates (requests a second)."""
    names = [f"{rate:g} requests/s" for rate in rates] or [""] * len(results)
    runs = [_run(name, result) for name, result in zip(names, results, strict=True)]
    # several rates: the last one that keeps to the SLA speaks for all
    met = [run for run in runs if run.result.meets_sla]
    lead = (met or runs)[-1] if met else runs[0]
    return html.fill(
        "serving.html.j2", runs=runs, lead=lead, answer=_answer(lead, runs), cards=_cards(lead.result),
        curves=_against_rate(rates, results) if len(results) > 1 else (), rate=_rate, data="",
    )  # fmt: skip


def write(results: Sequence[ServingResult], path: str | Path, rates: Sequence[float] = ()) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(results, rates).encode())


def _run(name: str, result: ServingResult) -> Run:
    return Run(name, result, _distributions(result), _over_time(result), _prompt_tokens(result))


def _answer(lead: Run, runs: Sequence[Run]) -> str:
    result = lead.result
    words = (
        f"{units.seconds(result.ttft_s.p90)} to the first token and {units.seconds(result.tpot_s.p90)} a token "
        f"for 90 % of requests"
    )
    if not result.limits:
        return words
    if len(runs) == 1:
        return f"{'Meets' if result.meets_sla else 'Misses'} the SLA: {words}"
    return (
        f"Meets the SLA up to {lead.name}: {words}"
        if result.meets_sla
        else "Meets the SLA at none of these rates"
    )


def _cards(result: ServingResult) -> list[Card]:
    decode, user = result.decode_tokens_per_s_per_gpu, result.tokens_per_s_per_user
    return [
        Card("Requests", f"{result.requests_per_s:.3g}", "/s", "", f"{result.requests:,} served"),
        card("Output tokens a card", decode, f"roofline {result.roofline_decode:,.0f} at this batch"),
        card(
            "Prompt tokens a card",
            result.prefill_tokens_per_s_per_gpu,
            f"roofline {result.roofline_prefill:,.0f}",
        ),
        card("Tokens a user", user, f"mean batch {result.mean_batch:.1f} a rank"),
        Card(
            "Goodput", f"{result.goodput_rps:.3g}", "/s", "", "requests that keep to every term of the SLA"
        ),
        Card(
            "Busy", f"{100 * result.busy_fraction:.0f}", "%", "",
            f"{result.steps:,} steps in {units.seconds(result.duration_s)}",
        ),
    ]  # fmt: skip


def _rate(rate: Estimate) -> str:
    return units.significant(rate.value)


def _distributions(result: ServingResult) -> tuple[LinePlot, ...]:
    found = []
    for title, key in CURVES:
        values: tuple[float, ...] = getattr(result, f"{key}_quantiles_s")
        if values:
            points = list(zip(values, QUANTILES, strict=True))
            x = seconds(values, units.seconds)
            found.append(plot(title, "requests that took at most", [Series(title, points)], x, PERCENT))
    return tuple(found)


def _over_time(result: ServingResult) -> tuple[LinePlot, ...]:
    if not result.moments:
        return ()
    times = [moment.time_s for moment in result.moments]
    x = over_time(max(times))
    running = Series("running", [(moment.time_s, moment.running) for moment in result.moments])
    waiting = Series("waiting", [(moment.time_s, moment.waiting) for moment in result.moments])
    held = Series("held by sequences", [(moment.time_s, moment.cache_fraction) for moment in result.moments])
    counts = [value for _, value in (*running.points, *waiting.points)]
    return (
        plot("Sequences", "time", [running, waiting], x, linear(counts, lambda value: f"{value:,g}")),
        plot("Cache of the cards", "time", [held], x, PERCENT),
    )


def _prompt_tokens(result: ServingResult) -> tuple[Slice, ...]:
    """Where prompt tokens came from."""
    parts = [("found on the card", result.cache_hit_fraction)]
    parts += [(f"found in {tier.name}", tier.hit_fraction) for tier in result.tiers]
    parts.append(("computed", max(0.0, 1 - sum(share for _, share in parts))))
    return tuple(Slice(name, share, color) for color, (name, share) in enumerate(parts))


def _against_rate(rates: Sequence[float], results: Sequence[ServingResult]) -> tuple[LinePlot, ...]:
    pairs = sorted(zip(rates, results, strict=True), key=lambda pair: pair[0])
    x = linear(rates, lambda value: f"{value:g}/s")
    good = [(rate, result.goodput_rps) for rate, result in pairs]
    served = [(rate, result.requests_per_s) for rate, result in pairs]
    offered = [(rate, rate) for rate, _ in pairs]
    spreads = [
        ("TTFT p50", [result.ttft_s.p50 for _, result in pairs]),
        ("TTFT p99", [result.ttft_s.p99 for _, result in pairs]),
        ("TPOT p50", [result.tpot_s.p50 for _, result in pairs]),
        ("TPOT p99", [result.tpot_s.p99 for _, result in pairs]),
    ]
    ordered = [rate for rate, _ in pairs]
    latencies = [Series(name, list(zip(ordered, values, strict=True))) for name, values in spreads]
    front = sorted(
        (result.tokens_per_s_per_user.value, result.decode_tokens_per_s_per_gpu.value, f"{rate:g}/s")
        for rate, result in pairs
    )
    users, cards = [one[0] for one in front], [one[1] for one in front]
    pareto = Series(
        "rates", list(zip(users, cards, strict=True)), labels=tuple(label for _, _, label in front)
    )
    say = units.significant
    return (
        plot(
            "Requests that come out, against those that come in", "requests that come in",
            [Series("goodput", good), Series("served", served), Series("offered", offered, dashed=True)],
            x, linear([*rates, *(value for _, value in served)], lambda value: f"{value:g}/s"),
        ),
        plot(
            "Latencies against the rate", "requests that come in", latencies, x,
            seconds([value for one in latencies for _, value in one.points], units.seconds),
        ),
        plot(
            "Output tokens/s a card against tokens/s a user", "tokens/s a user", [pareto],
            linear(users, say), linear(cards, say),
        ),
    )  # fmt: skip


PERCENT = linear([1 / 1.04], lambda value: f"{100 * value:.0f} %")
