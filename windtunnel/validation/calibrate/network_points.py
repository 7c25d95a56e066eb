"""Measured collectives as points, from the tables of a measurements folder; link figures from data sheets."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from windtunnel.network.collective import Collective, bus_factor
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.switch import custom_limit_bytes
from windtunnel.network.topology import GroupShape

LINK_BYTES_PER_S = {
    "a100-80g": 300e9,
    "h100-sxm": 450e9,
    "h800": 200e9,
    "h200": 450e9,
    "b200": 900e9,
    "b300": 900e9,
    "gb200": 900e9,
    "mtt-s5000": 392e9,
}
GENERATIONS = {"a100-80g": 0, "h100-sxm": 9, "h800": 9, "h200": 9, "b200": 10, "b300": 10, "gb200": 10}
SYSTEMS = {
    "a100_sxm": "a100-80g",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "gb200": "gb200",
    "h100_dgx": "h100-sxm",
    "a100_dgx": "a100-80g",
    "H800": "h800",
}
"""Spellings of the tables; systems left out have no scale-up switch."""

KINDS = {
    "all_reduce": Collective.ALL_REDUCE,
    "all_gather": Collective.ALL_GATHER,
    "reduce_scatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALL_TO_ALL,
    "all_to_all": Collective.ALL_TO_ALL,
    "send_recv": Collective.SEND,
}
_TRAFFIC = ExpertTraffic(tokens=0, token_bytes=0, top_k=1)


@dataclass(frozen=True, slots=True)
class Point:
    """One measured collective."""

    chip: str
    kind: Collective
    bytes: float
    shape: GroupShape
    seconds: float
    link: float
    nic: float = 50e9
    traffic: ExpertTraffic = _TRAFFIC

    @property
    def ranks(self) -> int:
        """Size of the group."""
        return self.shape.ranks


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def switch_points(folder: Path) -> list[Point]:
    """NCCL inside one switch domain: aiconfigurator's newest NCCL, Vidur's send/recv."""
    points = []
    for row in rows(folder / "collective_aiconfigurator_nccl.csv"):
        chip = SYSTEMS.get(row["gpu_system"])
        # NCCL 2.23 on H100 lacks all-reduce and differs in its small-message paths: one version per chip
        if chip is None or row["nccl_version"] == "2.23":
            continue
        n = int(row["num_gpus"])
        points.append(
            Point(
                chip,
                KINDS[row["collective"]],
                float(row["message_bytes"]),
                GroupShape(n, 1, n),
                float(row["latency_seconds"]),
                LINK_BYTES_PER_S[chip],
            )
        )
    path = folder / "collective_vidur_nccl.csv"
    for row in rows(path) if path.exists() else ():
        if row["collective"] != "send_recv" or row["devices_per_node"] != "2":
            continue
        if (chip := SYSTEMS.get(row["system"])) is None:
            continue
        shape = GroupShape(2, 1, 2)
        size, seconds = float(row["message_bytes"]), float(row["median_seconds"])
        points.append(Point(chip, Collective.SEND, size, shape, seconds, LINK_BYTES_PER_S[chip]))
    return points + _published_large(folder / "collective_nccl_published.csv")


def _published_large(path: Path) -> list[Point]:
    """nccl-tests from 64 MiB and the vendor's asymptotes, on one node: what NCCL of any age settles at."""
    asymptote = 16.0 * (1 << 30)  # the slides say "large"
    points = []
    for row in rows(path) if path.exists() else ():
        chip = {"A100": "a100-80g", "H100": "h100-sxm", "B200": "b200"}.get(row["gpu"].split()[0])
        size = float(row["message_bytes"] or asymptote)
        one_node = row["inter_node_network"] == "none"
        if chip is None or not one_node or size < 64 << 20 or row["algorithm"] == "without SHARP":
            continue
        kind, n = KINDS[row["collective"]], int(row["num_gpus"])
        seconds = bus_factor(kind, n) * size / (float(row["bus_bandwidth_gb_per_s"]) * 1e9)
        points.append(Point(chip, kind, size, GroupShape(n, 1, n), seconds, LINK_BYTES_PER_S[chip]))
    return points


def custom_points(folder: Path) -> list[Point]:
    """The inference engines' own all-reduce under CUDA graphs, as far as they use it (beyond, they call NCCL)."""
    points = []
    for row in rows(folder / "collective_aiconfigurator_custom_allreduce.csv"):
        chip = SYSTEMS.get(row["gpu_system"])
        size = float(row["message_bytes"])
        if chip is None or "eager" in row["kernel_source"] or size > custom_limit_bytes(GENERATIONS[chip]):
            continue
        # TensorRT-LLM goes over to NCCL early, vLLM on A100 below the limit
        early = {"trtllm": 1 << 20, "vllm": 4 << 20}.get(row["library"], size)
        if size > early and (chip == "a100-80g" or row["library"] == "trtllm"):
            continue
        n = int(row["num_gpus"])
        shape = GroupShape(n, 1, n)
        seconds = float(row["latency_seconds"])
        points.append(Point(chip, Collective.ALL_REDUCE, size, shape, seconds, LINK_BYTES_PER_S[chip]))
    return points


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
        points.append(
            Point("mtt-s5000", kind, size, GroupShape(n, 1, n), seconds, LINK_BYTES_PER_S["mtt-s5000"])
        )
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
        points.append(Point("h100-sxm", Collective.SEND, size, GroupShape(2, 2, 1), seconds, 450e9))
    for row in rows(folder / "collective_nccl_published.csv"):
        if "InfiniBand" not in row["inter_node_network"] or row["algorithm"] != "default":
            continue
        kind, n = KINDS[row["collective"]], int(row["num_gpus"])
        per_node = int(row["gpus_per_node"])
        nic = 25e9 if "200 Gb/s" in row["inter_node_network"] else 50e9
        size = 8.0 * (1 << 30)  # the slides state the asymptote only
        seconds = bus_factor(kind, n) * size / (float(row["bus_bandwidth_gb_per_s"]) * 1e9)
        shape = GroupShape(n, n // per_node, per_node)
        points.append(Point("a100-80g", kind, size, shape, seconds, 300e9, nic))
    return points


def deepep_points(folder: Path) -> list[Point]:
    """DeepEP on one node (aiconfigurator, H100) and over InfiniBand (the author's table, newest revision)."""
    points = []
    for row in rows(folder / "collective_aiconfigurator_deepep.csv"):
        chip = SYSTEMS[row["gpu_system"]]
        tokens, hidden = float(row["tokens_per_rank"]), float(row["hidden_size"])
        for what, width in (("dispatch", 1.0), ("combine", 2.0)):
            traffic = ExpertTraffic(
                tokens=tokens,
                token_bytes=hidden * width,
                top_k=int(float(row["topk"])),
                low_latency=row["mode"] == "low_latency",
                sms=int(float(row["num_sms"] or 0)),
            )
            points.append(
                Point(
                    chip,
                    Collective(what),
                    tokens * hidden * width,
                    GroupShape(8, 1, 8),
                    float(row[f"{what}_seconds"]),
                    LINK_BYTES_PER_S[chip],
                    traffic=traffic,
                )
            )
    points += _published_deepep(folder)
    return points


def one_sided_points(folder: Path) -> list[Point]:
    """TensorRT-LLM's exchange on GB200."""
    points = []
    for row in rows(folder / "collective_trtllm_gb200_alltoall.csv"):
        n, width = int(row["num_gpus"]), float(row["bytes_per_token"])
        traffic = ExpertTraffic(
            tokens=float(row["tokens_per_gpu"]), token_bytes=width, top_k=int(row["top_k"]), one_sided=True
        )
        size, kind = traffic.tokens * width, Collective(row["operation"])
        seconds = float(row["latency_seconds"])
        shape = GroupShape(n, 1, n)
        points.append(Point("gb200", kind, size, shape, seconds, LINK_BYTES_PER_S["gb200"], traffic=traffic))
    return points


def _published_deepep(folder: Path) -> list[Point]:
    newest = {"normal": "1a0c8f6", "low_latency": "de8cfca"}
    points = []
    for row in rows(folder / "collective_deepep.csv"):
        mode, n = row["kernel_mode"], int(row["ep_size"])
        if row["source_commit"] != newest.get(mode) or n < 16:
            continue
        nodes = n // 8
        width = 1.0 if row["op"] == "dispatch" else 2.0
        tokens, hidden, top_k = float(row["tokens_per_rank"]), float(row["hidden_size"]), int(row["topk"])
        low_latency = mode == "low_latency"
        # the author's bandwidth counts every copy, the local node's included; top-4 groups of 8 experts
        copies = top_k if low_latency else min(nodes, 4)
        rate = float(row["bottleneck_gb_per_s"]) * 1e9
        seconds = float(row["latency_seconds"] or tokens * hidden * width * copies / rate)
        traffic = ExpertTraffic(
            tokens=tokens,
            token_bytes=hidden * width,
            top_k=top_k,
            node_limit=4,
            low_latency=low_latency,
        )
        shape = GroupShape(n, nodes, 8)
        size = tokens * hidden * width
        points += [Point("h800", Collective(row["op"]), size, shape, seconds, 200e9, traffic=traffic)] * 20
    return points
