"""A kernel described by its dimensions, as the command line gives them: the same work that measured rows become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, Batch
from windtunnel.cost.kernel_time import Floats
from windtunnel.errors import WindtunnelError
from windtunnel.program.work import Family
from windtunnel.specs.table import did_you_mean
from windtunnel.validation.aliases import precision_of
from windtunnel.validation.kernel_rows.deltanet import CHUNK, delta_rule
from windtunnel.validation.kernel_rows.moe import grouped
from windtunnel.validation.kernel_rows.torch_ops import DTYPES, OPS, works_of
from windtunnel.validation.measured import attention, gemm

NUMBER_MAX = 1e12
Numbers = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kernel that can be asked for. ``optional``: dimension → value where it is not given."""

    required: tuple[str, ...]
    optional: tuple[tuple[str, float], ...]
    build: Callable[[Numbers, str, str], Batch]


def _one(value: float) -> Floats:
    return np.array([value], dtype=np.float64)


def _gemm(x: Numbers, precision: str, variant: str) -> Batch:
    output = ELEMENT_BYTES[precision] if precision in ("fp32", "tf32", "fp64") else 2.0
    weight = {"int8_wo": 1.0, "int4_wo": 0.5}.get(variant)
    return gemm(
        _one(x["m"]), _one(x["n"]), _one(x["k"]), precision,
        count=x["batch"], variant=variant, weight_bytes=weight, output_bytes=output,
    )  # fmt: skip


def _grouped(x: Numbers, precision: str, variant: str) -> Batch:
    active = x["active"] or min(x["experts"], x["tokens"])
    return grouped(
        _one(x["tokens"]), _one(x["n"]), _one(x["k"]), _one(x["experts"]), _one(active), precision, variant
    )


def _attention(family: Family) -> Callable[[Numbers, str, str], Batch]:
    def build(x: Numbers, precision: str, variant: str) -> Batch:
        decode = family is Family.DECODE_ATTENTION
        q_len = 1.0 if decode else x["q_len"]
        return attention(
            family, precision,
            sequences=_one(x["batch"]), heads=_one(x["heads"]), kv_heads=_one(x["kv_heads"] or x["heads"]),
            q_len=_one(q_len), kv_len=_one(x["kv_len"] or q_len),
            qk_dim=_one(x["head_dim"]), v_dim=_one(x["v_dim"] or x["head_dim"]),
            causal=x["causal"], window=x["window"], variant=variant,
        )  # fmt: skip

    return build


def _deltanet(x: Numbers, precision: str, variant: str) -> Batch:
    chunk = 0.0 if variant == "recurrent" else CHUNK
    return delta_rule(
        _one(x["batch"]), _one(x["q_len"]), _one(x["k_heads"] or x["heads"]), _one(x["heads"]),
        _one(x["head_dim"]), chunk=chunk,
    )  # fmt: skip


def _torch_op(name: str) -> Kind:
    """An operation as programs record it."""

    def build(x: Numbers, precision: str, variant: str) -> Batch:
        if precision not in DTYPES:
            raise WindtunnelError(
                "E962", f"{name} is not computed in {precision}", hint="one of: " + ", ".join(DTYPES)
            )
        return Batch.of_works(works_of(name, {key: int(value) for key, value in x.items()}, precision)[:1])

    entries = (("entries", 32768.0),) if name == "embedding" else ()
    return Kind(tuple(size for size in OPS[name].sizes if size != "entries"), entries, build)


_HEADS = (
    ("batch", 1.0),
    ("kv_heads", 0.0),
    ("kv_len", 0.0),
    ("v_dim", 0.0),
    ("causal", 1.0),
    ("window", 0.0),
)
_PREFILL = Kind(("heads", "q_len", "head_dim"), _HEADS, _attention(Family.ATTENTION))

KINDS: dict[str, Kind] = {
    "gemm": Kind(("m", "n", "k"), (("batch", 1.0),), _gemm),
    "grouped_gemm": Kind(("tokens", "n", "k", "experts"), (("active", 0.0),), _grouped),
    "attention": _PREFILL,
    "attention_backward": Kind(_PREFILL.required, _HEADS, _attention(Family.ATTENTION_BACKWARD)),
    "decode_attention": Kind(("heads", "kv_len", "head_dim"), _HEADS, _attention(Family.DECODE_ATTENTION)),
    "deltanet": Kind(("heads", "q_len", "head_dim"), (("batch", 1.0), ("k_heads", 0.0)), _deltanet),
    **{
        name: _torch_op(name)
        for name in ("layer_norm", "softmax", "sum", "embedding", "silu", "add", "copy", "adamw")
    },
}
"""Name on the command line → dimensions it takes."""

DIMENSIONS = tuple(
    sorted({name for kind in KINDS.values() for name in (*kind.required, *(n for n, _ in kind.optional))})
)
"""Every dimension that some kernel takes."""


def batch_asked(name: str, given: Mapping[str, float], dtype: str) -> Batch:
    """The kernel called ``name`` with the given dimensions.

    Raises:
        WindtunnelError: E961, dimensions missing, out of range or of another kernel; E962, an unknown dtype.
    """
    kind = KINDS[name]
    known = (*kind.required, *(other for other, _ in kind.optional))
    foreign = [dim for dim in given if dim not in known]
    missing = [dim for dim in kind.required if dim not in given]
    bad = [dim for dim, value in given.items() if not _sensible(dim, value)]
    example = " ".join(f"--{dim.replace('_', '-')} {given.get(dim, 4096):g}" for dim in kind.required)
    if foreign or missing or bad:
        first = [*foreign, *missing, *bad][0].replace("_", "-")
        what = "does not take" if foreign else "needs" if missing else "has an impossible"
        raise WindtunnelError(
            "E961",
            f"{name} {what} --{first}",
            hint=f"windtunnel explain {name} {example} --dtype bf16 --on h100-sxm",
            values={"it takes": ", ".join(f"--{dim.replace('_', '-')}" for dim in known)},
        )
    precision = precision_of(dtype)
    if precision is None:
        names = ("bf16", "fp16", "tf32", "fp32", "fp8", "fp8_block", "int8", "fp4")
        raise WindtunnelError(
            "E962",
            f"`{dtype}` is no precision that is known",
            hint=f"{did_you_mean(dtype, names)}one of: {', '.join(names)}",
        )
    return kind.build({**dict(kind.optional), **given}, *precision)


def _sensible(dim: str, value: float) -> bool:
    least = 0.0 if dim in ("causal", "window") else 1.0
    return least <= value <= NUMBER_MAX
