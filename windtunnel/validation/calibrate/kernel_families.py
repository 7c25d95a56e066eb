"""Which parameters of each kernel family are fitted, where they start and how far they may go.

Starts are the physics textbook values that the data sheet tier uses; bounds keep a fit from explaining one
effect by another. Fractions are of data sheet quantities, so that fits carry over to chips not measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.program.work import Family
from windtunnel.validation.calibrate.fitting import Free


@dataclass(frozen=True, slots=True)
class Stage:
    """One parameter file: the families it prices, the tables it learns from, and its parameters.

    ``extras`` are parameters of benchmarks that do more than the kernel, by (library, precision).
    """

    file: str
    families: tuple[Family, ...]
    tables: tuple[str, ...]
    free: tuple[Free, ...]
    dims: tuple[str, ...]
    fixed: tuple[tuple[str, float], ...] = ()
    extras: tuple[tuple[tuple[str, str], tuple[Free, ...]], ...] = ()
    generic_of: tuple[str, ...] = ()  # libraries that the generic fit starts from; all where empty
    known: tuple[
        tuple[str, str, float], ...
    ] = ()  # (kernel, parameter, value): limits of a library, not fitted


_PRODUCT = (
    Free("issue", 2e4, 500.0, 5e5),
    Free("edge", 5.0, 0.05, 60.0),
    Free("cache", 3.0, 0.3, 12.0),
    Free("stream", 3.0, 0.8, 12.0),
    Free("dram", 0.83, 0.3, 1.0),
    Free("l2", 0.6, 0.15, 3.0),
    Free("resident", 0.3, 0.02, 2.0),
    Free("sharp", 4.0, 1.2, 12.0),
    Free("fill_clocks", 1000.0, 80.0, 2e4),
    Free("floor_s", 3e-6, 1e-6, 5e-5),
    Free("split_s", 2.5e-6, 5e-7, 1e-3),
    Free("throttle", 0.1, 0.005, 0.6),
    Free("throttle_s", 2e-3, 3e-4, 3e-2),
)
_QUANTISE = (Free("quantise", 1.5, 0.02, 6.0), Free("quantise_s", 2e-6, 1e-7, 4e-5))
_STREAM = (
    Free("move", 100.0, 0.5, 2000.0),
    Free("l2", 0.6, 0.1, 3.0),
    Free("resident", 0.3, 0.02, 3.0),
    Free("floor_s", 2.5e-6, 5e-7, 2e-5),
)
_ATTENTION = (
    Free("issue", 1e4, 300.0, 5e5),
    Free("narrow", 16.0, 0.5, 120.0),
    Free("softmax", 1.0, 0.1, 5.0),
    Free("tail", 0.5, 0.05, 1.0),
    Free("dram", 0.8, 0.05, 2.0),
    Free("l2", 0.6, 0.1, 3.0),
    Free("resident", 0.5, 0.02, 2.0),
    Free("throttle", 0.05, 0.005, 0.25),
    Free("fill_clocks", 1000.0, 80.0, 6e4),
    Free("floor_s", 5e-6, 1e-6, 5e-5),
)
_DECODE = (
    Free("issue", 3e3, 50.0, 1e5),
    Free("dram", 0.75, 0.1, 1.0),
    Free("passes", 1.0, 0.1, 30.0),
    Free("step_s", 5e-10, 1e-11, 1e-6, width=3.0),
    Free("fill_clocks", 1000.0, 20.0, 4e4),
    Free("floor_s", 5e-6, 1e-6, 4e-4),
)
_DELTANET = (
    Free("issue", 2e3, 50.0, 1e5),
    Free("dram", 0.6, 0.05, 1.0),
    Free("spill", 0.7, 0.01, 4.0),
    Free("step_s", 6e-7, 1e-8, 2e-5),
    Free("floor_s", 4e-6, 3e-7, 3e-5),
)
_TORCH_LOOP = ((("torch", "bf16"), (Free("host_s", 1e-5, 1e-7, 5e-5),)),)  # timed with its launch

_DRIVER_LOOP = ((("driver", "bf16"), (Free("host_s", 2e-6, 1e-7, 2e-5),)),)
_VECTOR = (("vector", 0.5),)
_ROWS = (*_STREAM, Free("single", 1.5, 0.2, 20.0))
_LINK = (Free("rate", 0.85, 0.02, 1.2), Free("floor_s", 1e-5, 2e-6, 3e-5))
_AIC_ATTENTION = ("kernel_aic_mla", "kernel_infersim_attention")

STAGES = (
    Stage(
        "pointwise",
        (Family.POINTWISE, Family.RANDOM),
        ("kernel_vidur_mlp_ops", "kernel_aic_gated_deltanet", "kernel_llmcompass_a100", "s5000_measured"),
        _STREAM,
        (),
        _VECTOR,
        _TORCH_LOOP,
    ),
    Stage(
        "copy",
        (Family.COPY,),
        ("micro_driver_launch_copy", "s5000_measured"),
        _STREAM,
        (),
        _VECTOR,
        _DRIVER_LOOP,
    ),
    Stage("host_copy", (Family.HOST_COPY,), ("micro_driver_launch_copy", "s5000_measured"), _LINK, ()),
    Stage(
        "norm",
        (Family.NORM,),
        ("kernel_vidur_mlp_ops", "kernel_llmcompass_a100"),
        _ROWS,
        ("rows", "columns"),
        _VECTOR,
        _TORCH_LOOP,
    ),
    Stage(
        "softmax",
        (Family.SOFTMAX,),
        ("kernel_llmcompass_a100", "s5000_measured"),
        _ROWS,
        ("rows", "columns"),
        _VECTOR,
        _TORCH_LOOP,
    ),
    Stage("indexing", (Family.EMBEDDING,), ("kernel_vidur_mlp_ops",), _STREAM, ("rows", "columns"), _VECTOR),
    Stage(
        "gemm",
        (Family.GEMM,),
        (
            "kernel_aic_gemm",
            "kernel_infersim_gemm",
            "kernel_deepgemm_h800",
            "kernel_simumax_efficiency",
            "kernel_vidur_mlp_ops",
            "s5000_measured",
        ),
        _PRODUCT,
        ("m", "n", "k"),
        extras=tuple(
            ((library, precision), _QUANTISE)
            for library in ("trtllm", "sglang", "vllm")
            for precision in ("fp8", "fp4", "int8")
        ),
    ),
    Stage(
        "grouped_gemm",
        (Family.GROUPED_GEMM,),
        (
            "kernel_aic_moe",
            "kernel_infersim_grouped_gemm",
            "kernel_deepgemm_h800",
            "kernel_simumax_efficiency",
        ),
        _PRODUCT,
        ("tokens", "n", "k"),
        generic_of=("torch",),  # products alone; the fused layers of serving libraries do more
    ),
    Stage(
        "attention",
        (Family.ATTENTION,),
        (
            "kernel_aic_context_attention",
            "kernel_flash_attention",
            "kernel_simumax_efficiency",
            "s5000_measured",
            *_AIC_ATTENTION,
        ),
        _ATTENTION,
        ("q_len", "kv_len", "qk_dim"),
        (),
        generic_of=("fa2", "fa3", "cudnn"),  # kernels alone; serving libraries add the cache write
    ),
    Stage(
        "attention_backward",
        (Family.ATTENTION_BACKWARD,),
        ("kernel_flash_attention", "kernel_simumax_efficiency", "s5000_measured"),
        _ATTENTION,
        ("q_len", "kv_len", "qk_dim"),
        (),
    ),
    Stage(
        "decode_attention",
        (Family.DECODE_ATTENTION,),
        ("kernel_aic_generation_attention", *_AIC_ATTENTION),
        _DECODE,
        ("batch", "kv_len", "qk_dim"),
        (
            ("group_max", 1e6),
            ("l2", 0.0),
            ("resident", 0.0),
        ),  # caches are too large to stay in the level-2 cache
        known=(("trtllm", "group_max", 32.0),),  # XQA kernels are built for groups of up to 32 heads
    ),
    Stage(
        "deltanet", (Family.DELTANET,), ("kernel_aic_gated_deltanet",), _DELTANET, ("batch", "heads", "q_len")
    ),
)
"""In the order in which they are fitted: later stages price parts of earlier families."""

LATER = {
    stage.file: frozenset(family for later in STAGES[number + 1 :] for family in later.families)
    for number, stage in enumerate(STAGES)
}
"""Families that are not fitted yet when a stage is; rows that need them are left to their own stage."""
