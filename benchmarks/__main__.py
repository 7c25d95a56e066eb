"""Runs every benchmark, each in a process of its own, and prints one line of result against its target."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One measured ratio or time and what it should be."""

    name: str
    value: float
    unit: str
    target: float

    @property
    def met(self) -> bool:
        return self.value <= self.target


MODULES = (
    "benchmarks.bench_capture",
    "benchmarks.bench_cluster",
    "benchmarks.bench_startup",
    "benchmarks.bench_numerics",
    "benchmarks.bench_endpoint",
    "benchmarks.bench_serving",
    "benchmarks.bench_validate",
    "benchmarks.bench_md",
)


def main() -> int:
    """Print all results; the exit status is 1 when a target is missed."""
    wanted = [name for name in MODULES if not sys.argv[1:] or any(a in name for a in sys.argv[1:])]
    missed = 0
    for module in wanted:
        done = subprocess.run([sys.executable, "-m", module], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(f"{module} failed with status {done.returncode}")
            missed += 1
            continue
        for raw in done.stdout.splitlines():
            if not raw.startswith("{"):
                continue
            line = Line(**json.loads(raw))
            mark = "ok  " if line.met else "MISS"
            missed += not line.met
            print(f"{mark} {line.name:<58} {line.value:9.3f} {line.unit:<10} target {line.target:g}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
