"""Measured dispatch and combine of mixtures of experts as points."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from windtunnel.network.collective import Collective
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.topology import GroupShape
from windtunnel.validation.calibrate.network_points import Point, rows, system_chip

NEWEST = {"normal": "1a0c8f6", "low_latency": "de8cfca"}


def deepep_points(folder: Path) -> list[Point]:
    """DeepEP on one node (aiconfigurator, H100) and over InfiniBand (the author's table, newest revision)."""
    points = []
    for row in rows(folder / "collective_aiconfigurator_deepep.csv"):
        chip = system_chip(row["gpu_system"])
        tokens, hidden = float(row["tokens_per_rank"]), float(row["hidden_size"])
        for what, width in (("dispatch", 1.0), ("combine", 2.0)):
            traffic = ExpertTraffic(
                tokens=tokens,
                token_bytes=hidden * width,
                top_k=int(float(row["topk"])),
                experts=int(float(row["num_experts"])),
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
        points.append(Point("gb200", kind, size, shape, seconds, traffic=traffic))
    return points


def early_points(folder: Path) -> list[Point]:
    """DeepEP's first releases over InfiniBand, once each."""
    return _published_deepep(folder, dict.fromkeys(("normal", "low_latency"), "e130cc6"), "2025-03-27", 1)


def _published_deepep(
    folder: Path, commits: Mapping[str, str] = NEWEST, as_of: str = "", times: int = 20
) -> list[Point]:
    points = []
    for row in rows(folder / "collective_deepep.csv"):
        mode, n = row["kernel_mode"], int(row["ep_size"])
        if row["source_commit"] != commits.get(mode) or n < 16:
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
            as_of=as_of,
        )
        shape = GroupShape(n, nodes, 8)
        size = tokens * hidden * width
        points += [Point("h800", Collective(row["op"]), size, shape, seconds, traffic=traffic)] * times
    return points
