"""Model FLOPs and hardware FLOPs of a step, by the two conventions of MFU.

Hardware FLOPs are everything that matrix units compute, recomputation included, full attention.
Model FLOPs leave out
- operations in phase ``RECOMPUTE``: forward code run again inside backward (activation checkpointing);
- the scores that the backward of fused attention computes again: model FLOPs of attention's backward are
  twice those of its forward (PaLM, arXiv 2204.02311, appendix B);
- products inside the optimizer (Muon, Shampoo).
Full attention is the convention of PaLM and TorchTitan; ``causal`` counts only what lies inside the mask, as
Megatron-LM does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from windtunnel.program.count.attention import computed_fraction
from windtunnel.program.program import Phase
from windtunnel.program.work import Family, Work

_ATTENTION = (Family.ATTENTION, Family.ATTENTION_BACKWARD, Family.DECODE_ATTENTION)


@dataclass(frozen=True, slots=True)
class StepFlops:
    """FLOPs of one step on one card, and the precision that most of them run in."""

    model: float
    model_causal: float
    hardware: float
    precision: str


def computed_flops(work: Work) -> float:
    """FLOPs that a chip computes for one operation.

    They are ``Work.flops``, but for the weight gradient of a grouped convolution: there PyTorch's counter
    counts ``groups`` times what is computed (``program/count/convolution.py``), and the dims hold the truth.
    """
    if work.family is not Family.CONVOLUTION:
        return work.flops
    return min(work.flops, 2.0 * work.dim("m") * work.dim("n") * work.dim("k") * work.dim("batch"))


def model_flops(work: Work) -> float:
    """FLOPs of one operation without what a fused backward computes again."""
    if work.family is not Family.ATTENTION_BACKWARD:
        return computed_flops(work)
    qk_dim, v_dim = work.dim("qk_dim"), work.dim("v_dim")
    five_products = 3 * qk_dim + 2 * v_dim
    return work.flops * (2 * qk_dim + 2 * v_dim) / five_products if five_products else work.flops


def step_flops(
    works: Sequence[Work], sites: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> StepFlops:
    """FLOPs of a step in which site ``i`` ran ``counts[i]`` times."""
    model = np.array([model_flops(work) for work in works])
    inside = np.array([computed_fraction(work) if work.family in _ATTENTION else 1.0 for work in works])
    hardware = np.array([computed_flops(work) for work in works])
    times = np.bincount(sites[:, 0], weights=counts, minlength=len(works))
    kept = counts * ((sites[:, 4] != Phase.RECOMPUTE) & (sites[:, 4] != Phase.OPTIMIZER))
    model_times = np.bincount(sites[:, 0], weights=kept, minlength=len(works))
    return StepFlops(
        model=float(model @ model_times),
        model_causal=float((model * inside) @ model_times),
        hardware=float(hardware @ times),
        precision=_main_precision(works, hardware * times),
    )


def _main_precision(works: Sequence[Work], flops: npt.NDArray[np.float64]) -> str:
    by_precision: dict[str, float] = {}
    for work, amount in zip(works, flops.tolist()):
        if amount:
            by_precision[work.precision] = by_precision.get(work.precision, 0.0) + amount
    return max(by_precision, key=lambda name: by_precision[name]) if by_precision else ""
