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
from windtunnel.recipes.layout import Layout, Precision, Recompute
from windtunnel.specs.model import Norm
from windtunnel.validation.framework_defaults import Row, defaults_of, megatron_2021
from windtunnel.validation.reasons import Incomplete

ModelNamed = Callable[[str], Architecture | None]
"""The architecture of a model by its published name; None where unknown."""


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """A row rebuilt. ``assumed``: defaults taken for what the row does not state."""

    model: Architecture
    chip: str
    layout: Layout
    assumed: tuple[str, ...]


ONE_SEQUENCE = "one sequence in a micro-batch"
STRONG_SCALING_STAGES = 6
"""Of GPT 177B (TP 8) in the table of weak scaling of Megatron-LM's README (r0.8.0); its chart of strong scaling says
none."""
LORA_RANK = 16
"""MLPerf's Llama-2-70B fine-tuning rules; NeMo's recipes use 8 to 32, which cost the same launches."""

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
    (r"fp8.*row-?wise", Precision.FP8_ROW),
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
    if "cpu_offload=true" in row.get("notes", "").lower():
        raise Incomplete("optimizer offload to the host is not rebuilt")
    layout, assumed = _stated(row, chip)
    if "lora" in row.get("task", ""):
        layout = replace(layout, adapter_rank=LORA_RANK)
        assumed.append(f"adapters of rank {LORA_RANK} on the attention products")
    chunks = layout.pipeline * layout.chunks
    if len(model.layers) % chunks and (len(model.layers) + 2) % chunks == 0:
        layout = replace(layout, first_layers_fewer=1, last_layers_fewer=1)
        assumed.append("embedding and output count as layers of the first and last pipeline chunk")
    return TrainingCase(model, chip, *defaults_of(Row(row, layout, tuple(assumed), model, chip)))


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
    pipeline = _pipeline(row, assumed)
    if not row.get("micro_batch_size_sequences"):
        assumed.append(ONE_SEQUENCE)
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


def _pipeline(row: Mapping[str, str], assumed: list[str]) -> int:
    """As stated; of Megatron-LM's strong scaling that of the same model in the table of the same page."""
    if row.get("pipeline_parallel") or "strong_scaling" not in row.get("source_id", ""):
        return _number(row, "pipeline_parallel")
    assumed.append(f"{STRONG_SCALING_STAGES} pipeline stages, as the model's weak scaling on the same page")
    return STRONG_SCALING_STAGES


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
        norm=Norm.LAYER,
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
        norm=Norm.LAYER,
    )
    return Architecture(
        hidden=hidden,
        vocabulary=vocabulary,
        layers=(shape,) * layers,
        tied=True,
        learned_positions=int(float(row["sequence_length_tokens"])),
    )


VTRAIN_VOCABULARY = 50257


def vtrain_case(row: Mapping[str, str]) -> TrainingCase:
    """A row of vTrain's measurements: Megatron-DeepSpeed on A100, full recomputation."""
    tensor = int(row["tp"])
    # its configurations state 50257, and each rank holds the whole part of its share (`gpt_modeling.py`)
    vocabulary = VTRAIN_VOCABULARY // tensor * tensor
    model = gpt(int(row["layers"]), int(row["hidden"]), int(row["heads"]), vocabulary, int(row["seq_len"]))
    layout = Layout(
        cards=int(row["gpus"]),
        global_batch=int(row["global_batch"]),
        micro_batch=int(row["micro_batch"]),
        sequence=int(row["seq_len"]),
        tensor=tensor,
        pipeline=int(row["pp"]),
        precision=Precision.FP16,
        recompute=Recompute.FULL,
    )
    if layout.data != int(row["dp"]):
        raise Incomplete("data parallel degree does not fit the others")
    return TrainingCase(
        model, "a100-80g", *megatron_2021(Row(row, layout, (f"vocabulary {vocabulary}",), model, "a100-80g"))
    )


def refusal(error: Exception) -> str:
    """Why a row was not predicted, in a few words."""
    return error.what if isinstance(error, WindtunnelError) else str(error)
