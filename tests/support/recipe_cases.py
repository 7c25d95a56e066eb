"""Models of real structure that are recorded and built by recipe, side by side.

python -m tests.support.recipe_cases          the table of docs/recipes.md, recorded anew (some minutes)
python -m tests.support.recipe_cases NAME     every difference of one case, by part of the model
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from windtunnel.memory.replay import memory_result
from windtunnel.memory.workspace import blas_workspace_bytes
from windtunnel.program import file as program_file
from windtunnel.program.program import Program
from windtunnel.recipes.chunk import Part
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.recipes.layout import EagerCode, Layout, Recompute, Sharding
from windtunnel.recipes.memory.training import sharded_program, stage_program
from windtunnel.recipes.training import Unit, training_program, training_step
from windtunnel.results.run_result import MemoryResult
from windtunnel.specs.catalogue import chip
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_config import model_from_config
from windtunnel.timeline.schedule import Schedule, order
from windtunnel.units import MIB
from windtunnel.validation.side_by_side import Totals, differences, last_step, totals

SCRIPTS = Path(__file__).parents[1] / "integration" / "scripts"
CARD = "h100-sxm"
ADAM_BYTES = 8  # two FP32 numbers a parameter
SIZES = {"hidden_size": 2048, "intermediate_size": 5632, "vocab_size": 32000, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 4}
EXPERTS = {"moe_intermediate_size": 768, "num_experts_per_tok": 4}
LATENT = {"q_lora_rank": 768, "kv_lora_rank": 512, "num_attention_heads": 16, "num_key_value_heads": 16}
DEEPSEEK = SIZES | EXPERTS | LATENT | {"n_routed_experts": 32, "first_k_dense_replace": 1}
DELTA = {"linear_num_key_heads": 16, "linear_num_value_heads": 32, "head_dim": 128}
TOWER = {"depth": 4, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048}
TITAN_DEEPSEEK = SIZES | {
    "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "num_experts_per_tok": 6,
    "n_shared_experts": 2, "first_k_dense_replace": 1, "num_attention_heads": 16, "num_key_value_heads": 16,
    "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
}  # fmt: skip
TITAN_LLAMA = SIZES | HEADS | {"hidden_size": 4096, "intermediate_size": 14336}
TITAN_LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 8}
TITAN_QWEN = TITAN_LLAMA | {"intermediate_size": 12288, "head_dim": 128}
TITAN_QWEN_EXPERTS = SIZES | EXPERTS | {"num_experts": 128, "num_experts_per_tok": 8, "head_dim": 128}
TITAN_QWEN_EXPERTS |= {"num_attention_heads": 32, "num_key_value_heads": 4}


@dataclass(frozen=True, slots=True)
class Case:
    """One family: its configuration, how it is recorded on eight cards, and what the recipe is asked."""

    title: str
    family: str
    sizes: Mapping[str, Any]
    titan: str = ""
    options: tuple[str, ...] = ()
    recompute: Recompute = Recompute.NONE
    expert: int = 1
    tensor: int = 1
    context: int = 1
    pipeline: int = 1
    chunks: int = 1
    schedule: Schedule = Schedule.ONE_F_ONE_B
    patches: int = 0
    sequences: int = 2
    shards: int = 0
    sequence_parallel: bool = True

    @property
    def model(self) -> ModelSpec:
        """The model by its own configuration class."""
        from transformers import CONFIG_MAPPING

        return model_from_config(CONFIG_MAPPING[self.family](**self.sizes).to_dict())

    @property
    def layout(self) -> Layout:
        """On eight cards. A pipeline takes sequences one by one; its ends count as a layer each (TorchTitan)."""
        piped = self.pipeline > 1
        return Layout(
            cards=8,
            global_batch=self.sequences * 8 // (self.tensor * self.context * self.pipeline),
            micro_batch=1 if piped else self.sequences,
            tensor=self.tensor,
            sequence_parallel=self.sequence_parallel,
            context=self.context,
            pipeline=self.pipeline,
            chunks=self.chunks,
            schedule=self.schedule,
            first_layers_fewer=int(piped),
            last_layers_fewer=int(piped),
            sequence=2048 if self.titan else 1024,
            expert=self.expert,
            fsdp_shard=self.shards,
            sharding=Sharding.FSDP,
            fused=False,
            ends_apart=True,
            eager=EagerCode.TORCHTITAN if self.titan else EagerCode.TRANSFORMERS,
            recompute=self.recompute,
        )

    def built(self, stage: int) -> Program:
        """The step of one rank of a stage by recipe."""
        recipe = training_step(architecture_of(self.model, self.patches), self.layout)
        plan = order(self.schedule, self.pipeline, self.layout.micro_batches, self.chunks)
        units = [Unit(Part(str(one.kind)), one.micro_batch, one.virtual) for one in plan.stages[stage]]
        return training_program(recipe, stage, units)

    def memory(self, stage: int) -> MemoryResult:
        """What a card of a stage holds by recipe."""
        if self.pipeline == 1:
            program = sharded_program(self.model, self.layout, ADAM_BYTES, self.patches)
        else:
            program = stage_program(self.model, self.layout, ADAM_BYTES, stage)
        return memory_result(program, chip(CARD))

    def record(self, folder: Path) -> None:
        """Run unmodified code in ``folder``, which then holds one recording a stage."""
        if self.titan:
            run = (sys.executable, str(SCRIPTS / "torchtitan_assets.py"), str(folder))
            subprocess.run(run, check=True, timeout=60)
            (folder / "titan_configs.py").write_text((SCRIPTS / "titan_configs.py").read_text())
            words = ["-m", "torchtitan.train", "--module", "titan_configs", "--config", self.titan]
        else:
            words = [str(SCRIPTS / "sharded_transformers.py"), self.family, json.dumps(dict(self.sizes))]
        done = subprocess.run(
            (sys.executable, "-W", "ignore", "-m", "windtunnel", "run", "--on", f"{CARD}:8", "--json",
             "--out", "out.wt", *words, *self.options),
            cwd=folder, capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])

    def recorded(self, folder: Path, stage: int) -> Program:
        """The steps of the first rank of a stage."""
        name = f"out.rank{stage * self.layout.stage_ranks}.wt" if stage else "out.wt"
        return program_file.load(str(folder / name))


SCHEDULES = {
    Schedule.ONE_F_ONE_B: "1F1B",
    Schedule.INTERLEAVED: "Interleaved1F1B",
    Schedule.GPIPE: "GPipe",
}
"""PyTorch's names."""


def _llama(
    layout: str,
    *,
    tensor: int = 1,
    context: int = 1,
    pipeline: int = 1,
    chunks: int = 1,
    schedule: Schedule = Schedule.ONE_F_ONE_B,
    sequences: int = 2,
    recompute: Recompute = Recompute.NONE,
    options: tuple[str, ...] = (),
) -> Case:
    """TorchTitan's Llama under context parallelism or a pipeline."""
    settings = {
        "parallelism.tensor_parallel_degree": tensor,
        "parallelism.context_parallel_degree": context,
        "parallelism.pipeline_parallel_degree": pipeline,
        "parallelism.pipeline_parallel_schedule": SCHEDULES[schedule],
        "training.local_batch_size": sequences,
    }
    words = tuple(word for name, value in settings.items() for word in (f"--{name}", str(value)))
    titan = "llama3_8b_cut" if recompute is Recompute.NONE else "llama3_8b_cut_selective"
    return Case(
        f"Llama-3.1 8B, {layout}", "llama", TITAN_LLAMA, titan=titan, options=(*words, *options), context=context,
        tensor=tensor, pipeline=pipeline, chunks=chunks, schedule=schedule, sequences=sequences, recompute=recompute,
    )  # fmt: skip


def _deepseek(layout: str, expert: int, *options: str, **more: Any) -> Case:
    """TorchTitan's DeepSeek-V2-Lite with its experts over ``expert`` ranks."""
    degree = ("--parallelism.expert_parallel_degree", str(expert))
    return Case(
        f"DeepSeek-V2-Lite, EP {expert}, {layout}", "deepseek_v3", TITAN_DEEPSEEK, titan="deepseek_v3_16b_cut",
        options=(*degree, *options), expert=expert, **more,
    )  # fmt: skip


def tensor_parallel(title: str, ways: int, *options: str, titan: str = "llama3_8b_cut", **more: Any) -> Case:
    """TorchTitan's Llama over ``ways`` tensor-parallel ranks."""
    degree = ("--parallelism.tensor_parallel_degree", str(ways))
    return Case(title, "llama", TITAN_LLAMA, titan=titan, options=(*degree, *options), tensor=ways, **more)


CASES = {
    "dense": Case("Llama (transformers)", "llama", SIZES | HEADS),
    "dense-full": Case(
        "the same, recomputed", "llama", SIZES | HEADS, options=("full",), recompute=Recompute.FULL
    ),
    "experts": Case(
        "Qwen3-MoE (transformers, grouped products)",
        "qwen3_moe",
        SIZES | HEADS | EXPERTS | {"num_experts": 32, "head_dim": 128},
    ),
    "latent": Case("DeepSeek-V3 (transformers)", "deepseek_v3", DEEPSEEK | {"n_group": 4, "topk_group": 2}),
    "delta": Case("Qwen3.5 (transformers)", "qwen3_5_text", SIZES | HEADS | DELTA),
    "delta-experts": Case(
        "Qwen3.5-MoE (transformers)",
        "qwen3_5_moe_text",
        SIZES | HEADS | DELTA | EXPERTS | {"num_experts": 32, "shared_expert_intermediate_size": 768},
    ),
    "mixtral": Case("Mixtral (transformers)", "mixtral", SIZES | HEADS | {"num_local_experts": 8}),
    "biased": Case("Qwen2.5 (transformers)", "qwen2", SIZES | HEADS),
    "vision": Case(
        "Qwen3-VL (transformers), 1,024 patches a sequence",
        "qwen3_vl",
        {
            "text_config": SIZES | HEADS | {"vocab_size": 152000, "head_dim": 128},
            "vision_config": TOWER | {"deepstack_visual_indexes": [1, 2]},
        },
        patches=1024,
    ),
    "titan-dense": Case("Llama-3.1 8B, 4 layers (TorchTitan)", "llama", TITAN_LLAMA, titan="llama3_8b_cut"),
    "titan-experts": Case(
        "DeepSeek-V2-Lite, 4 layers (TorchTitan), EP 4",
        "deepseek_v3",
        TITAN_DEEPSEEK,
        titan="deepseek_v3_16b_cut",
        options=("--parallelism.expert_parallel_degree", "4"),
        expert=4,
    ),
    "titan-selective": Case(
        "Llama-3.1 8B, every second product kept",
        "llama",
        TITAN_LLAMA,
        titan="llama3_8b_cut_selective",
        recompute=Recompute.SELECTIVE_OPS,
    ),
    "titan-experts-selective": Case(
        "DeepSeek-V2-Lite, EP 4, every second product kept",
        "deepseek_v3",
        TITAN_DEEPSEEK,
        titan="deepseek_v3_16b_cut_selective",
        options=("--parallelism.expert_parallel_degree", "4"),
        expert=4,
        recompute=Recompute.SELECTIVE_OPS,
    ),
    "titan-tensor": tensor_parallel("Llama-3.1 8B, TP 2", 2),
    "titan-tensor-4": tensor_parallel("Llama-3.1 8B, TP 4", 4),
    "titan-tensor-one": tensor_parallel(
        "Llama-3.1 8B, TP 2, one sequence a card", 2, "--training.local_batch_size", "1", sequences=1
    ),
    "titan-tensor-whole": tensor_parallel(
        "Llama-3.1 8B, TP 2 without sequence parallelism",
        2,
        "--parallelism.no-enable-sequence-parallel",
        sequence_parallel=False,
    ),
    "titan-tensor-full": tensor_parallel(
        "Llama-3.1 8B, TP 2, recomputed", 2, titan="llama3_8b_cut_full", recompute=Recompute.FULL
    ),
    "titan-tensor-selective": tensor_parallel(
        "Llama-3.1 8B, TP 2, every second product kept",
        2,
        titan="llama3_8b_cut_selective",
        recompute=Recompute.SELECTIVE_OPS,
    ),
    "titan-tensor-replicas": tensor_parallel(
        "Llama-3.1 8B, TP 2, FSDP 2, two copies",
        2,
        "--parallelism.data_parallel_replicate_degree",
        "2",
        shards=2,
    ),
    "titan-experts-tensor": Case(
        "DeepSeek-V2-Lite, TP 2, EP 4",
        "deepseek_v3",
        TITAN_DEEPSEEK,
        titan="deepseek_v3_16b_cut",
        options=("--parallelism.tensor_parallel_degree", "2", "--parallelism.expert_parallel_degree", "4"),
        tensor=2,
        expert=4,
    ),
    "titan-qwen": Case("Qwen3 8B, 4 layers (TorchTitan)", "qwen3", TITAN_QWEN, titan="qwen3_8b_cut"),
    "titan-qwen-tensor": Case(
        "Qwen3 8B, TP 2",
        "qwen3",
        TITAN_QWEN,
        titan="qwen3_8b_cut",
        options=("--parallelism.tensor_parallel_degree", "2"),
        tensor=2,
    ),
    "titan-qwen-experts-tensor": Case(
        "Qwen3 30B-A3B, 4 layers, TP 2, EP 4",
        "qwen3_moe",
        TITAN_QWEN_EXPERTS,
        titan="qwen3_30b_cut",
        options=("--parallelism.tensor_parallel_degree", "2", "--parallelism.expert_parallel_degree", "4"),
        tensor=2,
        expert=4,
    ),
    "titan-context": _llama("CP 2", context=2),
    "titan-context-4": _llama("CP 4", context=4),
    "titan-pipeline": _llama("PP 2 (1F1B)", pipeline=2),
    "titan-pipeline-4": _llama("PP 4 (1F1B)", pipeline=4, sequences=4),
    "titan-interleaved": _llama(
        "PP 2 (Interleaved1F1B)", pipeline=2, chunks=2, schedule=Schedule.INTERLEAVED
    ),
    "titan-gpipe": _llama("PP 2 (GPipe)", pipeline=2, sequences=4, schedule=Schedule.GPIPE),
    "titan-tensor-context": _llama("TP 2, CP 2", tensor=2, context=2),
    "titan-tensor-pipeline": _llama("TP 2, PP 2 (1F1B)", tensor=2, pipeline=2),
    "titan-pipeline-context": _llama("PP 2 (1F1B), CP 2", pipeline=2, context=2),
    "titan-pipeline-selective": _llama(
        "PP 2 (1F1B), every second product kept", pipeline=2, recompute=Recompute.SELECTIVE_OPS
    ),
    "titan-context-selective": _llama(
        "CP 2, every second product kept", context=2, recompute=Recompute.SELECTIVE_OPS
    ),
    "titan-chunks": _llama(
        "PP 2, three chunks a stage",
        pipeline=2,
        chunks=3,
        schedule=Schedule.INTERLEAVED,
        options=("--parallelism.pipeline_parallel_layers_per_stage", "1"),
    ),
    "titan-experts-pipeline": _deepseek(
        "PP 2 (1F1B)",
        4,
        "--parallelism.pipeline_parallel_degree",
        "2",
        "--parallelism.pipeline_parallel_schedule",
        "1F1B",
        pipeline=2,
    ),
    "titan-experts-context": _deepseek("CP 2", 4, "--parallelism.context_parallel_degree", "2", context=2),
    "titan-experts-alone": _deepseek("each on one rank", 8),
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One case, both ways. ``allocated_bytes``: the peak, recipe and recording."""

    built: Totals
    recorded: Totals
    allocated_bytes: tuple[float, float]
    reserved_bytes: tuple[float, float]


def compare(case: Case, folder: Path) -> list[Compared]:
    """Record a case in ``folder`` and build it: each stage of its pipeline."""
    case.record(folder)
    answers = []
    workspace = blas_workspace_bytes(chip(CARD))  # the recording has it too
    for stage in range(case.pipeline):
        program = case.recorded(folder, stage)
        found, ours = memory_result(program, chip(CARD)), case.memory(stage)
        answers.append(
            Compared(
                totals(case.built(stage)),
                totals(program, last_step(program)),
                (ours.peak_active_bytes.value + workspace, found.peak_active_bytes.value),
                (ours.peak_reserved_bytes.value + workspace, found.peak_reserved_bytes.value),
            )
        )
    return answers


def relative(ours: float, theirs: float) -> float:
    """Signed error; 0 where neither side has anything."""
    return ours / theirs - 1 if theirs else float(ours > 0)


def exchanged(of: Totals) -> float:
    """Message bytes of all collectives."""
    return sum(nbytes for _, nbytes in of.exchanged.values())


def _cells(found: Compared) -> list[float]:
    def kinds(names: tuple[str, ...], of: Callable[[Totals], Mapping[tuple[str, str], float]]) -> float:
        sides = [
            sum(value for (_, kind), value in of(side).items() if not names or kind in names)
            for side in (found.built, found.recorded)
        ]
        return relative(*sides)

    products = ("products", "grouped products", "attention", "delta rule", "convolution")
    return [
        kinds((), lambda side: side.flops),
        kinds(products, lambda side: side.bytes_moved),
        kinds(("pointwise",), lambda side: side.bytes_moved),
        relative(exchanged(found.built), exchanged(found.recorded)),
        relative(*found.allocated_bytes),
        relative(*found.reserved_bytes),
    ]


def _row(case: Case, found: list[Compared]) -> str:
    """Of a pipeline every figure is that of the stage where it is furthest off."""
    cells = [max(column, key=abs) for column in zip(*(_cells(one) for one in found), strict=True)]
    shown = " | ".join(f"{100 * cell:+.1f} %".replace("-0.0", "+0.0") for cell in cells)
    counts = [
        ", ".join(str(sum(count for count, _ in side.exchanged.values())) for side in sides)
        for sides in ([one.built for one in found], [one.recorded for one in found])
    ]
    peak = max(one.allocated_bytes[1] for one in found)
    return f"| {case.title} | {shown} | {counts[0]} / {counts[1]} | {peak / MIB:,.0f} MiB |"


HEADER = """\
| model | FLOPs | bytes, products | bytes, the rest | exchanged | allocated | reserved | collectives | peak |
|---|---|---|---|---|---|---|---|---|"""


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp())


def main(names: list[str]) -> int:
    """Print the table, or one case's differences."""
    if names:
        for stage, found in enumerate(compare(CASES[names[0]], _folder())):
            print(f"stage {stage}")
            for item in differences(found.built, found.recorded):
                print(
                    f"{item.quantity:14} {item.where:40} {item.recipe:18,.0f} {item.recorded:18,.0f} "
                    f"{100 * item.relative:+7.1f} %"
                )
            print(f"allocated {found.allocated_bytes}, reserved {found.reserved_bytes}")
        return 0
    print(HEADER)
    for case in CASES.values():
        with tempfile.TemporaryDirectory() as folder:
            print(_row(case, compare(case, Path(folder))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
