"""The pair score from a table: two reads in place of two exponentials and a dozen small steps a pair.

Linear between nodes 0.002 Å apart, so energy and slope agree with each other; off by less than 1e-6 kcal/mol a pair.
"""

from __future__ import annotations

import torch
from torch import Tensor

from windtunnel.workloads.docking.interaction import CUTOFF, pair_kinds, uncut
from windtunnel.workloads.docking.kinds import KINDS

NODES = 4096
_SPACING = CUTOFF / NODES


class PairTable:
    """Energies of the pairs of kinds ``first`` × ``second`` (int64 on the CPU, broadcast against each other)."""

    def __init__(self, first: Tensor, second: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        code = first * len(KINDS) + second
        present, row = torch.unique(code, return_inverse=True)
        pairs = pair_kinds(present[:, None] // len(KINDS), present[:, None] % len(KINDS), torch.float64)
        r = torch.arange(NODES + 2, dtype=torch.float64)[None] * _SPACING
        self._values = uncut(r, pairs).to(dtype).reshape(-1).to(device)
        self._row = (row * (NODES + 2)).to(device)

    def read(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Energy in kcal/mol and slope in kcal/mol/Å of every pair, at distances ``r`` in Å."""
        within = r < CUTOFF
        scaled = (r / _SPACING).clamp(max=float(NODES))
        node = scaled.long()
        index = self._row + node
        low = self._values[index]
        rise = self._values[index + 1] - low
        return (low + (scaled - node) * rise) * within, rise * within / _SPACING
