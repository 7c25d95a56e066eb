"""Energies and forces of a molecular system: a PyTorch module over positions, batched over replicas."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.workloads.md import bonded
from windtunnel.workloads.md.neighbours import PairFinder, PairList
from windtunnel.workloads.md.pairs import PairTerms, pair_forces
from windtunnel.workloads.md.pme import ParticleMesh
from windtunnel.workloads.md.system import Electrostatics, MolecularSystem, dispersion_energy_nm3

SKIN_NM = 0.1
"""Added to the cutoff when pairs are listed, so that a list serves until an atom has moved half of it."""


@dataclass(frozen=True, slots=True)
class Energies:
    """kJ/mol by replica, (replicas,), double precision; as AMBER and OpenMM group them."""

    bond: Tensor
    angle: Tensor
    torsion: Tensor
    lennard_jones: Tensor
    coulomb: Tensor
    lennard_jones_14: Tensor
    coulomb_14: Tensor

    @property
    def total(self) -> Tensor:
        """The potential energy."""
        return (
            self.bond
            + self.angle
            + self.torsion
            + self.lennard_jones
            + self.coulomb
            + self.lennard_jones_14
            + self.coulomb_14
        )


class ForceField(nn.Module):
    """Forces on ``replicas`` copies of a system.

    Args:
        dtype: float32 or float64, of forces. Positions are in float64 either way, and so are differences of
            bonded atoms and sums of energies: what engines call mixed precision.
        skin_nm: margin of the pair list.
    """

    charges: Tensor
    sigma: Tensor
    epsilon: Tensor
    masses: Tensor
    box: Tensor | None
    bond_atoms: Tensor
    bond_parameters: Tensor
    angle_atoms: Tensor
    angle_parameters: Tensor
    torsion_atoms: Tensor
    torsion_parameters: Tensor
    exception_atoms: Tensor
    exception_parameters: Tensor
    exclusion_atoms: Tensor

    def __init__(
        self,
        system: MolecularSystem,
        *,
        replicas: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        skin_nm: float = SKIN_NM,
    ) -> None:
        super().__init__()
        self.system, self.replicas, self.rules, self.skin_nm = system, replicas, system.nonbonded, skin_nm
        terms = system.terms
        self._add("charges", np.tile(system.charges, replicas))
        self._add("sigma", np.tile(system.sigma_nm, replicas))
        self._add("epsilon", np.tile(system.epsilon, replicas))
        self._add("masses", np.tile(system.masses, replicas))
        self._add("box", system.box_nm)
        for name in ("bond", "angle", "torsion", "exception"):
            self._add(f"{name}_atoms", self._for_replicas(getattr(terms, f"{name}s")))
            self._add(f"{name}_parameters", np.tile(getattr(terms, f"{name}_parameters"), (replicas, 1)))
        self._add("exclusion_atoms", self._for_replicas(terms.exclusions))
        self.mesh: ParticleMesh | None = None
        if self.rules.electrostatics is Electrostatics.PME:
            assert system.box_nm is not None
            self.mesh = ParticleMesh(
                system.box_nm,
                self.rules.grid,
                self.rules.alpha_per_nm,
                self.rules.coulomb,
                replicas,
                system.atoms,
            )
        self.constant_energy = _constant_energy(system)
        self._round(dtype)
        self.to(device=device)
        self.device, self.dtype = torch.device(device), dtype
        self.plain = replace(self.rules, electrostatics=Electrostatics.NO_CUTOFF, switch_nm=None)
        self.exceptions = self._exception_terms()
        self.excluded_charge = self._excluded_charge()
        self.finder = PairFinder(
            system.atoms,
            replicas,
            system.box_nm if self.rules.electrostatics is not Electrostatics.NO_CUTOFF else None,
            self.rules.cutoff_nm + skin_nm,
            terms.exclusions,
            self.device,
        )

    def list_pairs(self, x: Tensor) -> tuple[PairList, PairTerms]:
        """The pairs near ``x``, with their parameters."""
        found = self.finder.find(x)
        terms = PairTerms.of_atoms(
            found.first, found.second, self.charges, self.sigma, self.epsilon, self.rules.coulomb
        )
        return found, terms

    def forward(
        self, x: Tensor, pairs: PairTerms, *, energies: bool = True
    ) -> tuple[Tensor, Energies | None]:
        """Forces (replicas × atoms, 3) in kJ/mol/nm at positions ``x`` (float64, same shape), and energies."""
        forces = torch.zeros_like(x, dtype=self.dtype)
        bond = bonded.bonds(x, self.bond_atoms, self.bond_parameters, self.box, forces)
        angle = bonded.angles(x, self.angle_atoms, self.angle_parameters, self.box, forces)
        torsion = bonded.torsions(x, self.torsion_atoms, self.torsion_parameters, self.box, forces)
        rows = self._wrapped(x).t().to(self.dtype).contiguous()
        by_row = torch.zeros_like(rows)
        near = pair_forces(rows, pairs, self.rules, self.box, by_row, self.replicas, energies=energies)
        scaled = pair_forces(
            rows, self.exceptions, self.plain, self.box, by_row, self.replicas, energies=energies
        )
        reciprocal = torch.zeros(self.replicas, dtype=torch.float64, device=x.device)
        if self.mesh is not None:
            reciprocal = self.mesh(x, self.charges, forces) - self._excluded_on_mesh(x, forces)
        forces += by_row.t()
        if not energies:
            return forces, None
        lj_tail, charge_constant = self.constant_energy
        return forces, Energies(
            self._summed(bond),
            self._summed(angle),
            self._summed(torsion),
            near.lennard_jones + lj_tail,
            near.coulomb + reciprocal + charge_constant,
            scaled.lennard_jones,
            scaled.coulomb,
        )

    def _wrapped(self, x: Tensor) -> Tensor:
        """Into the box, where single precision has the most digits."""
        return x if self.box is None else x - self.box * torch.floor(x / self.box)

    def _excluded_on_mesh(self, x: Tensor, forces: Tensor) -> Tensor:
        """Excluded pairs act through the mesh all the same: qq erf(αr) ÷ r of each is taken back."""
        first, second = self.exclusion_atoms.unbind(1)
        d = bonded.displacement(x[first], x[second], self.box, self.dtype)
        r2 = (d * d).sum(1).clamp_min(1e-12)
        r = torch.sqrt(r2)
        ar = self.rules.alpha_per_nm * r
        energy = self.excluded_charge * torch.erf(ar) / r
        slope = (
            (2.0 * self.rules.alpha_per_nm / math.sqrt(math.pi)) * torch.exp(-ar * ar) * self.excluded_charge
        )
        push = ((slope - energy) / r2)[:, None] * d
        forces.index_add_(0, second, push)
        forces.index_add_(0, first, -push)
        return self._summed(energy)

    def _round(self, dtype: torch.dtype) -> None:
        """Parameters to the precision of forces; the box and the mesh's scale belong to positions and stay."""
        box, scale = self.box, self.mesh.scale if self.mesh is not None else None
        self.to(dtype=dtype)
        self.box = box
        if self.mesh is not None and scale is not None:
            self.mesh.scale = scale

    def _summed(self, energy: Tensor) -> Tensor:
        return energy.view(self.replicas, -1).sum(1, dtype=torch.float64)

    def _exception_terms(self) -> PairTerms:
        first, second = self.exception_atoms.unbind(1)
        product, sigma, epsilon = self.exception_parameters.unbind(1)
        s6 = sigma**6
        four = 4.0 * epsilon
        return PairTerms(first, second, self.rules.coulomb * product, four * s6 * s6, four * s6)

    def _excluded_charge(self) -> Tensor:
        first, second = self.exclusion_atoms.unbind(1)
        return self.rules.coulomb * self.charges[first] * self.charges[second]

    def _add(self, name: str, values: object) -> None:
        self.register_buffer(name, None if values is None else torch.from_numpy(np.array(values)))

    def _for_replicas(self, atoms: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> object:
        n = self.system.atoms
        return np.concatenate([atoms + copy * n for copy in range(self.replicas)])


def _constant_energy(system: MolecularSystem) -> tuple[float, float]:
    """Energies that do not depend on positions: Lennard-Jones beyond the cutoff; self and background of the mesh."""
    rules = system.nonbonded
    if system.box_nm is None or rules.electrostatics is Electrostatics.NO_CUTOFF:
        return 0.0, 0.0
    volume = float(np.prod(system.box_nm))
    tail = dispersion_energy_nm3(system) / volume if rules.dispersion_correction else 0.0
    if rules.electrostatics is not Electrostatics.PME:
        return tail, 0.0
    own = -rules.coulomb * rules.alpha_per_nm / math.sqrt(math.pi) * float((system.charges**2).sum())
    net = float(system.charges.sum())
    background = -rules.coulomb * math.pi * net**2 / (2.0 * volume * rules.alpha_per_nm**2)
    return tail, own + background
