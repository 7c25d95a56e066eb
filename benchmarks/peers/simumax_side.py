"""The job in SimuMax's terms: ``python simumax_side.py JOB.json CHECKOUT`` with a Python that has its requirements.

Its system files know the A100 on PCIe only: the products' measured efficiencies are that file's, the network is the
B200 file's, with the job's rates.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def system_file(job: dict[str, Any], checkout: Path, folder: Path) -> str:
    """The A100's products and memory, the B200's network at the job's rates."""
    systems = checkout / "configs" / "system"
    card = json.loads((systems / "a100_pcie.json").read_text())
    networks = json.loads((systems / "b200_bf16_ceperm.json").read_text())["networks"]
    for name, rate in (
        ("low_intra_node", job["inside_bytes_per_s"]),
        ("high_intra_node", job["inside_bytes_per_s"]),
        ("inter_node", card["num_per_node"] * job["between_bytes_per_s"]),  # of a node, which it shares out
    ):
        networks[name]["bandwidth"]["gbps"] = rate / 1e9
    card["networks"] = networks
    for memory in card["accelerator"]["bandwidth"].values():
        memory["gbps"] = 2039
    path = folder / "system.json"
    path.write_text(json.dumps(card))
    return str(path)


def strategy_file(job: dict[str, Any], checkout: Path, folder: Path) -> str:
    """Its own options for tensor parallelism, with the job's layout."""
    base = json.loads((checkout / "configs" / "strategy" / "tp8_pp1_dp1_mbs1.json").read_text())
    replicas = job["cards"] // job["tensor"] // job["pipeline"]
    layout = {
        "seq_len": job["sequence"],
        "micro_batch_num": job["global_batch"] // replicas,
        "world_size": job["cards"],
        "tp_size": job["tensor"],
        "pp_size": job["pipeline"],
        "enable_recompute": True,
        "recompute_granularity": "full_block",
        "recompute_layer_num": job["layers"] // job["pipeline"],
    }
    path = folder / "strategy.json"
    path.write_text(json.dumps({**base, **layout}))
    return str(path)


def main(job: dict[str, Any], checkout: Path) -> dict[str, object]:
    """Its analytical path."""
    sys.path.insert(0, str(checkout))
    from simumax.core.config import ModelConfig, StrategyConfig, SystemConfig
    from simumax.core.perf_llm import PerfLLM

    started = time.process_time()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        model = PerfLLM()
        model.configure(
            strategy_config=StrategyConfig.init_from_config_file(strategy_file(job, checkout, folder)),
            model_config=ModelConfig.init_from_config_file(
                str(checkout / "configs" / "models" / f"{job['model']}.json")
            ),
            system_config=SystemConfig.init_from_config_file(system_file(job, checkout, folder)),
        )
        model.run_estimate()
        cost = model.analysis_cost()
    value, unit = cost.data["duration_time_per_iter"].split()
    return {
        "step_s": float(value) * {"s": 1.0, "ms": 1e-3}[unit],
        "start_s": started,
        "answer_s": time.process_time() - started,
        "note": "A100 PCIe file's products, B200 file's network at the job's rates",
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))))
