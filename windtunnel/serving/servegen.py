"""Clients of ServeGen (arXiv 2505.09999): windows of arrivals and distributions of lengths, drawn with a seed.

A client is a row with ``trace_csv`` (start of a window in s, rate, coefficient of variation, distribution of the gaps,
its shape and scale) and ``dataset`` (by window: probabilities of prompt and output tokens). The first hour of every
client is drawn; lengths come from the latest window that has any.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import cast

from windtunnel.serving.request import Request

HOUR_S = 3600.0
_PAIR = re.compile(r"(\d+)\s*:\s*([0-9.eE+-]+)")
Row = Mapping[str, object]


def client_requests(row: Row) -> list[Request]:
    """Requests of one client, in the order of arrival. Raises KeyError or ValueError for what cannot be read."""
    name = str(row["client"])
    draw = random.Random(f"servegen {name}")
    windows = [line.split(",") for line in str(row["trace_csv"]).split() if line]
    tables = _lengths(cast("Mapping[str, Mapping[str, str]]", row["dataset"]))
    found = []
    for place, window in enumerate(windows):
        start, rate = float(window[0]), float(window[1])
        if start >= HOUR_S:
            break
        end = float(windows[place + 1][0]) if place + 1 < len(windows) else start + HOUR_S
        if rate <= 0 or not window[3]:
            continue
        prompts, outputs = tables[max((t for t in tables if t <= start), default=min(tables))]
        times = _arrivals(draw, window[3], float(window[4]), float(window[5]), start, min(end, HOUR_S))
        found += [Request(0, at, prompts(draw), outputs(draw), session=f"client {name}") for at in times]
    return found


def _arrivals(
    draw: random.Random, kind: str, shape: float, scale: float, start: float, end: float
) -> Iterator[float]:
    if kind not in ("Gamma", "Weibull") or not shape > 0 or not scale > 0:
        raise ValueError(f"gaps of {kind or 'no distribution'} with {shape} and {scale}")
    at = start
    while True:
        at += draw.gammavariate(shape, scale) if kind == "Gamma" else draw.weibullvariate(scale, shape)
        if at >= end:
            return
        yield at


Draw = Callable[[random.Random], int]


def _lengths(dataset: Mapping[str, Mapping[str, str]]) -> dict[float, tuple[Draw, Draw]]:
    found = {}
    for start, table in dataset.items():
        prompts, outputs = (_pairs(table.get(name, "")) for name in ("input_tokens", "output_tokens"))
        if prompts and outputs:
            found[float(start)] = (_drawer(prompts), _drawer(outputs))
    if not found:
        raise ValueError("no probabilities of lengths")
    return found


def _pairs(text: str) -> list[tuple[int, float]]:
    return [(int(tokens), float(share)) for tokens, share in _PAIR.findall(str(text))]


def _drawer(pairs: list[tuple[int, float]]) -> Draw:
    values = [max(1, tokens) for tokens, _ in pairs]
    summed = list(accumulate(share for _, share in pairs))
    return lambda draw: draw.choices(values, cum_weights=summed)[0]
