"""Rows of published training tables as (model, chip, layout): what is stated, named defaults for the rest.

A row is complete when it states the model, GPU, cards, sequence, global batch, TP, PP and precision. What
frameworks leave unsaid (micro-batch, sharding, overlap, schedule) takes that framework's documented default and is
listed in ``assumed``. Nothing here looks at measured columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.architecture import Architecture, DenseFfn, GroupedQuery, LayerShape
from windtunnel.recipes.layout import AttentionKernel, HostLoad, Layout, Precision, Recompute, Sharding

ModelNamed = Callable[[str], Architecture | None]
"""The architecture of a model by its published name; None where unknown."""


class Incomplete(Exception):
    """A row that cannot be rebuilt; the text is the reason."""


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """A row rebuilt. ``assumed``: defaults taken for what the row does not state."""

    model: Architecture
    chip: str
    layout: Layout
    assumed: tuple[str, ...]


FEWEST_INTERLEAVED = 2
LORA_RANK = 16
"""MLPerf's Llama-2-70B fine-tuning rules; NeMo's recipes use 8 to 32, which cost the same launches."""

COMPILED_LOSS_SINCE, ENDS_APART_SINCE = "2025-02", "2025-07"
"""TorchTitan's source: `train.py` of December 2024 leaves the loss uncompiled, that of February 2025 does not; in June
2025 embedding and head belong to the root's FSDP unit, in August they are units of their own."""

# the first that matches, most special first
_CHIPS = (
    (r"h100.*(96 ?gb|500 ?w)", "h100-96g-500w"),
    (r"a100.*40", "a100-40g"),
    (r"a100.*pcie", "a100-pcie"),
    (r"a100", "a100-80g"),
    (r"gb300", "gb300"),
    (r"gb200", "gb200"),
    (r"b200.*power limited", "b200-750w"),
    (r"b300|blackwell ultra", "b300"),
    (r"b200|blackwell", "b200"),
    (r"h100", "h100-sxm"),
    (r"h200", "h200"),
    (r"h800", "h800"),
    (r"h20\b", "h20"),
    (r"l40s", "l40s"),
    (r"s5000", "mtt-s5000"),
    (r"s4000", "mtt-s4000"),
)
_PRECISIONS = (
    (r"nvfp4|fp4", Precision.NVFP4),
    (r"mxfp8|fp8-mx", Precision.MXFP8),
    (r"fp8.*(block|1x128|fine)", Precision.FP8_BLOCK),
    (r"fp8", Precision.FP8),
    (r"fp16", Precision.FP16),
    (r"bf16", Precision.BF16),
)


def chip_name(gpu: str) -> str:
    """Catalogue name of a GPU as tables spell it. Raises Incomplete for one that is not known."""
    for pattern, name in _CHIPS:
        if re.search(pattern, gpu.lower()):
            return name
    raise Incomplete(f"GPU `{gpu}` is not in the catalogue")


def precision_named(text: str, chip: str) -> Precision:
    """Precision as tables spell it. Blocks are of 32 (MXFP8) on Blackwell, of 128 elsewhere."""
    for pattern, precision in _PRECISIONS:
        if re.search(pattern, text.lower()):
            if precision in (Precision.FP8_BLOCK, Precision.MXFP8):
                return Precision.MXFP8 if chip.startswith(("b", "gb")) else Precision.FP8_BLOCK
            return precision
    raise Incomplete(f"precision `{text}` is not known")


def training_case(row: Mapping[str, str], model_named: ModelNamed) -> TrainingCase:
    """Rebuild one row. Raises Incomplete, and E205 or E206 where its degrees cannot be."""
    chip = chip_name(row["gpu"])
    model = model_of(row, model_named)
    framework = f"{row.get('framework', '')} {row.get('source_id', '')}".lower()
    layout, assumed = _stated(row, chip)
    if "lora" in row.get("task", ""):
        layout = replace(layout, adapter_rank=LORA_RANK)
        assumed.append(f"adapters of rank {LORA_RANK} on the attention products")
    chunks = layout.pipeline * layout.chunks
    if len(model.layers) % chunks and (len(model.layers) + 2) % chunks == 0:
        layout = replace(layout, first_layers_fewer=1, last_layers_fewer=1)
        assumed.append("embedding and output count as layers of the first and last pipeline chunk")
    for matches, change in _FRAMEWORKS:
        if re.search(matches, framework):
            return TrainingCase(model, chip, *change(layout, assumed, row))
    return TrainingCase(model, chip, *_megatron(layout, assumed, row))


def _number(row: Mapping[str, str], name: str) -> int:
    text = row.get(name, "")
    if not text:
        raise Incomplete(f"{name} is not stated")
    return int(float(text))


def _stated(row: Mapping[str, str], chip: str) -> tuple[Layout, list[str]]:
    assumed: list[str] = []
    chunks = row.get("virtual_pipeline_chunks", "")
    if not chunks:
        assumed.append("one model chunk per pipeline stage")
    expert = row.get("expert_parallel", "")
    recompute, note = _recompute(row.get("recompute", ""))
    assumed += [note] if note else []
    pipeline = _number(row, "pipeline_parallel")
    if not row.get("micro_batch_size_sequences"):
        assumed.append("one sequence in a micro-batch")
    several = int(float(chunks or 1)) > 1 and pipeline > 1
    layout = Layout(
        cards=_number(row, "num_gpus"),
        global_batch=_number(row, "global_batch_size_sequences"),
        micro_batch=int(float(row.get("micro_batch_size_sequences") or 1)),
        sequence=_number(row, "sequence_length_tokens"),
        tensor=_number(row, "tensor_parallel"),
        pipeline=pipeline,
        context=int(float(row.get("context_parallel") or 1)),
        chunks=int(float(chunks)) if several else 1,
        expert=int(float(expert or 1)),
        schedule="interleaved" if several else "1f1b",
        precision=precision_named(row["precision"], chip),
        recompute=recompute,
    )
    return layout, assumed


def _recompute(text: str) -> tuple[Recompute, str]:
    lowered = text.lower()
    if lowered.startswith(("none", "no")) and not lowered.startswith("not"):
        return Recompute.NONE, ""
    if "per-op" in lowered or "per op" in lowered:
        return Recompute.SELECTIVE_OPS, ""
    if lowered.startswith("full"):
        return Recompute.FULL, ""
    if "selective" in lowered and "module" not in lowered:
        return Recompute.SELECTIVE, ""
    return Recompute.NONE, "no recomputation"


Change = tuple[Layout, tuple[str, ...]]


def _megatron(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """Megatron-Core, NeMo, MLPerf: distributed optimizer, sequence parallel, overlap on."""
    notes = row.get("notes", "").lower()
    fsdp = float(row.get("fsdp_shard_size") or 0) > 1
    overlap_off = "overlap off" in notes
    tensor_overlap = row.get("tp_comm_overlap", "") != "False" and not overlap_off
    assumed += ["distributed optimizer", "sequence parallel"]
    # NeMo's and Megatron Bridge's performance recipes reduce in 16 bit, Megatron-LM's own default in FP32
    fp32 = "simumax" in row.get("source_id", "") or "megatron-lm" in row.get("framework", "").lower()
    if not fp32:
        assumed.append("gradients reduced in 16 bit")
    if not overlap_off:
        assumed.append("gradient, parameter and tensor-parallel communication overlap compute")
    # Megatron Bridge's `mixed_precision.py`, as NeMo's before it: fp8_param_gather is on for one scale per tensor and
    # for MXFP8, off for blocks of 128; four-bit parameters are refused
    kept = layout.precision in (Precision.FP8, Precision.MXFP8) and "block" not in row["precision"].lower()
    fp8_parameters = kept and not fp32
    if fp8_parameters:
        assumed.append("parameters kept in FP8")
    return replace(
        layout,
        sharding=Sharding.FSDP if fsdp else Sharding.ZERO1,
        fp8_parameters=fp8_parameters,
        reduce_in_fp32=fp32,
        overlap_grad_reduce=not overlap_off,
        overlap_param_gather=not overlap_off,
        overlap_tensor=tensor_overlap and layout.tensor > 1,
        overlap_experts="a2a_overlap" in notes,
        dispatch_by_tma="hybridep" in notes,
        graphs="cuda_graph=" in notes or row.get("layer_cuda_graph", "") == "True",
    ), tuple(assumed)


def _megatron_2021(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """Megatron-LM of 2021 and 2022, Megatron-DeepSpeed: before FlashAttention, plain data parallelism."""
    sequence_parallel = "sequence parallel" in row.get("recompute", "")
    return replace(
        layout,
        sharding=Sharding.DDP,
        overlap_grad_reduce=False,
        overlap_param_gather=False,
        sequence_parallel=sequence_parallel,
        attention=AttentionKernel.UNFUSED,
        reduce_in_fp32=False,
        host=HostLoad.EAGER_2021,
    ), (*assumed, "gradients in 16 bit, no overlap", "unfused attention core")


def _foundry(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """llm-foundry: Composer FSDP; PURE reduces in 16 bit, DEFAULT in FP32."""
    pure = "pure" in row.get("framework", "").lower()
    if "cpu_offload=true" in row.get("notes", "").lower():
        raise Incomplete("optimizer offload to the host is not rebuilt")
    return replace(
        layout,
        sharding=Sharding.FSDP,
        reduce_in_fp32=not pure,
        fused=False,
        sequence_parallel=False,
        attention=AttentionKernel.FLASH_1,
        host=HostLoad.EAGER,
    ), (*assumed, "parameters gathered for every micro-batch", "FlashAttention's first generation")


def _torchtitan(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """TorchTitan: FSDP2 with FP32 reduction, eager unless notes or framework say compile.

    Releases from 2025 on compile the loss with the layers; before, a note in `train.py` says that it failed.
    """
    notes = f"{row.get('framework', '')} {row.get('notes', '')}".lower()
    compiled = "compile" in notes and "no compile" not in notes
    release = re.search(r"20\d\d-\d\d", row.get("source_id", ""))
    since = release[0] if release else ""
    recompute = layout.recompute
    if recompute is Recompute.SELECTIVE_OPS and chip_name(row["gpu"]).startswith(("b", "gb")):
        # PyTorch's attention there is cuDNN's, which the policy's list of what to save does not name
        recompute = Recompute.SELECTIVE_PRODUCTS
    shard = int(float(row.get("fsdp_shard_size") or 0))
    data = layout.data_and_context
    return replace(
        layout,
        sharding=Sharding.FSDP if data > 1 else Sharding.DDP,
        fsdp_shard=shard if 1 < shard < data and data % shard == 0 else 0,
        fused=compiled,
        host=HostLoad.FUSED if compiled else HostLoad.EAGER,
        compiled_loss=compiled and since >= COMPILED_LOSS_SINCE,
        ends_apart=since >= ENDS_APART_SINCE,
        recompute=recompute,
        overlap_tensor="async" in notes,
    ), tuple(assumed)


def _automodel(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """NeMo AutoModel: the same sharding; rows that name Transformer Engine run its fused layers and permutes."""
    changed, notes = _torchtitan(layout, assumed, row)
    engine = re.search(r"\bTE\b", row.get("framework", "")) is not None
    return replace(changed, fused=changed.fused or engine), notes


def _meta(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """Llama 3's trainer: FSDP that keeps what it gathered until the step ends (arXiv 2407.21783, section 3.3.2)."""
    changed, notes = _megatron(layout, assumed, row)
    if "interleaved" in row.get("framework", "") and changed.chunks == 1 and changed.pipeline > 1:
        changed = replace(changed, chunks=FEWEST_INTERLEAVED, schedule="interleaved")
        notes = (*notes, "two model chunks a stage: the fewest that interleave, as it says it does")
    return replace(changed, sharding=Sharding.ZERO1), (*notes, "parameters gathered once a step")


def _hai_llm(layout: Layout, assumed: list[str], row: Mapping[str, str]) -> Change:
    """DeepSeek's own: DualPipe, exchange of experts beside compute, distributed optimizer (arXiv 2412.19437)."""
    changed, notes = _megatron(layout, assumed, row)
    return replace(changed, schedule="dualpipe", chunks=1, overlap_experts=True), (*notes, "DualPipe")


_FRAMEWORKS: tuple[tuple[str, Callable[[Layout, list[str], Mapping[str, str]], Change]], ...] = (
    (r"foundry", _foundry),
    (r"torchtitan", _torchtitan),
    (r"automodel", _automodel),
    (r"hai-llm", _hai_llm),
    (r"meta in-house", _meta),
    (r"sc21|2205\.05198|megatron-lm 202[12]|megatron-deepspeed|2104", _megatron_2021),
)


def model_of(row: Mapping[str, str], model_named: ModelNamed) -> Architecture:
    """The row's model: described by the row itself, or by name; truncated where it says so."""
    text = row["model"]
    described = _gpt(text) or _mpt(row)
    if described is not None:
        return described
    model = model_named(re.sub(r"\s*(truncated to|\().*", "", text))
    if model is None:
        raise Incomplete(f"model `{text}` is not known")
    layers = re.search(r"truncated to (\d+) layers|\((\d+)-layer proxy\)", text)
    if not layers:
        return model
    return truncated(model, int(layers.group(1) or layers.group(2)), "1 dense" in text)


def truncated(model: Architecture, layers: int, one_dense: bool = False) -> Architecture:
    """The first layers of a model; ``one_dense``: the first, then the last ones (mixtures of experts)."""
    if one_dense:
        return replace(model, layers=(model.layers[0], *(model.layers[-1],) * (layers - 1)))
    return replace(model, layers=(model.layers[-1],) * layers)


def gpt(layers: int, hidden: int, heads: int, vocabulary: int, positions: int = 2048) -> Architecture:
    """GPT-2's shape: LayerNorm, biases, GELU of four times the width, learned positions, tied embeddings."""
    shape = LayerShape(
        mixer=GroupedQuery(heads=heads, kv_heads=heads, head_dim=hidden // heads, bias=True, rotary=False),
        ffn=DenseFfn(width=4 * hidden, gated=False, bias=True),
        layer_norm=True,
    )
    return Architecture(
        hidden=hidden,
        vocabulary=vocabulary,
        layers=(shape,) * layers,
        tied=True,
        learned_positions=positions,
    )


def _gpt(text: str) -> Architecture | None:
    found = re.search(r"heads (\d+), hidden (\d+), layers (\d+), vocab (\d+)", text)
    if not found:
        return None
    heads, hidden, layers, vocabulary = (int(group) for group in found.groups())
    return gpt(layers, hidden, heads, vocabulary)


def _mpt(row: Mapping[str, str]) -> Architecture | None:
    """MPT: GPT without biases; llm-foundry's rows state the sizes in their notes."""
    found = re.search(
        r"hidden_size=(\d+)/num_heads=(\d+)/num_layers=(\d+)/ffn_ratio=4/vocab=(\d+)", row.get("notes", "")
    )
    if not found:
        return None
    hidden, heads, layers, vocabulary = (int(group) for group in found.groups())
    shape = LayerShape(
        mixer=GroupedQuery(heads=heads, kv_heads=heads, head_dim=hidden // heads, rotary=False),
        ffn=DenseFfn(width=4 * hidden, gated=False),
        layer_norm=True,
    )
    return Architecture(
        hidden=hidden,
        vocabulary=vocabulary,
        layers=(shape,) * layers,
        tied=True,
        learned_positions=int(float(row["sequence_length_tokens"])),
    )


def vtrain_case(row: Mapping[str, str]) -> TrainingCase:
    """A row of vTrain's measurements: Megatron-DeepSpeed on A100, full recomputation."""
    model = gpt(int(row["layers"]), int(row["hidden"]), int(row["heads"]), 51200, int(row["seq_len"]))
    layout = Layout(
        cards=int(row["gpus"]),
        global_batch=int(row["global_batch"]),
        micro_batch=int(row["micro_batch"]),
        sequence=int(row["seq_len"]),
        tensor=int(row["tp"]),
        pipeline=int(row["pp"]),
        precision=Precision.FP16,
        recompute=Recompute.FULL,
    )
    if layout.data != int(row["dp"]):
        raise Incomplete("data parallel degree does not fit the others")
    return TrainingCase(model, "a100-80g", *_megatron_2021(layout, ["vocabulary 51200"], row))


def refusal(error: Exception) -> str:
    """Why a row was not predicted, in a few words."""
    return error.what if isinstance(error, WindtunnelError) else str(error)
