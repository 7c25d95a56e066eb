"""Megatron-core's own modules, recorded and built by recipe, stage by stage.

python -m tests.support.megatron_cases    the table of docs/recipes.md, recorded anew (two minutes)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.recipe_cases import CASES, Compared, exchanged, relative
from windtunnel.memory.replay import memory_result
from windtunnel.memory.workspace import hidden_bytes
from windtunnel.program import file as program_file
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.layout import EagerCode, Layout
from windtunnel.recipes.memory.training import stage_program
from windtunnel.recipes.training import Unit, training_program, training_step
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model import ModelSpec, Norm
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.timeline.schedule import Schedule, order
from windtunnel.validation.side_by_side import Totals, last_step, totals

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "train_megatron.py")
CARDS, SEQUENCE = 8, 2048


@dataclass(frozen=True, slots=True)
class MegatronCase:
    """A model of ``examples/train_megatron.py`` with few layers on eight H100."""

    title: str
    name: str
    layers: int
    tensor: int = 1
    pipeline: int = 1
    expert: int = 1

    @property
    def model(self) -> ModelSpec:
        """The same model; its norms are LayerNorm there."""
        if self.name == "deepseek-v2-lite":
            model = replace(CASES["titan-experts"].model, vocabulary=102400)
        else:
            model = shipped_model(self.name)
        return replace(model, layers=model.layers[: self.layers], norm=Norm.LAYER)

    @property
    def layout(self) -> Layout:
        """Two micro-batches, or one for each stage and rank more. Experts are split as the rest is, the default."""
        return Layout(
            cards=CARDS,
            global_batch=self.batch,
            sequence=SEQUENCE,
            tensor=self.tensor,
            pipeline=self.pipeline,
            expert=self.expert,
            expert_tensor=self.tensor if self.expert > 1 else 1,
            overlap_grad_reduce=False,
            overlap_param_gather=False,
            fused=False,
            eager=EagerCode.MEGATRON,
        )

    @property
    def batch(self) -> int:
        """Sequences of a step."""
        return CARDS * 2

    @property
    def options(self) -> tuple[str, ...]:
        """Of the example."""
        degrees = {"tensor-model": self.tensor, "pipeline-model": self.pipeline, "expert-model": self.expert}
        words = [f"--{name}-parallel-size={degree}" for name, degree in degrees.items()]
        sizes = f"--num-layers={self.layers} --seq-length={SEQUENCE} --global-batch-size={self.batch} --train-iters=2"
        shared = ("--sequence-parallel",) if self.tensor > 1 else ()
        return (f"--model={self.name}", *words, *sizes.split(), *shared, "--use-distributed-optimizer")


MEGATRON_CASES = {
    "dense": MegatronCase("Llama-3 8B, 8 layers, TP 2, PP 2", "llama3-8b", 8, tensor=2, pipeline=2),
    "latent": MegatronCase("DeepSeek-V2-Lite, 4 layers, EP 4", "deepseek-v2-lite", 4, expert=4),
    "latent-tensor": MegatronCase("the same, TP 2, EP 2", "deepseek-v2-lite", 4, tensor=2, expert=2),
    "latent-stages": MegatronCase("the same, PP 2, EP 2", "deepseek-v2-lite", 4, pipeline=2, expert=2),
}


def compare_stages(case: MegatronCase, folder: Path) -> Iterator[Compared]:
    """Record a case in ``folder`` and build each of its stages."""
    done = subprocess.run(
        (sys.executable, "-W", "ignore", "-m", "windtunnel", "run", "--on", f"h100-sxm:{CARDS}", "--json",
         "--out", "out.wt", EXAMPLE, *case.options),
        cwd=folder, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    layout, card = case.layout, chip("h100-sxm")
    recipe = training_step(case.model, layout)
    plan = order(Schedule.ONE_F_ONE_B, layout.pipeline, layout.micro_batches)
    for stage in range(layout.pipeline):
        rank = f".rank{stage * layout.stage_ranks}" if stage else ""
        program = program_file.load(str(folder / f"out{rank}.wt"))
        units = [Unit(Part(str(c.kind)), c.micro_batch, c.virtual) for c in plan.stages[stage]]
        ours = memory_result(stage_program(case.model, layout, 8, stage), card)
        theirs, workspace = memory_result(program, card), hidden_bytes(program, card)
        yield Compared(
            totals(training_program(recipe, stage, units)),
            totals(program, last_step(program)),
            (ours.peak_active_bytes.value, theirs.peak_active_bytes.value - workspace),
            (ours.peak_reserved_bytes.value, theirs.peak_reserved_bytes.value - workspace),
        )


def differences_of(found: Compared) -> dict[str, float]:
    """Recipe over recording, less one, of what the table shows. Experts' products are grouped or not: one kind."""

    def moved(of: Totals, pointwise: bool) -> float:
        return sum(
            nbytes for (_, kind), nbytes in of.bytes_moved.items() if (kind == "pointwise") is pointwise
        )

    built, recorded = found.built, found.recorded
    return {
        "FLOPs": relative(sum(built.flops.values()), sum(recorded.flops.values())),
        "bytes, products": relative(moved(built, False), moved(recorded, False)),
        "bytes, the rest": relative(moved(built, True), moved(recorded, True)),
        "exchanged": relative(exchanged(built), exchanged(recorded)),
        "allocated": relative(*found.allocated_bytes),
        "reserved": relative(*found.reserved_bytes),
    }


def main() -> int:
    """Print the table."""
    for case in MEGATRON_CASES.values():
        with tempfile.TemporaryDirectory() as folder:
            for stage, found in enumerate(compare_stages(case, Path(folder))):
                cells = [
                    f"{100 * value:+.1f} %".replace("-0.0", "+0.0")
                    for value in differences_of(found).values()
                ]
                title = f"{case.title}, stage {stage}" if case.pipeline > 1 else case.title
                print(f"| {title} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
