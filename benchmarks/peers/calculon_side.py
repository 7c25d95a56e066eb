"""The job in Calculon's terms. Runs with a Python that can import it: ``python calculon_side.py JOB.json CHECKOUT``."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def main(job: dict[str, Any], checkout: Path) -> dict[str, object]:
    """Its own A100 system file; data-parallel exchange is not overlapped, as in its validation files."""
    sys.path.insert(0, str(checkout))
    import calculon
    from calculon.llm import Llm

    started = time.process_time()
    replicas = job["cards"] // job["tensor"] // job["pipeline"]
    application = Llm.Application(
        {
            "hidden": job["hidden"],
            "feedforward": job["ffn"],
            "seq_size": job["sequence"],
            "attn_heads": job["heads"],
            "attn_size": job["hidden"] // job["heads"],
            "num_blocks": job["layers"],
        }
    )
    execution = Llm.Execution.from_json(
        {
            "num_procs": job["cards"],
            "tensor_par": job["tensor"],
            "pipeline_par": job["pipeline"],
            "data_par": replicas,
            "tensor_par_net": 0,
            "pipeline_par_net": 1,
            "data_par_net": 1,
            "batch_size": job["global_batch"],
            "microbatch_size": 1,
            "datatype": "float16",
            "fused_activation": False,
            "attention_type": "multihead",
            "activation_recompute": "full",
            "pipeline_interleaving": 1,
            "optimizer_sharding": replicas > 1,
            "tensor_par_comm_type": "rs_ag",
            "tensor_par_overlap": "none",
            "seq_par_ag_redo": False,
            "data_par_overlap": False,
            "weight_offload": False,
            "activations_offload": False,
            "optimizer_offload": False,
            "training": True,
        }
    )
    system = calculon.System(json.loads((checkout / "systems" / "a100_80g.json").read_text()))
    model = Llm(application, logging.getLogger())
    model.compile(system, execution)
    model.run(system)
    return {
        "step_s": model.get_total_time(),
        "start_s": started,
        "answer_s": time.process_time() - started,
        "note": "dense GPT only",
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))))
