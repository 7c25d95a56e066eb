"""Measured collectives as points, from the tables of a measurements folder; link figures are the catalogue's."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from windtunnel.network.collective import Collective, bus_factor
from windtunnel.network.engine import Engine, Shot, shot_of
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.nccl import IN_SWITCH_MIN_RANKS
from windtunnel.network.topology import GroupShape
from windtunnel.specs.catalogue import chip as catalogued
from windtunnel.validation.aliases import chip_name

KINDS = {
    "all_reduce": Collective.ALL_REDUCE,
    "all_gather": Collective.ALL_GATHER,
    "reduce_scatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALL_TO_ALL,
    "all_to_all": Collective.ALL_TO_ALL,
    "all2all": Collective.ALL_TO_ALL,
    "send_recv": Collective.SEND,
}
_TRAFFIC = ExpertTraffic(tokens=0, token_bytes=0, top_k=1)


@dataclass(frozen=True, slots=True)
class Point:
    """One measured collective; ``in_switch``: whether switches may reduce; ``weight``: in a fit."""

    chip: str
    kind: Collective
    bytes: float
    shape: GroupShape
    seconds: float
    nic: float = 50e9
    traffic: ExpertTraffic = _TRAFFIC
    in_switch: bool = True
    weight: float = 1.0

    @property
    def ranks(self) -> int:
        """Size of the group."""
        return self.shape.ranks

    @property
    def link(self) -> float:
        """Bytes a second of a card's scale-up links, one direction."""
        return catalogued(self.chip).link_bytes_per_s.value

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability of the card."""
        return catalogued(self.chip).compute_capability


@dataclass(frozen=True, slots=True)
class EnginePoint(Point):
    """An engine's own all-reduce."""

    engine: Engine = Engine.VLLM


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def system_chip(spelling: str) -> str:
    """The catalogue's name of a table's system. Raises KeyError for one it does not have."""
    name = chip_name(spelling)
    if name is None:
        raise KeyError(spelling)
    return name


def switch_points(folder: Path) -> list[Point]:
    """NCCL inside one switch domain: aiconfigurator's newest NCCL, Vidur's send/recv, asymptotes, SimuMax's lines."""
    points = [p for version, p in _nccl_points(folder) if version != _OLD_RELEASE]
    for row in rows(folder / "collective_vidur_nccl.csv"):
        if row["collective"] != "send_recv" or row["devices_per_node"] != "2" or "pairwise" in row["system"]:
            continue
        size, seconds = float(row["message_bytes"]), float(row["median_seconds"])
        points.append(Point(system_chip(row["system"]), Collective.SEND, size, GroupShape(2, 1, 2), seconds))
    published = _published_points(folder / "collective_nccl_published.csv")
    return points + [p for p in published if p.bytes >= SETTLED_BYTES] + _line_points(folder)


def other_switch_points(folder: Path) -> list[Point]:
    """What no fit saw: another release of NCCL, and nccl-tests below the sizes where every release is alike."""
    published = _published_points(folder / "collective_nccl_published.csv")
    old = [p for version, p in _nccl_points(folder) if version == _OLD_RELEASE]
    return old + [p for p in published if p.bytes < SETTLED_BYTES]


_OLD_RELEASE = "2.23"
"""On H100, without all-reduce and with other paths for small messages: one release per chip is fitted."""
SETTLED_BYTES = 64 << 20
"""From here on NCCL of any age comes to the same rate."""


def _nccl_points(folder: Path) -> Iterator[tuple[str, Point]]:
    for row in rows(folder / "collective_aiconfigurator_nccl.csv"):
        n, seconds = int(row["num_gpus"]), float(row["latency_seconds"])
        shape, size = GroupShape(n, 1, n), float(row["message_bytes"])
        chip = system_chip(row["gpu_system"])
        yield row["nccl_version"], Point(chip, KINDS[row["collective"]], size, shape, seconds)


def _published_points(path: Path) -> list[Point]:
    """nccl-tests and the vendor's asymptotes, on one node."""
    asymptote = 16.0 * (1 << 30)  # the slides say "large"
    points = []
    for row in rows(path):
        if row["inter_node_network"] != "none" or "custom" in row["algorithm"]:
            continue
        kind, n, size = (
            KINDS[row["collective"]],
            int(row["num_gpus"]),
            float(row["message_bytes"] or asymptote),
        )
        seconds = bus_factor(kind, n) * size / (float(row["bus_bandwidth_gb_per_s"]) * 1e9)
        in_switch = row["algorithm"] != "without SHARP" and n >= IN_SWITCH_MIN_RANKS
        chip = system_chip(row["gpu"].split()[0])
        points.append(Point(chip, kind, size, GroupShape(n, 1, n), seconds, in_switch=in_switch))
    return points


_LINE_SIZES = tuple(1 << power for power in range(26, 31))
_LINE_WEIGHT = 0.4  # five points from two numbers


def _line_points(folder: Path) -> list[Point]:
    """SimuMax's lines through nccl-tests of 1 MiB to 1 GiB on eight B200, read where the large sizes rule them."""
    points = []
    for row in rows(folder / "simumax_network.csv"):
        chip = chip_name(row["system"].split("_")[0])
        if (
            chip is None
            or "template" in row["system"]
            or row["net"] != "high_intra_node"
            or row["op"] not in KINDS
        ):
            continue
        kind, n = KINDS[row["op"]], catalogued(chip).cards_per_node
        rounds = float(row["scale"])
        rate = float(row["net_gbps"]) * float(row["efficiency"]) * (1 << 30)
        start_s = float(row["latency_us"]) * 1e-6 * rounds * (n - 1)
        for size in _LINE_SIZES:
            seconds = start_s + rounds * (n - 1) / n * size / rate
            points.append(Point(chip, kind, float(size), GroupShape(n, 1, n), seconds, weight=_LINE_WEIGHT))
    return points


def _engine_rows(folder: Path) -> Iterator[tuple[EnginePoint, bool]]:
    """Points and whether they were called without a graph."""
    for row in rows(folder / "collective_aiconfigurator_custom_allreduce.csv"):
        n = int(row["num_gpus"])
        point = EnginePoint(
            system_chip(row["gpu_system"]),
            Collective.ALL_REDUCE,
            float(row["message_bytes"]),
            GroupShape(n, 1, n),
            float(row["latency_seconds"]),
            engine=Engine(row["library"]),
        )
        yield point, "eager" in row["kernel_source"]


def engine_points(folder: Path) -> list[EnginePoint]:
    """The inference engines' own all-reduce under CUDA graphs, as far as they use it (beyond, they call NCCL)."""
    return [
        point
        for point, eager in _engine_rows(folder)
        if not eager and shot_of(point.engine, point.bytes, point.ranks, point.capability) is not Shot.LIBRARY
    ]


_HOST_BOUND_BYTES = 1 << 22
"""Below, the host's time of a call hides what the card does."""


def engine_call_s(folder: Path) -> tuple[dict[Engine, dict[int, float]], float]:
    """Medians of calls without a graph, by engine and capability, and those of vLLM on symmetric memory."""
    own: dict[Engine, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    symmetric = []
    for point, eager in _engine_rows(folder):
        if not eager or point.bytes >= _HOST_BOUND_BYTES:
            continue
        shot = shot_of(point.engine, point.bytes, point.ranks, point.capability)
        if shot is Shot.SYMMETRIC:
            symmetric.append(point.seconds)
        elif shot is not Shot.LIBRARY:
            own[point.engine][point.capability[0]].append(point.seconds)
    calls = {engine: {g: median(found) for g, found in by.items()} for engine, by in own.items()}
    return calls, median(symmetric)


_MCCL = {
    "allreduce": Collective.ALL_REDUCE,
    "broadcast": Collective.BROADCAST,
    "reduce": Collective.REDUCE,
    "gather": Collective.GATHER,
    "scatter": Collective.SCATTER,
}
_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


def _size(text: str) -> float:
    for unit, scale in _UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * scale
    raise ValueError(text)


def mesh_points(folder: Path) -> list[Point]:
    """MTT S5000: MCCL bus bandwidths and pair copies. Peer-to-peer switched off is another machine."""
    points = []
    for row in rows(folder / "s5000_measured.csv"):
        fields = list(row.values())
        device, library, what, size_text, value, unit = fields[:6]
        if unit != "GB/s" or "P2P off" in what:
            continue
        if library == "mccl":
            kind = _MCCL[what.split()[0]]
            n = int(device.split()[-1].removesuffix("x"))
        elif library == "p2p" and what.startswith("unidirectional"):
            kind, n = Collective.COPY, 2
        else:
            continue
        size = _size(size_text)
        seconds = bus_factor(kind, n) * size / (float(value) * 1e9)
        points.append(Point("mtt-s5000", kind, size, GroupShape(n, 1, n), seconds))
    return points


def fabric_points(folder: Path) -> list[Point]:
    """Between nodes, 400 Gb/s class and DGX A100: stated networks only.

    Vidur's A100 boxes are left out: their network is not stated and reaches 8 GB/s per card.
    """
    points = []
    for row in rows(folder / "collective_vidur_nccl.csv"):
        if row["system"] != "h100_dgx" or row["devices_per_node"] != "1":
            continue
        size, seconds = float(row["message_bytes"]), float(row["median_seconds"])
        points.append(Point("h100-sxm", Collective.SEND, size, GroupShape(2, 2, 1), seconds))
    for row in rows(folder / "collective_nccl_published.csv"):
        if "InfiniBand" not in row["inter_node_network"] or row["algorithm"] != "default":
            continue
        kind, n = KINDS[row["collective"]], int(row["num_gpus"])
        per_node = int(row["gpus_per_node"])
        nic = 25e9 if "200 Gb/s" in row["inter_node_network"] else 50e9
        size = 8.0 * (1 << 30)  # the slides state the asymptote only
        seconds = bus_factor(kind, n) * size / (float(row["bus_bandwidth_gb_per_s"]) * 1e9)
        shape = GroupShape(n, n // per_node, per_node)
        points.append(Point("a100-80g", kind, size, shape, seconds, nic))
    return points
