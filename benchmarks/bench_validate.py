"""Processor seconds of ``windtunnel validate``: serving rows, and a whole folder where one is named.

``WINDTUNNEL_MEASUREMENTS`` names a folder that holds ``validation`` and ``calibration``. Their 430,000 rows have to be
predicted in five minutes on two processors, the calibration tables beside them included.
"""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROCESSORS = 2
MINUTES = 5.0
HEAD = ("row_id", "model", "gpu", "precision", "tensor_parallel", "pipeline_parallel", "phase", "framework")
CARDS = ("NVIDIA H100-SXM-80GB", "NVIDIA B200-SXM-180GB")
SCENARIOS = ("Offline", "Server", "Interactive")


def spent_s(*options: str) -> tuple[float, float]:
    """Processor and wall seconds of one run, workers included."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "windtunnel", "validate", *options]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


def say(name: str, value: float, target: float) -> None:
    print(json.dumps({"name": name, "value": value, "unit": "s", "target": target}))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "infer_mlperf.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerow(HEAD)
            for card in CARDS:
                for phase in SCENARIOS:
                    rows.writerow((f"{card} {phase}", "llama2-70b-99", card, "", "", "", phase, "TensorRT"))
        say("validate, 6 MLPerf rows, processor time", spent_s("--data", folder)[0], 15.0)
    measured = os.environ.get("WINDTUNNEL_MEASUREMENTS")
    if measured:
        used, wall = spent_s("--data", f"{measured}/validation", "--calibration", f"{measured}/calibration")
        say("validate, all measurements, processor time", used, PROCESSORS * MINUTES * 60)
        say(f"validate, all measurements, {os.cpu_count()} processors", wall, MINUTES * 60)


if __name__ == "__main__":
    main()
