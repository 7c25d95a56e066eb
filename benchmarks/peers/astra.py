"""One replica of the job given to ASTRA-sim's analytical backend (congestion-unaware), as traces of every rank.

Its network: two tiers, eight cards at the switch of a node, nodes at another; latencies are its HGX example's.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path

from benchmarks.peers import chakra
from benchmarks.peers.job import Answer, Job
from benchmarks.peers.ours import recipe_of
from benchmarks.peers.process import run
from windtunnel.network.model import NetworkModel
from windtunnel.planner.training import TrainingPredictor
from windtunnel.specs.targets import cluster_of

BINARY = "build/astra_analytical/build/bin/AstraSim_Analytical_Congestion_Unaware"
LATENCY_NS = 936.25


def network_file(job: Job, folder: Path) -> Path:
    """Both tiers as switches."""
    path = folder / "network.yml"
    inside, between = job.inside_bytes_per_s / 1e9, job.between_bytes_per_s / 1e9
    path.write_text(
        f"topology: [ Switch, Switch ]\nnpus_count: [ 8, {job.cards // 8} ]\n"
        f"bandwidth: [ {inside}, {between} ]\nlatency: [ {LATENCY_NS}, {LATENCY_NS} ]\n"
    )
    return path


def system_file(folder: Path) -> Path:
    """Rings in one chunk a collective; compute times as the traces have them."""
    path = folder / "system.json"
    rings = {
        f"{kind}-implementation": ["ring", "ring"]
        for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    }
    path.write_text(
        json.dumps(
            {
                "scheduling-policy": "LIFO",
                "endpoint-delay": 10,
                "active-chunks-per-dimension": 1,
                "preferred-dataset-splits": 1,
                **rings,
                "collective-optimization": "localBWAware",
                "local-mem-bw": 2039,
                "boost-mode": 0,
                "roofline-enabled": 0,
                "peak-perf": 312,
            }
        )
    )
    return path


def ask(job: Job, checkout: Path, version: str, limit_s: float) -> Answer:
    """Write the traces, run it. Raises RuntimeError where it fails, beyond ``limit_s`` too."""
    begin = time.process_time()
    cluster = cluster_of(job.chip, job.cards)
    predictor = TrainingPredictor(cluster.chip, NetworkModel(cluster))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        groups = chakra.write(recipe_of(job), predictor, folder)
        (folder / "groups.json").write_text(json.dumps({str(key): ranks for key, ranks in groups.items()}))
        (folder / "memory.json").write_text('{"memory-type": "NO_MEMORY_EXPANSION"}')
        prepared = time.process_time() - begin
        ran = run(
            [
                str(checkout / BINARY),
                f"--workload-configuration={folder / 'step'}",
                f"--comm-group-configuration={folder / 'groups.json'}",
                f"--system-configuration={system_file(folder)}",
                f"--remote-memory-configuration={folder / 'memory.json'}",
                f"--network-configuration={network_file(job, folder)}",
            ],
            folder,
            limit_s,
        )
    cycles = [int(word) for word in re.findall(r"finished, (\d+) cycles", ran.stdout)]
    if len(cycles) != job.cards:
        raise RuntimeError(f"{len(cycles)} of {job.cards} ranks finished: {ran.stdout[-300:]}")
    return Answer(
        "ASTRA-sim, analytical",
        version,
        step_s=max(cycles) / 1e9,
        start_s=0.0,
        prepare_s=prepared,
        answer_s=ran.processor_s,
        peak_gb=ran.peak_gb,
        note=f"one replica: {job.cards} cards; compute times are ours",
    )
