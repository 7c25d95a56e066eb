"""What training frameworks do that rows of tables do not state: their documented defaults, release by release.

Each function takes what a row states and answers the layout with the framework's defaults in it, and what of that is
assumed. Sources are the frameworks' own configurations, named beside the rule. Nothing here looks at measurements.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from windtunnel.recipes.architecture import Architecture, MoeFfn
from windtunnel.recipes.layout import (
    LAYERS,
    AttentionKernel,
    Dispatcher,
    GraphScope,
    HostLoad,
    Layout,
    LossKernel,
    Precision,
    Recompute,
    Sharding,
)
from windtunnel.validation import bridge_recipes

COMPILED_LOSS_SINCE, ENDS_APART_SINCE = "2025-02", "2025-07"
"""TorchTitan's source: `train.py` of December 2024 leaves the loss uncompiled, that of February 2025 does not; in June
2025 embedding and head belong to the root's FSDP unit, in August they are units of their own."""
FEWEST_INTERLEAVED = 2
HAI_LLM_DATE = "2024-12"
"""Of DeepSeek-V3's report, whose exchange was published as DeepEP two months later."""
PACKED_TOKENS = 200
"""Mean length of SQuAD's samples, which NeMo's fine-tuning recipes pack to the full length (assumed)."""
TE_LOSS_SINCE, EXPERT_TENSOR_SINCE, HYBRIDEP_SINCE, DISPATCHER_STATED_SINCE = 25.05, 25.04, 25.11, 26.0
"""NeMo's `scripts/performance/helpers.py` sets Transformer Engine's loss; recipes set `expert_tensor_parallel_size`
where before Megatron-Core's default (tensor parallel's) held; Megatron Bridge's recipes for NVL72 take HybridEP; its
tables list the dispatcher wherever it is not the all-to-all."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its cells, what they state as a layout, the defaults taken so far, and what runs where."""

    cells: Mapping[str, str]
    layout: Layout
    assumed: tuple[str, ...]
    model: Architecture
    chip: str

    def text(self, *names: str) -> str:
        """Some cells in lower case, joined."""
        return " ".join(self.cells.get(name, "") for name in names).lower()

    @property
    def release(self) -> float:
        """Year and month of a container or recipe, as 25.04; 0 where none is named."""
        found = re.search(r"(?:^|[^\d.])(2[3-9]\.\d\d)", self.text("source_id", "framework"))
        return float(found[1]) if found else 0.0

    @property
    def sparse(self) -> bool:
        """Whether there are experts."""
        return any(isinstance(layer.ffn, MoeFfn) for layer in self.model.layers)


Change = tuple[Layout, tuple[str, ...]]


def _said(cell: str) -> bool | None:
    """A switch of a table; None where the cell is empty."""
    return {"true": True, "1": True, "false": False, "0": False}.get(cell.strip().lower())


def _megatron(row: Row) -> Change:
    """Megatron-Core, NeMo, MLPerf: distributed optimizer, sequence parallel, overlap on."""
    layout, notes, assumed = row.layout, row.text("notes"), list(row.assumed)
    fsdp = float(row.cells.get("fsdp_shard_size") or 0) > 1
    overlap_off = "overlap off" in notes
    assumed += ["distributed optimizer", "sequence parallel"]
    # NeMo's and Megatron Bridge's performance recipes reduce in 16 bit, Megatron-LM's own default in FP32
    megatron_lm = "simumax" in row.text("source_id") or "megatron-lm" in row.text("framework")
    if not megatron_lm:
        assumed.append("gradients reduced in 16 bit")
    if not overlap_off:
        assumed.append("gradient, parameter and tensor-parallel communication overlap compute")
    # Megatron Bridge's `mixed_precision.py`, as NeMo's before it: fp8_param_gather is on for one scale per tensor and
    # for MXFP8, off for blocks of 128; four-bit parameters are refused
    kept = layout.precision in (Precision.FP8, Precision.MXFP8) and "block" not in row.text("precision")
    fp8_parameters = kept and not megatron_lm
    if fp8_parameters:
        assumed.append("parameters kept in FP8")
    changed = replace(
        layout,
        sharding=Sharding.FSDP if fsdp else Sharding.ZERO1,
        zero_copy=fsdp,
        fp8_parameters=fp8_parameters,
        reduce_in_fp32=megatron_lm,
        overlap_grad_reduce=not overlap_off,
        overlap_param_gather=not overlap_off,
        overlap_tensor=_overlaps_tensor(row) and not overlap_off and layout.tensor > 1,
        overlap_experts="a2a_overlap" in notes or bridge_recipes.overlaps_experts(*_recipe(row)),
        graphs=_graphs(row),
        loss=_loss(row, megatron_lm),
        segment=_segment(row),
    )
    if changed.segment:
        assumed.append(f"samples of {PACKED_TOKENS} tokens packed, which attend to themselves")
    return _experts(row, changed, tuple(assumed)) if row.sparse else (changed, tuple(assumed))


def _overlaps_tensor(row: Row) -> bool:
    """As stated; else on for dense models and Qwen3: recipes of Grok, DeepSeek, Mixtral and GPT-OSS leave it off."""
    stated = _said(row.cells.get("tp_comm_overlap", ""))
    bridge = "megatron_bridge" in row.text("source_id") and "qwen3" in row.text("model")
    return not row.sparse or bridge if stated is None else stated


def _graphs(row: Row) -> frozenset[GraphScope]:
    """`cuda_graph=IMPLEMENTATION:[SCOPE + ...]` of Megatron Bridge's tables, or its recipes'; MLPerf's column."""
    if "mlperf_training" in row.text("source_id"):
        return _submitted_graphs(row)
    found = re.search(r"cuda_graph=\w+:(\[[^\]]*\]|\w+)", row.text("notes"))
    if found is None:
        return bridge_recipes.graphs(*_recipe(row))
    if (
        "full_iteration" in found[0]
    ):  # also as the scope of the implementation `none`: Megatron-Core promotes it
        return frozenset({GraphScope.STEP})
    return frozenset(scope for scope in GraphScope if re.search(rf"\b{scope}\b", found[1]))


def _submitted_graphs(row: Row) -> frozenset[GraphScope]:
    """NVIDIA's code for MLPerf, which all submit, captures layers where a configuration says so.

    `LAYER_CUDA_GRAPH` is the switch (mlcommons/training_results_v4.0, `config_DGXH100_1344x8x6x4x6_mbs1_cg.sh`). The
    code of 3.1 (`gpt3`, `custom.yaml`) and of 4.0's fine-tuning (`megatron_gpt_peft_tuning_config.yaml`) has none.
    Fine-tuning of 5.0 turns it off in favour of Megatron-Core's own (`MCORE_CUDA_GRAPH`) where contexts are split over
    ranks.
    """
    stated = _said(row.cells.get("layer_cuda_graph", ""))
    by_megatron = stated is False and row.layout.context > 1
    return LAYERS if stated or by_megatron else frozenset()


def _recipe(row: Row) -> tuple[float, str, str, str]:
    """What Megatron Bridge's recipe of a row goes by; the release is 0 for other frameworks."""
    release = row.release if "megatron_bridge" in row.text("source_id") else 0.0
    return release, row.text("model"), row.chip, row.text("precision")


def _loss(row: Row, megatron_lm: bool) -> LossKernel:
    """Megatron-LM's pieces unless fused; NeMo compiles them, and takes Transformer Engine's kernel later on."""
    if megatron_lm:
        return LossKernel.FUSED if "fused te" in row.text("notes") else LossKernel.IN_PIECES
    nemo = "nemo" in row.text("framework", "source_id") and "mlperf" not in row.text("source_id")
    return LossKernel.COMPILED if nemo and 0 < row.release < TE_LOSS_SINCE else LossKernel.FUSED


def _segment(row: Row) -> int:
    """NeMo's and Megatron Bridge's fine-tuning recipes pack SQuAD."""
    tunes = re.search(r"\b(sft|lora\w*)\b", row.text("task")) is not None
    ours = "nemo" in row.text("framework", "source_id") and "mlperf" not in row.text("source_id")
    return PACKED_TOKENS if tunes and ours else 0


def _experts(row: Row, layout: Layout, assumed: tuple[str, ...]) -> Change:
    """How tokens reach experts, whether the host waits for their counts, and how experts are split."""
    notes, release = row.text("notes"), row.release
    dispatcher = _dispatcher(row)
    # NeMo's recipes drop tokens until Megatron Bridge (`MegatronTokenDropCallback`, capacity factors)
    drops = "token drop" in notes or ("dropless" not in notes and 0 < release < HYBRIDEP_SINCE)
    drops = drops and dispatcher is Dispatcher.ALL_TO_ALL
    split = 0 < release < EXPERT_TENSOR_SINCE and "nemo" in row.text("framework")
    changed = replace(
        layout,
        dispatcher=dispatcher,
        counts_on_host=not drops,
        expert_calls=True,
        expert_tensor=layout.tensor if split else 1,
    )
    words = "dropped beyond a capacity" if drops else "not dropped: the host waits for their counts"
    return changed, (*assumed, f"{dispatcher} dispatcher", f"tokens {words}")


def _dispatcher(row: Row) -> Dispatcher:
    """As stated; else what the recipes of that time took on that card."""
    notes, release = row.text("notes", "framework"), row.release
    for word, dispatcher in (("hybridep", Dispatcher.HYBRIDEP), ("deepep", Dispatcher.DEEPEP)):
        if word in notes:
            return dispatcher
    if "alltoall" in notes or release >= DISPATCHER_STATED_SINCE or release == 0:
        return Dispatcher.ALL_TO_ALL
    if row.chip.startswith("gb") and release >= HYBRIDEP_SINCE:
        return Dispatcher.HYBRIDEP
    deepep = row.chip.startswith("h") and "deepseek" in row.text("model") and release >= EXPERT_TENSOR_SINCE
    return Dispatcher.DEEPEP if deepep else Dispatcher.ALL_TO_ALL


def megatron_2021(row: Row) -> Change:
    """Megatron-LM of 2021 and 2022, Megatron-DeepSpeed: before FlashAttention, plain data parallelism."""
    return replace(
        row.layout,
        sharding=Sharding.DDP,
        overlap_grad_reduce=False,
        overlap_param_gather=False,
        sequence_parallel="sequence parallel" in row.text("recompute"),
        attention=AttentionKernel.UNFUSED,
        reduce_in_fp32=False,
        host=HostLoad.EAGER_2021,
        loss=LossKernel.IN_PIECES,
    ), (*row.assumed, "gradients in 16 bit, no overlap", "unfused attention core and loss")


def _foundry(row: Row) -> Change:
    """llm-foundry: Composer FSDP; PURE reduces in 16 bit, DEFAULT in FP32."""
    return replace(
        row.layout,
        sharding=Sharding.FSDP,
        reduce_in_fp32="pure" not in row.text("framework"),
        fused=False,
        sequence_parallel=False,
        attention=AttentionKernel.FLASH_1,
        host=HostLoad.EAGER,
    ), (*row.assumed, "parameters gathered for every micro-batch", "FlashAttention's first generation")


def _torchtitan(row: Row) -> Change:
    """TorchTitan: FSDP2 with FP32 reduction, eager unless notes or framework say compile.

    Releases from 2025 on compile the loss with the layers; before, a note in `train.py` says that it failed.
    """
    layout, notes = row.layout, row.text("framework", "notes")
    compiled = "compile" in notes and "no compile" not in notes
    release = re.search(r"20\d\d-\d\d", row.text("source_id"))
    since = release[0] if release else ""
    recompute = layout.recompute
    if recompute is Recompute.SELECTIVE_OPS and row.chip.startswith(("b", "gb")):
        # PyTorch's attention there is cuDNN's, which the policy's list of what to save does not name
        recompute = Recompute.SELECTIVE_PRODUCTS
    shard = int(float(row.cells.get("fsdp_shard_size") or 0))
    data = layout.data_and_context
    return replace(
        layout,
        sharding=Sharding.FSDP if data > 1 else Sharding.DDP,
        fsdp_shard=shard if 1 < shard < data and data % shard == 0 else 0,
        fused=compiled,
        host=HostLoad.COMPILED if compiled else HostLoad.EAGER,
        compiled_loss=compiled and since >= COMPILED_LOSS_SINCE,
        ends_apart=since >= ENDS_APART_SINCE,
        recompute=recompute,
        overlap_tensor="async" in notes,
    ), row.assumed


def _automodel(row: Row) -> Change:
    """NeMo AutoModel: the same sharding; rows that name Transformer Engine run its fused layers and permutes.

    Its benchmark recipes (`examples/llm_benchmark`) put adapters on every projection, checkpoint the activations of
    dense models on several cards, and spread experts over all ranks where DeepEP moves tokens.
    """
    changed, assumed = _torchtitan(row)
    if changed.adapter_rank:
        changed = replace(changed, adapts_all=True)
        assumed = (*assumed, "adapters on every projection")
    if not row.sparse and changed.cards > 1 and "not stated" in row.text("recompute"):
        changed = replace(changed, recompute=Recompute.FULL)
        assumed = (*(text for text in assumed if text != "no recomputation"), "layers computed again")
    if row.sparse and changed.expert == 1 and "deepep" in row.text("framework"):
        changed = replace(changed, expert=changed.stage_ranks)
        assumed = (*assumed, "experts spread over all ranks, as DeepEP needs them")
    if re.search(r"\bTE\b", row.cells.get("framework", "")) is None:
        return changed, assumed
    return replace(changed, fused=True, host=HostLoad.FUSED, counts_on_host=row.sparse), assumed


def _meta(row: Row) -> Change:
    """Llama 3's trainer: FSDP that keeps what it gathered until the step ends (arXiv 2407.21783, section 3.3.2)."""
    changed, assumed = _megatron(row)
    if "interleaved" in row.text("framework") and changed.chunks == 1 and changed.pipeline > 1:
        changed = replace(changed, chunks=FEWEST_INTERLEAVED, schedule="interleaved")
        assumed = (*assumed, "two model chunks a stage: the fewest that interleave, as it says it does")
    return replace(changed, sharding=Sharding.ZERO1), (*assumed, "parameters gathered once a step")


def _hai_llm(row: Row) -> Change:
    """DeepSeek's own: DualPipe, exchange of experts beside compute, distributed optimizer (arXiv 2412.19437)."""
    changed, assumed = _megatron(row)
    changed = replace(
        changed, schedule="dualpipe", chunks=1, overlap_experts=True, expert_calls=False, deepep=HAI_LLM_DATE
    )
    return changed, (*assumed, "DualPipe")


_FRAMEWORKS: tuple[tuple[str, Callable[[Row], Change]], ...] = (
    (r"foundry", _foundry),
    (r"torchtitan", _torchtitan),
    (r"automodel", _automodel),
    (r"hai-llm", _hai_llm),
    (r"meta in-house", _meta),
    (r"sc21|2205\.05198|megatron-lm 202[12]|megatron-deepspeed|2104", megatron_2021),
)


def defaults_of(row: Row) -> Change:
    """The layout of a row with its framework's defaults, and what was assumed; Megatron-Core's where none is known."""
    framework = row.text("framework", "source_id")
    for pattern, change in _FRAMEWORKS:
        if re.search(pattern, framework):
            return change(row)
    return _megatron(row)
