"""The files that `validate` knows by name: what each holds, and the columns without which it cannot be read.

Columns beside those listed are optional. What a row must state with a number above zero is listed apart, so that
one broken row does not take its file with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the rows of a file are."""

    KERNEL = "kernels"
    COLLECTIVE = "collectives"
    TRAINING = "training"
    STEP = "steps of a small decoder"
    SERVING = "serving"
    S5000 = "figures of an S5000 in words"
    UNPREDICTED = "unpredicted"


@dataclass(frozen=True, slots=True)
class Format:
    """One file name.

    Attributes:
        required: columns that must be there. positive: of these, those that hold a number above zero in every row.
        target: column of the measurement in seconds; empty where rows have several targets or another unit.
        reason: why files of this name are not predicted.
    """

    kind: Kind
    required: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    target: str = "latency_seconds"
    reason: str = ""


def _kernel(required: str, positive: str, target: str = "latency_seconds") -> Format:
    shape = tuple(positive.split())
    return Format(Kind.KERNEL, (*required.split(), *shape), shape, target)


def _collective(required: str, positive: str, target: str = "latency_seconds") -> Format:
    sizes = tuple(positive.split())
    return Format(Kind.COLLECTIVE, (*required.split(), *sizes), sizes, target)


def _unpredicted(reason: str) -> Format:
    return Format(Kind.UNPREDICTED, target="", reason=reason)


_AIC = "gpu_system library kernel_source"
_ATTENTION = "batch_size isl num_heads head_dim"
_TRAINING = Format(
    Kind.TRAINING,
    tuple(
        "model gpu num_gpus sequence_length_tokens global_batch_size_sequences "
        "tensor_parallel pipeline_parallel precision".split()
    ),
    target="",
)
_STEP_SIZES = tuple(
    "hidden heads kv_heads head_dim ffn layers vocabulary experts top_k batch sequence".split()
)
_SERVING = Format(Kind.SERVING, ("model", "gpu", "precision", "tensor_parallel"), target="")
_S5000 = Format(
    Kind.S5000, tuple("category device workload configuration metric value unit".split()), target=""
)
_MLPERF_SERVING = Format(Kind.SERVING, ("model", "gpu", "precision", "phase"), target="")
_PUBLISHED_ERRORS = _unpredicted("errors that another tool published: for comparing, nothing to predict")

FORMATS: dict[str, Format] = {
    "kernel_aic_gemm": _kernel("gpu_system library dtype", "m n k"),
    "kernel_aic_context_attention": _kernel(f"{_AIC} attn_dtype kv_cache_dtype", _ATTENTION),
    "kernel_aic_generation_attention": _kernel(f"{_AIC} attn_dtype kv_cache_dtype", _ATTENTION),
    "kernel_aic_mla": _kernel(f"{_AIC} table", "num_heads batch_size isl"),
    "kernel_aic_moe": _kernel(
        f"{_AIC} moe_dtype distribution",
        "num_tokens hidden_size inter_size topk num_experts moe_tp_size moe_ep_size",
    ),
    "kernel_aic_gated_deltanet": _kernel(f"{_AIC} phase", "num_k_heads head_k_dim num_v_heads"),
    "kernel_deepgemm_h800": _kernel("", "", "derived_seconds"),
    "kernel_fla_gb200": _kernel(
        "gpu operation phase dtype", "batch_size sequence_length_tokens heads head_dim"
    ),
    "kernel_flash_attention": _kernel("gpu implementation phase dtype", ""),
    "kernel_infersim_attention": _kernel("gpu kind phase", "num_heads"),
    "kernel_infersim_gdn": _kernel("gpu phase sub_kernel", "k_heads v_heads k_head_dim"),
    "kernel_infersim_gemm": _kernel("gpu precision", "m n k"),
    "kernel_infersim_grouped_gemm": _kernel("gpu", ""),
    "kernel_llmcompass_a100": _kernel("", ""),
    "kernel_simumax_efficiency": _kernel("", "", "derived_seconds"),
    "kernel_torch_ops": _kernel("gpu op dtype", ""),
    "kernel_vidur_mlp_ops": _kernel("gpu op", "num_tokens tensor_parallel", "median_seconds"),
    "micro_driver_launch_copy": _kernel("", "", ""),
    "micro_mamf_best_gemm": _kernel("", "", "derived_seconds"),
    "s5000_measured": _kernel("device group metric shape unit", "", ""),
    "collective_aiconfigurator_nccl": _collective("gpu_system collective", "num_gpus message_bytes"),
    "collective_aiconfigurator_custom_allreduce": _collective("gpu_system", "num_gpus message_bytes"),
    "collective_aiconfigurator_deepep": _collective(
        "gpu_system mode num_sms", "num_nodes hidden_size tokens_per_rank topk num_experts", ""
    ),
    "collective_nccl_published": _collective(
        "gpu collective inter_node_network", "num_gpus gpus_per_node message_bytes"
    ),
    "collective_deepep": _collective("gpu kernel_mode op", "ep_size topk hidden_size tokens_per_rank"),
    "collective_trtllm_gb200_alltoall": _collective(
        "gpu operation", "num_gpus top_k tokens_per_gpu bytes_per_token"
    ),
    "collective_vidur_nccl": _collective(
        "system collective", "num_ranks devices_per_node message_bytes", "median_seconds"
    ),
    "vtrain_a100_measured": Format(
        Kind.TRAINING,
        tuple("gpus global_batch micro_batch hidden heads layers seq_len tp dp pp".split()),
        target="iteration_ms",
    ),
    "step_torch": Format(
        Kind.STEP,
        ("gpu", "block", "mode", *_STEP_SIZES),
        tuple(name for name in _STEP_SIZES if name not in ("experts", "top_k")),
        target="step_seconds",
    ),
    **{
        f"train_{name}": _TRAINING
        for name in "mlperf_logs megatron_bridge dgxc_benchmarking torchtitan nemo_automodel nemo_pages "
        "llm_foundry megatron_lm papers simumax_b200 simumax_a100_pcie".split()
    },
    **{f"infer_{name}": _SERVING for name in "trtllm_overview trtllm_online published_misc".split()},
    "infer_mlperf": _MLPERF_SERVING,
    "s5000_end_to_end": _S5000,
    "kernel_deepseek_h800_train_summary": _unpredicted("kernels of a trace, named without their shapes"),
    "kernel_deepseek_h800_train_trace": _unpredicted("kernels of a trace, named without their shapes"),
    "micro_flagperf_a100": _unpredicted("peaks of a card, which are inputs"),
    "simumax_memband_efficiency": _unpredicted("efficiencies without a time"),
    "simumax_network": _unpredicted("efficiencies without a time"),
    "simumax_b200_accuracy": _PUBLISHED_ERRORS,
    "simumax_a100_pcie_accuracy": _PUBLISHED_ERRORS,
}
"""File name without suffix → format."""
