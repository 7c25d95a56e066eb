"""Grouped matrix products: one weight matrix per expert, rows sorted by expert (mixture-of-experts layers).

    rows     = tokens ÷ active
    active   = experts × (1 − (1 − 1 ÷ experts)^tokens)    experts that receive a row at all, unless told
    tiles    = Σ over groups of experts that are loaded alike: experts × ⌈rows ÷ tm⌉ × ⌈n ÷ tn⌉
    memory   = (active × n × k weights + tokens × (n + k)) × element ÷ (dram × bandwidth)

    time     = floor + waves × fill ÷ clock + |compute, cache, memory| + serial × the lesser of arithmetic and memory

with the terms of ``gemm.py``; the tile height is the one that suits ``rows``. Part of memory adds up, since experts of
few rows wait for their weights while others compute. The most
loaded expert does not bound the kernel, since tiles of all experts share the waves.

Triton's experts go by rules that count the tokens of the layer (``tiles.py``), but for layers whose tiles an engine
ships (``tuned_experts.py``); their blocks wait for memory alone (``block_waits.py``).

Benchmarks that repeat one layer find its weights in the level-2 cache where all that the layer touches
(``touched_bytes``) fits there; in a program other layers come between.

Fitted on A100, H100, H800 and B200. Layers left out, weighted by time, of fused layers of serving libraries: Triton 6
to 12 % median, Marlin 8 to 16 %; CUTLASS in TensorRT-LLM 7 to 16 %, of which one layer in seven runs a tile that its
tuner did not choose, four times slower.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, WEIGHT_ONLY_BYTES, Batch
from windtunnel.cost.fit import REPEATS, Fit
from windtunnel.cost.gemm import ACCESS_BYTES, GemmParameters, Products, product_times
from windtunnel.cost.kernel_time import Floats, Times
from windtunnel.cost.tiles import MENUS, By
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of grouped GEMM works; dims tokens, n, k, experts, top_k, and active where it is known.

    ``menu`` is the number of another menu of tiles than the library's where a work states one.
    """
    usual = fit.value("menu", 0.0)
    told = batch.dim("menu", usual) if "menu" in batch.dims else np.full(len(batch), usual)
    seconds, limit = np.empty(len(batch)), np.empty(len(batch), dtype=np.int64)
    for number in np.unique(told).tolist():
        mask = told == number
        part = _by_menu(batch.where(mask), chip, fit.with_values({**dict(fit.values), "menu": number}))
        seconds[mask], limit[mask] = part.seconds, part.limit
    return Times(seconds, limit)


def _by_menu(batch: Batch, chip: Chip, fit: Fit) -> Times:
    tokens = np.maximum(batch.dim("tokens", 1), 1.0)
    experts = np.maximum(batch.dim("experts", 1), 1.0)
    drawn = -np.expm1(tokens * np.log1p(-np.minimum(1.0 / experts, 1.0 - 1e-9)))
    told = batch.dim("active")
    active = np.clip(np.where(told > 0, told, experts * drawn), 1.0, experts)
    element = ELEMENT_BYTES[batch.precision]
    weight = weight_bytes(batch.precision, batch.variant)
    weights = experts * batch.dim("n", 1) * batch.dim("k", 1) * weight
    idle = weights * (1.0 - active / experts)
    moved = np.maximum(batch.bytes_moved - np.minimum(idle, batch.bytes_read), 1.0)
    x = Products(
        groups=_groups(batch),
        height=_height(batch, MENUS[int(fit.value("menu", 0.0))].by, experts),
        touched=_told(batch, "touched_bytes") if fit.value(REPEATS, 0.0) else None,
        m=np.ceil(tokens / active),
        n=batch.dim("n", 1),
        k=batch.dim("k", 1),
        distinct=_told(batch, "distinct_rows") if "distinct_rows" in batch.dims else _tokens(batch),
        batch=active,
        bytes_moved=moved,
        a_bytes=element,
        b_bytes=weight,
        access=np.where(batch.dim("access") > 0, batch.dim("access"), ACCESS_BYTES)
        if "access" in batch.dims
        else None,
    )
    return product_times(x, batch.precision, chip, GemmParameters.of(fit))


SCALED_BYTES = {
    ("fp4", ""): 9.0 / 16.0,  # NVFP4: a scale of a byte for 16 elements
    ("fp8", "w4a8"): 17.0 / 32.0,  # MXFP4: for 32
    ("bf16", "int4_wo"): 17.0 / 32.0,
}
"""Bytes of an element of 4-bit weights with their scales (OCP Microscaling formats 1.0; NVFP4 in CUTLASS)."""


def weight_bytes(precision: str, variant: str) -> float:
    """Bytes of an element of the weights."""
    usual = WEIGHT_ONLY_BYTES.get(variant, ELEMENT_BYTES[precision])
    return SCALED_BYTES.get((precision, variant), usual)


def _height(batch: Batch, by: By, experts: Floats) -> Floats | None:
    """What a library's rule goes by: the rows that it expects of an expert, or the tokens that come to the layer."""
    if by is By.ROWS:
        return _told(batch, "expected_rows")
    tokens = _tokens(batch)
    return tokens / experts if by is By.SHARE else tokens


def _tokens(batch: Batch) -> Floats:
    """Tokens that come to the layer; where nobody says, as many as make the rows by their choices."""
    told = _told(batch, "layer_tokens")
    return batch.dim("tokens", 1) / batch.dim("top_k", 1) if told is None else told


def _told(batch: Batch, name: str) -> Floats | None:
    """A dimension that only some works state."""
    return batch.dim(name) if name in batch.dims else None


def _groups(batch: Batch) -> tuple[tuple[Floats, Floats], ...]:
    """(experts, rows of one) of experts that are loaded alike, where the work says so."""
    numbers = range(sum(name.endswith("_experts") for name in batch.dims))
    return tuple((batch.dim(f"group{i}_experts"), batch.dim(f"group{i}_rows")) for i in numbers)
