"""DeepEP's exchange between nodes, measured alone, beside its price: `python -m benchmarks.wide_ep_exchange`.

``wide_ep_exchange.csv``: H100 in nodes of eight, tokens of 7,168, 256 experts, 8 a token, from ai-dynamo/aiconfigurator
(Apache-2.0), ``systems/data/h100_sxm/comm/sglang/0.5.6.post2``; transmission and notification together. Nothing is
fitted to it: what is fitted are one node of H100 and DeepEP's own tables of H800.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from windtunnel.network.collective import Collective
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.model import NetworkModel
from windtunnel.specs.targets import cluster_of

FILE = Path(__file__).with_suffix(".csv")
CHIP, PER_NODE, HIDDEN, TOP_K, EXPERTS = "h100-sxm", 8, 7168, 8, 256
WIDTH = {Collective.DISPATCH: 1, Collective.COMBINE: 2}
"""Bytes of an element: 8 bits out, 16 back."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One dispatch or combine. ``multiprocessors``: that DeepEP was given; 0 in low-latency mode."""

    mode: str
    kind: Collective
    nodes: int
    multiprocessors: int
    tokens: int
    measured_s: float


def read(file: Path = FILE) -> tuple[Exchange, ...]:
    """All exchanges, dispatch and combine of a line one after the other."""
    with file.open(newline="", encoding="utf-8") as lines:
        return tuple(
            Exchange(
                row["mode"],
                kind,
                int(row["nodes"]),
                int(row["multiprocessors"] or 0),
                int(row["tokens"]),
                float(row[f"{kind.name.lower()}_us"]) * 1e-6,
            )
            for row in csv.DictReader(lines)
            for kind in WIDTH
        )


def predicted_s(one: Exchange) -> float:
    """Its price in seconds, experts drawn evenly."""
    ranks = one.nodes * PER_NODE
    traffic = ExpertTraffic(
        tokens=one.tokens, token_bytes=HIDDEN * WIDTH[one.kind], top_k=TOP_K, experts=EXPERTS,
        low_latency=one.mode == "low-latency", sms=one.multiprocessors,
    )  # fmt: skip
    network = NetworkModel(cluster_of(CHIP, ranks))
    return network.collective_time(one.kind, 0, tuple(range(ranks)), traffic=traffic).seconds


def main() -> None:
    """The table, as Markdown: microseconds and the error."""
    print("| mode | nodes | multiprocessors | tokens a card | dispatch | priced | combine | priced |")
    print("|---|---|---|---|---|---|---|---|")
    found = read()
    for out, back in zip(found[::2], found[1::2], strict=True):
        cells = [out.mode, f"{out.nodes}", f"{out.multiprocessors or ''}", f"{out.tokens:,}"]
        for one in (out, back):
            price = predicted_s(one)
            error = price / one.measured_s - 1
            cells += [f"{one.measured_s * 1e6:,.0f}", f"{price * 1e6:,.0f} ({error:+.0%})"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
