"""Which parameters of each kernel family are fitted, where they start and how far they may go.

Starts are the physics textbook values that the data sheet tier uses; bounds keep a fit from explaining one
effect by another. Fractions are of data sheet quantities, so that fits carry over to chips not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from windtunnel.cost.memory_path import CACHE_SHARE
from windtunnel.cost.splits import RULES
from windtunnel.cost.tiles import GENERAL
from windtunnel.program.work import Family
from windtunnel.validation.calibrate.fitting import Free


@dataclass(frozen=True, slots=True)
class Stage:
    """One parameter file: the families it prices, the tables it learns from, and its parameters.

    ``extras`` are parameters of benchmarks that do more than the kernel, by (library, precision or variant).
    """

    file: str
    families: tuple[Family, ...]
    tables: tuple[str, ...]
    free: tuple[Free, ...]
    dims: tuple[str, ...]
    fixed: tuple[tuple[str, float], ...] = ()
    extras: tuple[tuple[tuple[str, str], tuple[Free, ...]], ...] = ()
    by_hand: tuple[
        tuple[str, float], ...
    ] = ()  # plain kernels that nobody measured: the generic fit, uncalibrated
    generic_of: tuple[str, ...] = ()  # libraries that the generic fit starts from; all where empty
    choices: tuple[tuple[str, float], ...] = ()  # of a parameter that is no quantity: each is tried
    known: tuple[
        tuple[str, str, float], ...
    ] = ()  # (kernel, parameter, value): limits of a library, not fitted
    begins: tuple[
        Mapping[str, float], ...
    ] = ()  # where else the search for parameters begins; if anywhere, a chip's
    # own fit may leave the pooled one behind
    ruled: tuple[
        Free, ...
    ] = ()  # of products whose menu of tiles is known; in place of ``free`` of the same name


_PRODUCT = (
    Free("issue", 4e4, 500.0, 5e5),
    Free("edge", 8.0, 0.05, 60.0),
    Free("cache", 1.0, 0.3, 12.0),
    Free("stream", 60.0, 3.0, 600.0),
    Free("dram", 0.88, 0.3, 0.97),
    Free("fill_clocks", 1500.0, 80.0, 2e4),
    Free("floor_clocks", 3500.0, 500.0, 9e4),
    Free("split_clocks", 4500.0, 500.0, 1e6),
    Free("store", 30.0, 2.0, 500.0, width=1.0),
    Free("throttle", 0.5, 0.02, 1.0),
    Free("throttle_s", 2e-3, 3e-4, 3e-2, width=1.0),
)
_DENSE = (
    *(item for item in _PRODUCT if item.name != "cache"),
    Free("cache", CACHE_SHARE, 0.3, 0.9, width=0.15),
    Free("shared", 2.0, 0.5, 4.0),
)
_RULED = (Free("beyond_clocks", 0.03, 5e-4, 1.0, width=1.5), Free("again", 0.5, 0.02, 1.0, width=1.0))
_WAITING = (  # Triton's, whose arithmetic is as far from the textbook as its tiles are small
    Free("issue", 2e4, 500.0, 5e5, width=1.5),
    Free("edge", 15.0, 0.05, 60.0, width=1.0),
    Free("step_clocks", 500.0, 20.0, 5000.0),
    Free("gathered", 0.1, 1e-3, 1.0, width=1.5),
)
_MENUS = tuple(("menu", float(number)) for number in range(GENERAL))
_OF_EXPERTS = (("menu", 0.0), ("menu", 5.0), ("menu", 6.0))  # searched, or by the rows of an expert
_SEARCHED = (("menu", 0.0),)
_SPLIT_RULES = tuple(("rule", float(number)) for number in range(len(RULES)))
_QUANTISE = (
    Free("quantise", 1.5, 0.02, 6.0),
    Free("quantise_clocks", 3500.0, 200.0, 8e4),
    Free("quantise_row_clocks", 300.0, 5.0, 5e3, width=1.0),
)
_STREAM = (
    Free("move", 20.0, 0.3, 400.0),
    Free("dram", 0.9, 0.5, 0.97),
    Free("floor_clocks", 3500.0, 700.0, 4e4),
)
_ATTENTION = (
    Free("issue", 1e4, 300.0, 5e5),
    Free("narrow", 16.0, 0.5, 120.0),
    Free("softmax", 1.0, 0.1, 5.0),
    Free("tail", 0.5, 0.05, 1.0),
    Free("skip", 0.95, 0.02, 1.0, width=1.0),
    Free("move", 15.0, 0.3, 1000.0),
    Free("throttle", 0.45, 0.02, 1.0, width=0.15),
    Free("fill_clocks", 1000.0, 80.0, 6e4),
    Free("floor_clocks", 8000.0, 1500.0, 2e6),
    Free("wide", 1.0, 0.4, 5.0),
)
_DECODE = (
    Free("issue", 3e3, 50.0, 1e5),
    Free(
        "dram", 0.87, 0.5, 0.97, width=0.15
    ),  # far less is no memory's doing, and goes with blocks (``stream``)
    Free("move", 10.0, 0.1, 300.0),
    Free("splits", 32.0, 1.0, 256.0, width=2.0),
    Free("stream", 15.0, 0.2, 200.0, width=1.0),
    Free("fill_clocks", 1000.0, 20.0, 4e4),
    Free("floor_clocks", 1e4, 1500.0, 2e6),
    Free("combine_clocks", 3000.0, 50.0, 4e4, width=1.5),
    Free("pack_clocks", 300.0, 10.0, 4e4, width=1.5),
    Free("alone_clocks", 1000.0, 20.0, 4e4),
    Free("alone_floor_clocks", 1e4, 1500.0, 2e6),
    Free("alone_stream", 15.0, 0.2, 200.0, width=1.0),
    Free("wide_stream", 15.0, 0.2, 200.0, width=1.0),
    Free("alone_resident", 2.0, 1.0, 16.0),
    Free("resident", 1.2, 1.0, 8.0),
    Free("key_clocks", 3.0, 0.05, 60.0, width=1.5),
    Free("window_keys", 100.0, 1.0, 1024.0, width=1.0),
)
_DELTANET = (
    Free("issue", 2e3, 1500.0, 1e5),
    Free("move", 15.0, 0.3, 400.0),
    Free("dram", 0.85, 0.3, 0.97),
    Free("spill", 0.7, 0.01, 4.0),
    Free("side", 1.5, 0.5, 16.0),
    Free("step_clocks", 1000.0, 15.0, 4e4),
    Free("row_clocks", 100.0, 1.0, 3000.0, width=1.5),
    Free("floor_clocks", 6000.0, 400.0, 6e4),
)
_TORCH_LOOP = ((("torch", "bf16"), (Free("host_s", 1e-5, 1e-7, 5e-5),)),)  # timed with its launch

_DRIVER_LOOP = ((("driver", "bf16"), (Free("host_s", 2e-6, 1e-7, 2e-5),)),)
_VECTOR = (("vector", 0.5),)
_ROWS = (*_STREAM, Free("single", 20.0, 2.0, 300.0))
_LANES = tuple(
    ((library, "bf16"), (Free("lane_clocks", 200.0, 10.0, 3000.0),))
    for library in ("trtllm/conv", "sglang-by-channel/conv")  # a block a channel
)
_HIDDEN_MEMORY = (
    ("dram", 0.85),
    ("pack", 0.0),
    ("tile", 0.0),
    ("synchronous", 0.0),
    ("copies", 0.0),
    ("quantised", 0.0),
)  # prefill is rarely bound by memory
_SYNCHRONOUS = (("fa2", "synchronous", 1.0),)  # written for A100
_PACKED = (("pack", 0.0), ("pack", 1.0))
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
        _TORCH_LOOP + _LANES,
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
    Stage(
        "indexing",
        (Family.EMBEDDING,),
        ("kernel_vidur_mlp_ops",),
        _STREAM,
        ("rows", "columns"),
        _VECTOR,
        by_hand=(("move", 9.0), ("dram", 0.8), ("vector", 0.5), ("floor_clocks", 4000.0)),
    ),
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
        _DENSE,
        ("m", "n", "k"),
        _SEARCHED,
        choices=_MENUS,
        ruled=_RULED,
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
        (*_PRODUCT, Free("serial", 0.7, 0.02, 1.0)),
        ("tokens", "n", "k"),
        (*_SEARCHED, ("repeats", 1.0)),
        choices=_OF_EXPERTS,
        ruled=_WAITING,
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
        _HIDDEN_MEMORY,
        choices=_PACKED,
        begins=({"issue": 1e3, "skip": 0.5, "narrow": 80.0, "fill_clocks": 1e4},),
        known=_SYNCHRONOUS,
        generic_of=("fa2", "fa3", "cudnn"),  # kernels alone; serving libraries add the cache write
    ),
    Stage(
        "attention_backward",
        (Family.ATTENTION_BACKWARD,),
        ("kernel_flash_attention", "kernel_simumax_efficiency", "s5000_measured"),
        _ATTENTION,
        ("q_len", "kv_len", "qk_dim"),
        _HIDDEN_MEMORY,
        known=_SYNCHRONOUS,
    ),
    Stage(
        "decode_attention",
        (Family.DECODE_ATTENTION,),
        ("kernel_aic_generation_attention", *_AIC_ATTENTION),
        _DECODE,
        ("batch", "kv_len", "qk_dim"),
        (
            ("group_max", 1e6),
            ("repeats", 1.0),
            ("rule", 0.0),
            ("rows", 64.0),
            ("grouped_least", 0.0),
            ("paged", 0.0),
        ),
        choices=_SPLIT_RULES,
        known=(
            ("trtllm", "group_max", 32.0),  # XQA kernels are built for groups of up to 32 heads
            ("trtllm", "grouped_least", 0.25),
            ("triton", "rows", 16.0),  # heads of one block
            ("triton@vllm-mla", "rule", 4.0),  # always as many parts: ``triton_mla.py``, ``num_kv_splits``
            ("triton@vllm-mla", "splits", 4.0),
            ("triton@vllm-mla", "group_max", 1e5),  # one head alone takes another kernel
            ("fa2@vllm", "paged", 1.0),  # its kernels over a paged cache (``occupancy.py``)
        ),
        extras=((("fa3_absorbed@sglang-mla", "mla_fp8_cache"), (Free("widen", 1.5, 0.05, 60.0),)),),
        begins=({"stream": 3.0, "splits": 2.0},),
    ),
    Stage(
        "deltanet",
        (Family.DELTANET,),
        ("kernel_aic_gated_deltanet", "s5000_end_to_end"),
        _DELTANET,
        ("batch", "heads", "q_len"),
        (("repeats", 1.0), ("whole", 0.0)),
        extras=((("flashinfer", "bf16"), (Free("begin_clocks", 1e4, 100.0, 1e5),)),),
        known=(("flashinfer", "whole", 1.0),),  # one head a multiprocessor, to its end
    ),
)
"""In the order in which they are fitted: later stages price parts of earlier families."""

LATER = {
    stage.file: frozenset(family for later in STAGES[number + 1 :] for family in later.families)
    for number, stage in enumerate(STAGES)
}
"""Families that are not fitted yet when a stage is; rows that need them are left to their own stage."""
