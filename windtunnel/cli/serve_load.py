"""The load of `windtunnel serve`: a recorded trace, screen agents, or requests that are drawn."""

from __future__ import annotations

import argparse

from windtunnel.cli import output
from windtunnel.serving.arrivals import Arrivals, Lengths, at_rate, drawn, stretched
from windtunnel.serving.gui_agent import GuiAgent, gui_sessions
from windtunnel.serving.predict import Load
from windtunnel.serving.sessions import in_sessions
from windtunnel.serving.trace_readers import BAD_SHOWN, Trace, read_trace


def load_of(args: argparse.Namespace) -> Load:
    """What the options ask for."""
    if args.trace:
        trace = read_trace(args.trace, args.requests or 0)
        for bad in trace.bad[:BAD_SHOWN]:
            output.say(f"{trace.name}, line {bad.line} left out: {bad.why}", quiet=args.quiet)
        if len(trace.bad) > BAD_SHOWN:
            output.say(f"{trace.name}: {len(trace.bad) - BAD_SHOWN:,} more lines left out", quiet=args.quiet)
        return _replayed(args, trace)
    if args.gui_sessions:
        found = gui_sessions(GuiAgent(), args.gui_sessions, args.rate or 0.1, args.seed)
        words = f"{args.gui_sessions:,} sessions of screen agents, {args.rate or 0.1:g}/s, {len(found):,} requests"
        return Load(requests=tuple(found), words=words)
    lengths = Lengths(
        prompt=args.input_len, output=args.output_len, spread=args.range_ratio, prefix=args.prefix_len
    )
    requests = tuple(
        drawn(
            args.requests or 1000, lengths, rate=args.rate or 0.0, pattern=Arrivals(args.arrivals),
            burstiness=args.burstiness, seed=args.seed,
        )
    )  # fmt: skip
    what = f"{args.input_len + args.prefix_len:,} tokens in, {args.output_len:,} out"
    if args.rate:
        how = f"{args.rate:g} requests/s ({args.arrivals})"
    elif args.concurrency:
        how = f"{args.concurrency:,} clients"
    else:
        how = "all at once"
    words = f"{len(requests):,} requests, {what}, {how}"
    return Load(requests=requests, words=words, concurrency=0 if args.rate else args.concurrency or 0)


def _replayed(args: argparse.Namespace, trace: Trace) -> Load:
    """A trace as it came, or its requests at a rate, or sent by clients that wait."""
    requests = tuple(stretched(trace.requests, args.trace_speed))
    sessions = in_sessions(requests)
    what = "sessions" if sessions else "requests"
    if args.rate:
        pattern = Arrivals(args.arrivals)
        requests = tuple(
            at_rate(requests, args.rate, pattern=pattern, burstiness=args.burstiness, seed=args.seed)
        )
        when = f"{args.rate:g} {what}/s ({args.arrivals})"
    elif args.concurrency:
        when = f"{args.concurrency:,} clients"
    else:
        last_s = max(request.arrival_s for request in requests)
        when = f"recorded over {last_s:,.0f} s" if sessions else f"over {last_s:,.0f} s"
        when = when if last_s else "all at once"
    if sessions:
        waiting = sum(request.follows is not None for request in requests)
        when += f", {waiting:,} of them each sent when the answers it waits for have come (closed loop)"
    elif not args.concurrency:
        when += ", sent at these times whatever is answered (open loop)" if not args.rate else ""
    return Load(
        requests=requests,
        words=f"{trace.name}, {len(requests):,} requests, {when}",
        bad_lines=len(trace.bad),
        concurrency=args.concurrency or 0,
        said=_untimed(trace),
    )


def _untimed(trace: Trace) -> tuple[str, ...]:
    if not trace.untimed:
        return ()
    said = f"{trace.untimed:,} recorded calls do not say how long their answer took: the next waits the whole gap"
    return (said,)
