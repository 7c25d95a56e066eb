"""The Vina score between two atoms.

    e(r) = w1 exp(-(d/0.5)²) + w2 exp(-((d - 3)/2)²) + w3 d² [d < 0] + w4 ramp(d; 1.5, 0.5) + w5 ramp(d; 0, -0.7)

with d = r - R_a - R_b in Å, e in kcal/mol, cut off at r = 8 Å; the fourth term acts between hydrophobic atoms, the
fifth between donor and acceptor (O. Trott and A. J. Olson, J. Comput. Chem. 31 (2010) 455, table 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.workloads.docking import kinds

CUTOFF = 8.0
GAUSS1, GAUSS2, REPULSION, HYDROPHOBIC, HYDROGEN_BOND = -0.035579, -0.005156, 0.840245, -0.035069, -0.587439
ROTOR = 0.05846  # the affinity of a ligand is its energy over 1 + ROTOR × rotatable bonds


@dataclass(frozen=True, slots=True)
class PairKinds:
    """What the score needs of pairs of atoms; tensors of one shape, or that broadcast to it.

    Attributes:
        contact: sum of the radii, Å.
        hydrophobic, hydrogen_bond: 1.0 where the term acts, else 0.0.
    """

    contact: Tensor
    hydrophobic: Tensor
    hydrogen_bond: Tensor


def pair_kinds(first: Tensor, second: Tensor, dtype: torch.dtype) -> PairKinds:
    """Terms of atoms of kinds ``first`` and ``second`` (int64 on the CPU, broadcast), on the CPU."""

    def of(values: object, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(values, dtype=dtype)

    radius = of(kinds.RADIUS, dtype)
    hydrophobic, donor, acceptor = (
        of(flags, torch.bool) for flags in (kinds.HYDROPHOBIC, kinds.DONOR, kinds.ACCEPTOR)
    )
    bond = (donor[first] & acceptor[second]) | (acceptor[first] & donor[second])
    return PairKinds(
        radius[first] + radius[second],
        (hydrophobic[first] & hydrophobic[second]).to(dtype),
        bond.to(dtype),
    )


def energy(r: Tensor, pairs: PairKinds) -> Tensor:
    """Energy of each pair in kcal/mol at distance ``r`` in Å; zero from ``CUTOFF`` on."""
    return uncut(r, pairs) * (r < CUTOFF)


def uncut(r: Tensor, pairs: PairKinds) -> Tensor:
    """``energy`` as if it went on beyond the cutoff."""
    d = r - pairs.contact
    total = GAUSS1 * torch.exp(-4.0 * d * d) + GAUSS2 * torch.exp(-0.25 * (d - 3.0) ** 2)
    total = total + REPULSION * d.clamp(max=0.0) ** 2
    total = total + HYDROPHOBIC * pairs.hydrophobic * (1.5 - d).clamp(0.0, 1.0)
    return total + HYDROGEN_BOND * pairs.hydrogen_bond * (d / -0.7).clamp(0.0, 1.0)
