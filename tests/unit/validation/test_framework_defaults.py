"""Defaults of training frameworks: graphs, dispatchers, losses, packing and places, by what rows and releases say."""

from __future__ import annotations

import pytest

from windtunnel.recipes.layout import (
    LAYERS,
    Dispatcher,
    GraphScope,
    HostLoad,
    Layout,
    LossKernel,
    Recompute,
)
from windtunnel.validation.model_names import architecture_named
from windtunnel.validation.training_place import cluster_for
from windtunnel.validation.training_rows import training_case

DENSE = {
    "model": "Llama-3.1 8B", "gpu": "H100", "num_gpus": "64", "sequence_length_tokens": "4096",
    "global_batch_size_sequences": "256", "micro_batch_size_sequences": "1", "tensor_parallel": "2",
    "pipeline_parallel": "1", "expert_parallel": "1", "precision": "BF16", "recompute": "none",
    "framework": "Megatron-Bridge / NeMo container 26.04", "source_id": "megatron_bridge_26.04", "notes": "",
}  # fmt: skip
SPARSE = DENSE | {"model": "Qwen3_30B_a3B", "expert_parallel": "8", "tensor_parallel": "1"}


def layout_of(row: dict[str, str], **change: str) -> Layout:
    return training_case(row | change, architecture_named).layout


@pytest.mark.parametrize(
    ("notes", "scopes"),
    [
        ("", frozenset()),
        ("cuda_graph=none:[]", frozenset()),
        ("cuda_graph=none:full_iteration", {GraphScope.STEP}),
        ("dropless; cuda_graph=full_iteration:[]; moe_dispatcher=hybridep", {GraphScope.STEP}),
        ("cuda_graph=transformer_engine:mlp", {GraphScope.FEED_FORWARD}),
        (
            "cuda_graph=transformer_engine:[attn + moe_router + moe_preprocess]",
            {GraphScope.ATTENTION, GraphScope.ROUTER},
        ),
    ],
)
def test_scopes_of_graphs_are_read(notes: str, scopes: set[GraphScope]) -> None:
    assert layout_of(SPARSE, notes=notes).graphs == scopes


@pytest.mark.parametrize(
    ("stated", "context", "captured"),
    [
        ("1", "1", True),
        ("True", "2", True),
        ("", "1", False),
        ("", "2", False),
        ("0", "1", False),
        ("0", "2", True),
    ],
)
def test_submissions_to_mlperf_are_captured_where_they_say_so(
    stated: str, context: str, captured: bool
) -> None:
    row = {"source_id": "mlperf_training_v5.0", "layer_cuda_graph": stated, "context_parallel": context}
    assert layout_of(DENSE, **row).graphs == (LAYERS if captured else frozenset())


@pytest.mark.parametrize(
    ("release", "model", "gpu", "precision", "scopes"),
    [
        ("25.09", "Qwen3_30B_a3B", "B200", "FP8-CS", LAYERS | {GraphScope.EXPERTS}),
        ("25.09", "Qwen3_235B_a22B", "B200", "FP8-CS", frozenset()),
        ("25.09", "LLAMA3_8B", "GB200", "FP8-CS (per-tensor current scaling)", frozenset()),
        ("25.09", "LLAMA3_8B", "GB200", "FP8 block (H100: 1x128) or MXFP8", LAYERS | {GraphScope.EXPERTS}),
        ("25.09", "LLAMA3_8B", "H100", "FP8-CS", frozenset()),
        ("25.11", "LLAMA3_8B", "GB300", "FP8-MX", {GraphScope.STEP}),
        ("25.11", "Qwen3_30B_a3B", "GB200", "FP8-MX", {GraphScope.ROUTER}),
        ("26.02", "Qwen3_30B_a3B", "GB200", "FP8-MX", frozenset()),
    ],
)
def test_recipes_capture_where_their_tables_do_not_say(
    release: str, model: str, gpu: str, precision: str, scopes: set[GraphScope]
) -> None:
    row = {"model": model, "gpu": gpu, "precision": precision, "tensor_parallel": "1", "expert_parallel": "1"}
    assert layout_of(DENSE, **row, source_id=f"megatron_bridge_{release}").graphs == scopes


def test_recipes_exchange_tokens_beside_compute_where_their_tables_do_not_say() -> None:
    early = {"model": "Qwen3_235B_a22B", "source_id": "megatron_bridge_25.11", "tensor_parallel": "1"}
    assert layout_of(SPARSE, **early).overlap_experts
    assert not layout_of(SPARSE, **early, gpu="GB300").overlap_experts
    assert layout_of(SPARSE, **early | {"tensor_parallel": "2"}).overlap_tensor


@pytest.mark.parametrize(
    ("change", "dispatcher", "waits"),
    [
        ({"notes": "dropless; moe_dispatcher=hybridep"}, Dispatcher.HYBRIDEP, True),
        ({"notes": "dropless; moe_dispatcher=deepep"}, Dispatcher.DEEPEP, True),
        ({"notes": "dropless"}, Dispatcher.ALL_TO_ALL, True),
        (
            {"notes": "tokendrop; force-balanced + token drop", "source_id": "megatron_bridge_25.09"},
            Dispatcher.ALL_TO_ALL,
            False,
        ),
        (
            {"notes": "dropless", "gpu": "GB200", "source_id": "megatron_bridge_25.11"},
            Dispatcher.HYBRIDEP,
            True,
        ),
    ],
)
def test_experts_are_reached_as_the_release_does(
    change: dict[str, str], dispatcher: Dispatcher, waits: bool
) -> None:
    found = layout_of(SPARSE, **change)
    assert (found.dispatcher, found.counts_on_host) == (dispatcher, waits)


def test_overlap_of_tensor_parallel_traffic_is_for_dense_models_unless_stated() -> None:
    assert layout_of(DENSE).overlap_tensor
    assert not layout_of(DENSE, tp_comm_overlap="0").overlap_tensor
    drops = {"model": "DeepSeekV3", "tensor_parallel": "2"}
    assert not layout_of(SPARSE, **drops).overlap_tensor


def test_experts_are_split_as_layers_until_recipes_say_otherwise() -> None:
    wide = {"tensor_parallel": "2", "notes": ""}
    early = {"framework": "NeMo / Megatron-Core recipe v25.02", "source_id": "dgxc_benchmarking_v25.02"}
    assert layout_of(SPARSE, **wide, **early).expert_tensor == 2
    assert layout_of(SPARSE, **wide).expert_tensor == 1


def test_losses_follow_releases() -> None:
    nemo = {"framework": "NeMo container 24.07", "source_id": "nemo_24.07"}
    assert layout_of(DENSE).loss is LossKernel.FUSED
    assert layout_of(DENSE, **nemo).loss is LossKernel.COMPILED
    assert layout_of(DENSE, framework="Megatron-LM", source_id="mlm").loss is LossKernel.IN_PIECES
    fused = {"framework": "Megatron-LM", "source_id": "simumax_b200", "notes": "fused TE cross-entropy"}
    assert layout_of(DENSE, **fused).loss is LossKernel.FUSED


def test_fine_tuning_recipes_pack() -> None:
    assert layout_of(DENSE, task="sft").segment == layout_of(DENSE, task="lora_finetune").segment > 0
    assert layout_of(DENSE, task="pretrain").segment == 0
    assert layout_of(DENSE, task="lora_finetune", source_id="mlperf_training_v5.0").segment == 0


def test_compiled_layers_cost_the_host_what_is_written() -> None:
    titan = {"framework": "TorchTitan, torch.compile", "source_id": "torchtitan_2025-08"}
    assert layout_of(DENSE, **titan).host is HostLoad.COMPILED
    engine = {"framework": "NeMo AutoModel (PyTorch FSDP2) TE + DeepEP", "source_id": "nemo_automodel"}
    assert layout_of(SPARSE, **engine).host is HostLoad.FUSED


def test_jobs_of_several_racks_take_64_cards_of_each() -> None:
    assert cluster_for("gb200", 256).node.cards == 64
    assert cluster_for("gb200", 64).node.cards == cluster_for("gb200", 72).node.cards == 72
    assert cluster_for("h100-sxm", 256).node.cards == 8


def test_automodels_benchmarks_checkpoint_and_adapt_as_their_recipes() -> None:
    row = {
        "framework": "NeMo AutoModel (PyTorch FSDP2) TE + triton", "source_id": "nemo_automodel",
        "task": "lora_finetune", "recompute": "not stated (recipe yaml)",
    }  # fmt: skip
    several = training_case(DENSE | row, architecture_named)
    assert several.layout.adapts_all
    assert several.layout.recompute is Recompute.FULL
    assert "no recomputation" not in several.assumed
    alone = {"num_gpus": "1", "tensor_parallel": "1"}
    assert layout_of(DENSE, **row, **alone).recompute is Recompute.NONE
    deepep = {
        "framework": "NeMo AutoModel TE + DeepEP",
        "source_id": "nemo_automodel",
        "expert_parallel": "1",
    }
    assert layout_of(SPARSE, **deepep).expert == 64
