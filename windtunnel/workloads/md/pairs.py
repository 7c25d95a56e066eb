"""Lennard-Jones and Coulomb between pairs of atoms, with forces written out.

Coordinates are kept as three rows, and long lists run in blocks that stay in the processor's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.workloads.md.system import Electrostatics, Nonbonded

CPU_BLOCK = 1 << 15
"""Pairs at a time on a CPU: the temporaries of a block fit in its cache. Elsewhere one kernel takes all."""


@dataclass(frozen=True, slots=True)
class PairTerms:
    """A list of pairs with what each needs: charge product (kJ/mol nm), 4 ε σ¹², 4 ε σ⁶."""

    first: Tensor
    second: Tensor
    charge: Tensor
    repulsion: Tensor
    attraction: Tensor

    @classmethod
    def of_atoms(
        cls, first: Tensor, second: Tensor, charges: Tensor, sigma: Tensor, epsilon: Tensor, coulomb: float
    ) -> PairTerms:
        """Lorentz-Berthelot combinations of atoms' parameters; slots that hold (0, 0) act on nothing."""
        used = (first != second).to(charges.dtype)
        s6 = (0.5 * (sigma[first] + sigma[second])) ** 6
        four_epsilon = 4.0 * torch.sqrt(epsilon[first] * epsilon[second]) * used
        charge = coulomb * charges[first] * charges[second] * used
        return cls(first, second, charge, four_epsilon * s6 * s6, four_epsilon * s6)


@dataclass(frozen=True, slots=True)
class PairEnergies:
    """kJ/mol by replica, (replicas,), in double precision."""

    lennard_jones: Tensor
    coulomb: Tensor


def pair_forces(
    rows: Tensor,
    pairs: PairTerms,
    rules: Nonbonded,
    box: Tensor | None,
    forces: Tensor,
    replicas: int,
    *,
    energies: bool,
) -> PairEnergies:
    """Adds the forces of every pair inside the cutoff.

    Args:
        rows: positions, (3, atoms). forces: (3, atoms), added to.
        energies: whether they are wanted; without, they are zero and cost nothing.
    """
    count = len(pairs.first)
    block = CPU_BLOCK if rows.device.type == "cpu" else max(count, 1)
    lj = torch.zeros(replicas, dtype=torch.float64, device=rows.device)
    coulomb = torch.zeros_like(lj)
    edges = None if box is None else box.to(rows.dtype).unbind()
    per_replica = rows.shape[1] // replicas
    for start in range(0, count, block):
        part = slice(start, start + block)
        first, second = pairs.first[part], pairs.second[part]
        d = []
        for axis in range(3):
            delta = rows[axis].index_select(0, second) - rows[axis].index_select(0, first)
            if edges is not None:
                delta -= edges[axis] * torch.round(delta * (1.0 / edges[axis]))
            d.append(delta)
        r2 = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        inside = None
        if rules.electrostatics is not Electrostatics.NO_CUTOFF:
            inside = r2 < rules.cutoff_nm**2
            r2 = r2.clamp_max(rules.cutoff_nm**2)
        r2 = r2.clamp_min(1e-12)  # unused slots; atoms on top of each other were refused at the start
        pull, e_lj, e_coulomb = _pull(
            r2, pairs.charge[part], pairs.repulsion[part], pairs.attraction[part], rules, energies
        )
        if inside is not None:
            pull *= inside
        for axis in range(3):
            push = pull * d[axis]
            forces[axis].index_add_(0, second, push)
            forces[axis].index_add_(0, first, push, alpha=-1)
        if energies and e_lj is not None and e_coulomb is not None:
            if inside is not None:
                e_lj, e_coulomb = e_lj * inside, e_coulomb * inside
            if replicas == 1:
                lj += e_lj.sum(dtype=torch.float64)
                coulomb += e_coulomb.sum(dtype=torch.float64)
            else:
                owner = torch.div(first, per_replica, rounding_mode="floor")
                lj.index_add_(0, owner, e_lj.double())
                coulomb.index_add_(0, owner, e_coulomb.double())
    return PairEnergies(lj, coulomb)


def _pull(
    r2: Tensor, charge: Tensor, repulsion: Tensor, attraction: Tensor, rules: Nonbonded, energies: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """−dE/dr ÷ r of each pair, and the energies where they are wanted."""
    inverse = torch.rsqrt(r2)
    inverse2 = inverse * inverse
    s6 = inverse2 * inverse2 * inverse2
    pull = (12.0 * repulsion * s6 - 6.0 * attraction) * s6
    r = r2 * inverse
    e_lj = (repulsion * s6 - attraction) * s6 if energies or rules.switch_nm is not None else None
    if rules.switch_nm is not None and e_lj is not None:
        width = rules.cutoff_nm - rules.switch_nm
        t = ((r - rules.switch_nm) * (1.0 / width)).clamp_min(0.0)
        t2 = t * t
        switched = 1.0 + t2 * t * (-10.0 + t * (15.0 - 6.0 * t))
        slope = t2 * (-30.0 + t * (60.0 - 30.0 * t)) * (1.0 / width)
        pull = pull * switched - e_lj * slope * r
        e_lj = e_lj * switched
    e_coulomb = None
    if rules.electrostatics is Electrostatics.PME:
        ar = rules.alpha_per_nm * r
        erfc = torch.erfc(ar)
        gauss = torch.exp(-ar * ar)
        screened = charge * inverse
        pull += screened * (erfc + (2.0 / math.sqrt(math.pi)) * ar * gauss)
        e_coulomb = screened * erfc if energies else None
    elif rules.electrostatics is Electrostatics.REACTION_FIELD:
        k, c = reaction_field(rules)
        pull += charge * (inverse - 2.0 * k * r2)
        e_coulomb = charge * (inverse + k * r2 - c) if energies else None
    else:
        e_coulomb = charge * inverse
        pull += e_coulomb
    return pull * inverse2, e_lj, e_coulomb


def reaction_field(rules: Nonbonded) -> tuple[float, float]:
    """k and c of charge × (1 ÷ r + k r² − c) (Tironi et al., J. Chem. Phys. 102, 5451)."""
    cutoff, epsilon = rules.cutoff_nm, rules.dielectric
    k = (epsilon - 1.0) / (2.0 * epsilon + 1.0) / cutoff**3
    c = 3.0 * epsilon / (2.0 * epsilon + 1.0) / cutoff
    return k, c
