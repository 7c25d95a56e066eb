"""Grouped matrix products: one weight matrix per expert, rows sorted by expert (mixture-of-experts layers).

    rows     = tokens ÷ active
    active   = experts × (1 − (1 − 1 ÷ experts)^tokens)    experts that receive a row at all, unless told
    tiles    = Σ over groups of experts that are loaded alike: experts × ⌈rows ÷ tm⌉ × ⌈n ÷ tn⌉
    memory   = (active × n × k weights + tokens × (n + k)) × element ÷ (dram × bandwidth)

    time     = floor + waves × fill ÷ clock + |compute, cache| + memory

with the terms of ``gemm.py``; the tile height is the one that suits ``rows``. Memory adds up, since experts of few
rows wait for their weights while others compute. The most
loaded expert does not bound the kernel, since tiles of all experts share the waves.

Benchmarks that repeat one layer find its weights in the level-2 cache where all that the layer touches
(``touched_bytes``) fits there; in a program other layers come between.

Fitted on A100, H100, H800 and B200. Layers left out, weighted by time: DeepGEMM 5 to 6 % median; fused layers of
serving libraries 6 to 27 %, Triton and Marlin on A100 20 to 55 %, since some of their shapes run untuned.
"""

from __future__ import annotations

import numpy as np

from windtunnel.cost.batch import ELEMENT_BYTES, WEIGHT_ONLY_BYTES, Batch
from windtunnel.cost.fit import REPEATS, Fit
from windtunnel.cost.gemm import GemmParameters, Products, product_times
from windtunnel.cost.kernel_time import Floats, Times
from windtunnel.specs.schema import Chip


def times(batch: Batch, chip: Chip, fit: Fit) -> Times:
    """Times of grouped GEMM works; dims tokens, n, k, experts, top_k, and active where it is known."""
    tokens = np.maximum(batch.dim("tokens", 1), 1.0)
    experts = np.maximum(batch.dim("experts", 1), 1.0)
    drawn = -np.expm1(tokens * np.log1p(-np.minimum(1.0 / experts, 1.0 - 1e-9)))
    told = batch.dim("active")
    active = np.clip(np.where(told > 0, told, experts * drawn), 1.0, experts)
    element = ELEMENT_BYTES[batch.precision]
    weight_bytes = WEIGHT_ONLY_BYTES.get(batch.variant, element)
    weights = experts * batch.dim("n", 1) * batch.dim("k", 1) * weight_bytes
    idle = weights * (1.0 - active / experts)
    moved = np.maximum(batch.bytes_moved - np.minimum(idle, batch.bytes_read), 1.0)
    x = Products(
        groups=_groups(batch),
        height=_told(batch, "expected_rows"),
        touched=_told(batch, "touched_bytes") if fit.value(REPEATS, 0.0) else None,
        m=np.ceil(tokens / active),
        n=batch.dim("n", 1),
        k=batch.dim("k", 1),
        batch=active,
        bytes_moved=moved,
        a_bytes=element,
        b_bytes=weight_bytes,
    )
    return product_times(x, batch.precision, chip, GemmParameters.of(fit), overlap=False)


def _told(batch: Batch, name: str) -> Floats | None:
    """A dimension that only some works state."""
    return batch.dim(name) if name in batch.dims else None


def _groups(batch: Batch) -> tuple[tuple[Floats, Floats], ...]:
    """(experts, rows of one) of experts that are loaded alike, where the work says so."""
    numbers = range(sum(name.endswith("_experts") for name in batch.dims))
    return tuple((batch.dim(f"group{i}_experts"), batch.dim(f"group{i}_rows")) for i in numbers)
