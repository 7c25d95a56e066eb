"""The pair score from a table: two reads in place of two exponentials and a dozen small steps a pair.

Linear between nodes 0.002 Å apart, so energy and slope agree with each other; off by less than 1e-6 kcal/mol a pair.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windtunnel.workloads.docking.interaction import CUTOFF, pair_kinds, uncut
from windtunnel.workloads.docking.kinds import KINDS

NODES = 4096
_SPACING = CUTOFF / NODES
_LENGTH = NODES + 2  # the cutoff itself, and its right-hand neighbour


class PairTable:
    """Energies of every pair of kinds, on a device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        kind = torch.arange(len(KINDS))
        pairs = pair_kinds(kind[:, None, None], kind[None, :, None], torch.float64)
        r = torch.arange(_LENGTH, dtype=torch.float64) * _SPACING
        self._values = uncut(r, pairs).to(dtype).reshape(-1).to(device)

    def rows(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> Tensor:
        """Where pairs of kinds ``first`` and ``second`` (broadcast) are kept: what ``read`` takes."""
        return torch.as_tensor((first * len(KINDS) + second) * _LENGTH).to(self._values.device)

    def read(self, r: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Energy in kcal/mol and slope in kcal/mol/Å of every pair, at distances ``r`` in Å."""
        within = r < CUTOFF
        scaled = (r / _SPACING).clamp(max=float(NODES))
        node = scaled.long()
        index = rows + node
        low = self._values[index]
        rise = self._values[index + 1] - low
        return (low + (scaled - node) * rise) * within, rise * within / _SPACING
