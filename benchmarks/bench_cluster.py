"""How long a cluster's step takes to simulate: Llama-3 70B, PP 8, TP 8, 64 micro-batches, on 1,024 and 10,240 S5000.

One program per pipeline stage, written by the recipe, is priced and replayed with the others as recorded ranks are:
what `windtunnel run FILE.wt` does after loading, less the memory replay, which does not depend on the cards.
"""

from __future__ import annotations

import json
import resource
import time

from windtunnel.memory.replay import memory_result
from windtunnel.network.model import NetworkModel
from windtunnel.program.program import Program
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layout import Layout
from windtunnel.recipes.stages import model_chunks
from windtunnel.recipes.training import TrainingRecipe, Unit, training_program
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of
from windtunnel.timeline.cluster_predict import predict_cluster
from windtunnel.timeline.schedule import Schedule, order
from windtunnel.timeline.symmetry import stands_for

STAGES, MICRO_BATCHES = 8, 64


def stage_programs(cards: int) -> list[Program]:
    layout = Layout(
        cards=cards,
        tensor=8,
        pipeline=STAGES,
        global_batch=MICRO_BATCHES * cards // (8 * STAGES),
        sequence=4096,
    )
    model = architecture_of(shipped_model("llama3-70b"))
    recipe = TrainingRecipe(model, layout, model_chunks(model, layout))
    plan = order(Schedule.ONE_F_ONE_B, STAGES, MICRO_BATCHES)
    return [
        training_program(
            recipe, stage, [Unit(Part(c.kind), c.micro_batch, c.virtual) for c in plan.stages[stage]]
        )
        for stage in range(STAGES)
    ]


def main() -> None:
    for cards, target_s in ((1024, 2.0), (10_240, 10.0)):
        programs = stage_programs(cards)
        cluster = cluster_of("mtt-s5000", cards)
        memory = memory_result(programs[0], cluster.chip)
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            who = stands_for([program.origin.rank for program in programs], cards)
            result = predict_cluster(
                programs, cluster.chip, NetworkModel(cluster), stands_for=who, memory=memory
            )
            best = min(best, time.process_time() - begin)
        assert len(result.ranks) == STAGES
        name = f"{cards:,} cards, PP 8 TP 8, simulated"
        print(json.dumps({"name": name, "value": best, "unit": "s", "target": target_s}))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"name": "  memory of that process", "value": peak_gb, "unit": "GB", "target": 2.0}))


if __name__ == "__main__":
    main()
