"""Rows of published training tables, rebuilt: what is stated, what is assumed, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windtunnel.recipes.fit.training import training_memory
from windtunnel.recipes.layout import AttentionKernel, Precision, Recompute, Sharding
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.validation.model_names import architecture_named
from windtunnel.validation.reasons import Incomplete
from windtunnel.validation.training_rows import (
    chip_name,
    precision_named,
    training_case,
    vtrain_case,
)

ROW = {
    "model": "Llama-3.1 70B",
    "task": "pretrain",
    "gpu": "H100",
    "num_gpus": "64",
    "sequence_length_tokens": "8192",
    "global_batch_size_sequences": "128",
    "micro_batch_size_sequences": "1",
    "tensor_parallel": "4",
    "pipeline_parallel": "4",
    "virtual_pipeline_chunks": "5",
    "context_parallel": "2",
    "expert_parallel": "1",
    "fsdp_shard_size": "0",
    "precision": "BF16",
    "recompute": "not stated (NeMo recipe default)",
    "framework": "NeMo / Megatron-Core",
    "source_id": "dgxc",
    "notes": "",
}


def test_a_complete_row_is_rebuilt_with_its_defaults_named() -> None:
    case = training_case(ROW, architecture_named)
    layout = case.layout
    assert (case.chip, len(case.model.layers)) == ("h100-sxm", 80)
    assert (layout.data, layout.micro_batches, layout.schedule) == (2, 64, "interleaved")
    assert layout.sharding is Sharding.ZERO1
    assert "no recomputation" in case.assumed


def test_measured_columns_are_never_read() -> None:
    filled = ROW | {"step_seconds": "14.72", "tokens_per_s_per_gpu": "1113", "mfu_percent": "54.1"}
    assert training_case(filled, architecture_named) == training_case(ROW, architecture_named)


def test_strong_scaling_takes_the_stages_of_the_same_page() -> None:
    row = ROW | {
        "pipeline_parallel": "",
        "tensor_parallel": "8",
        "num_gpus": "96",
        "virtual_pipeline_chunks": "",
    }
    row |= {"context_parallel": "1", "model": "GPT 177B (heads 96, hidden 12288, layers 96, vocab 131072)"}
    case = training_case(row | {"source_id": "megatron_lm_readme_r0.8.0_strong_scaling"}, architecture_named)
    assert case.layout.pipeline == 6
    assert any("6 pipeline stages" in text for text in case.assumed)
    with pytest.raises(Incomplete, match="pipeline_parallel is not stated"):
        training_case(row, architecture_named)


def test_truncated_models_keep_their_first_dense_layer() -> None:
    text = "DeepSeek-V2 236B truncated to 4 layers (1 dense + rest MoE)"
    model = training_case(ROW | {"model": text, "pipeline_parallel": "1"}, architecture_named).model
    kinds = [type(layer.ffn).__name__ for layer in model.layers]
    assert kinds == ["DenseFfn", "MoeFfn", "MoeFfn", "MoeFfn"]


def test_frameworks_bring_their_own_defaults() -> None:
    notes = {"notes": "arch hidden_size=8192/num_heads=64/num_layers=80/ffn_ratio=4/vocab=50368"}
    one = {
        "tensor_parallel": "1",
        "pipeline_parallel": "1",
        "context_parallel": "1",
        "global_batch_size_sequences": "64",
    }
    row = ROW | notes | one | {"model": "MPT 70b", "source_id": "llm_foundry", "framework": "Composer (PURE)"}
    case = training_case(row | {"recompute": "full"}, architecture_named)
    assert case.layout.sharding is Sharding.FSDP
    assert case.layout.recompute is Recompute.FULL
    assert case.layout.attention is AttentionKernel.FLASH_1
    assert not case.layout.reduce_in_fp32


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pipeline_parallel": ""}, "pipeline_parallel is not stated"),
        ({"model": "Unheard-of 3B"}, "is not known"),
        ({"gpu": "MI300X"}, "not in the catalogue"),
        ({"precision": "posit8"}, "is not known"),
    ],
)
def test_incomplete_rows_say_why(change: dict[str, str], reason: str) -> None:
    with pytest.raises(Incomplete, match=reason):
        training_case(ROW | change, architecture_named)


def test_spellings() -> None:
    assert chip_name("H100 SXM 96GB HBM2e 2.4TB/s (500 W limit)") == "h100-96g-500w"
    assert chip_name("NVIDIA Blackwell GPU (GB200)") == "gb200"
    text = "FP8 block (H100: 1x128/128x128) or MXFP8 (Blackwell 32)"
    assert precision_named(text, "h100-sxm") is Precision.FP8_BLOCK
    assert precision_named(text, "gb200") is Precision.MXFP8


def test_vtrain_rows() -> None:
    row = {
        "layers": "30", "hidden": "3072", "heads": "32", "seq_len": "2048", "gpus": "64", "global_batch": "512",
        "micro_batch": "8", "tp": "1", "dp": "64", "pp": "1",
    }  # fmt: skip
    case = vtrain_case(row)
    assert case.layout.attention is AttentionKernel.UNFUSED
    assert case.layout.recompute is Recompute.FULL
    # nobody pads the vocabulary: each rank holds the whole part of its share
    assert case.model.vocabulary == 50257
    assert vtrain_case(row | {"tp": "2", "dp": "32"}).model.vocabulary == 50256
    with pytest.raises(Incomplete):
        vtrain_case(row | {"dp": "32"})


def test_torchtitan_rows_follow_their_release() -> None:
    """Compiled loss and layers, FSDP units and saved attention: as the source of the row's release has them."""
    base = {
        "model": "Llama-3.1 8B", "num_gpus": "8", "sequence_length_tokens": "8192", "precision": "BF16",
        "global_batch_size_sequences": "8", "micro_batch_size_sequences": "1", "tensor_parallel": "1",
        "pipeline_parallel": "1", "recompute": "selective, per op",
    }  # fmt: skip
    old = {
        "source_id": "torchtitan_2024-12", "framework": "TorchTitan", "notes": "torch.compile",
        "gpu": "H100 SXM 96GB HBM2e 2.4TB/s (500 W limit)",
    }  # fmt: skip
    new = {
        "source_id": "torchtitan_mxfp8_2025-08", "framework": "TorchTitan, torch.compile",
        "gpu": "B200 SXM (power limited, limit not stated)",
    }  # fmt: skip
    was = training_case({**base, **old}, architecture_named)
    now = training_case({**base, **new}, architecture_named)
    assert (was.chip, now.chip) == ("h100-96g-500w", "b200-750w")
    assert was.layout.fused
    assert now.layout.fused
    assert not was.layout.compiled_loss
    assert now.layout.compiled_loss
    assert not was.layout.ends_apart
    assert now.layout.ends_apart
    assert (was.layout.recompute, now.layout.recompute) == ("selective-ops", "selective-products")
    spec = shipped_model("llama3-8b")
    bare = replace(now.layout, compiled_loss=False, ends_apart=False)
    assert training_memory(spec, now.layout).allocated < 0.8 * training_memory(spec, bare).allocated
