"""Steps of molecular dynamics: a PyTorch module whose forward is one time step.

* NVE: velocity Verlet, with constraints as RATTLE has them.
* Langevin: the middle scheme (kick, half drift, friction and noise, half drift), which samples positions well at
  long steps (Zhang et al., J. Phys. Chem. A 123, 6056).

State is in double precision; forces come in the precision of the force field. The pair list is renewed when an atom
has moved half the skin since it was made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windtunnel.workloads.md.constraints import Constraints
from windtunnel.workloads.md.forces import Energies, ForceField
from windtunnel.workloads.md.neighbours import PairList
from windtunnel.workloads.md.pairs import PairTerms
from windtunnel.workloads.md.trouble import check_motion, check_start
from windtunnel.workloads.md.units import BOLTZMANN


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How time advances.

    Attributes:
        friction_per_ps: of the Langevin bath; 0 keeps the energy instead (NVE).
        renew_every: steps after which the pair list is renewed at the latest; 0 leaves it to the atoms' movement.
    """

    step_ps: float = 0.002
    temperature_k: float = 300.0
    friction_per_ps: float = 1.0
    seed: int = 0
    renew_every: int = 0


class Dynamics(nn.Module):
    """A system in motion.

    Attributes:
        x, v: positions (nm) and velocities (nm/ps), (replicas × atoms, 3), float64.
        step: steps made. forces: at ``x``, kJ/mol/nm.
    """

    list: PairList
    pairs: PairTerms

    def __init__(self, field: ForceField, scheme: Scheme) -> None:
        super().__init__()
        self.field, self.scheme = field, scheme
        self.constraints = Constraints(field.system, field.replicas, field.device)
        device = field.device
        self.x = torch.from_numpy(field.system.positions_nm).repeat(field.replicas, 1).to(device)
        self.inverse_mass = (
            (1.0 / torch.from_numpy(field.system.masses)).repeat(field.replicas)[:, None].to(device)
        )
        self.draw = torch.Generator(device="cpu").manual_seed(scheme.seed)
        self.v = torch.zeros_like(self.x)
        self.step = 0
        self.listed_at = 0
        check_start(field, self.x)
        self.x = self.constraints.positions(self.x, self.x)
        self.renew()
        self.forces = self.field(self.x, self.pairs, energies=False)[0].double()
        self.set_temperature(scheme.temperature_k)

    def set_temperature(self, kelvin: float) -> None:
        """Velocities drawn from the Maxwell-Boltzmann distribution, at rest as a whole."""
        scale = torch.sqrt(BOLTZMANN * kelvin * self.inverse_mass)
        v = (scale * self._noise()).view(self.field.replicas, -1, 3)
        mass = (1.0 / self.inverse_mass).view(self.field.replicas, -1, 1)
        v = v - (mass * v).sum(1, keepdim=True) / mass.sum(1, keepdim=True)
        self.v = self.constraints.velocities(self.x, v.reshape(-1, 3))

    def renew(self) -> None:
        """A new pair list at the present positions."""
        self.list, self.pairs = self.field.list_pairs(self.x)
        self.listed_at = self.step

    def restore(
        self, x: Tensor, v: Tensor, forces: Tensor, listed: Tensor, step: int, listed_at: int
    ) -> None:
        """Continue from a saved state; the pair list is made again where it was made, so that sums keep their order."""
        self.x, self.v, self.forces, self.step = x, v, forces, step
        self.list, self.pairs = self.field.list_pairs(listed)
        self.listed_at = listed_at

    def forward(self) -> None:
        """One time step. Raises WindtunnelError E944 where the motion explodes."""
        if self.scheme.friction_per_ps > 0:
            self._langevin()
        else:
            self._verlet()
        self.step += 1

    def energies(self) -> Energies:
        """Potential energies at the present positions."""
        found: Energies = self.field(self.x, self.pairs)[1]
        return found

    def kinetic_energy(self) -> Tensor:
        """kJ/mol by replica, (replicas,)."""
        return 0.5 * (self.v * self.v / self.inverse_mass).view(self.field.replicas, -1).sum(1)

    def temperature_k(self) -> Tensor:
        """By replica, (replicas,)."""
        return 2.0 * self.kinetic_energy() / (self.field.system.degrees_of_freedom * BOLTZMANN)

    def _verlet(self) -> None:
        dt = self.scheme.step_ps
        v = self.v + 0.5 * dt * self.inverse_mass * self.forces
        moved = self.constraints.positions(self.x, self.x + dt * v)
        v = (moved - self.x) / dt if self.constraints.any else v
        self._arrive(moved)
        self.v = self.constraints.velocities(self.x, v + 0.5 * dt * self.inverse_mass * self.forces)

    def _langevin(self) -> None:
        dt = self.scheme.step_ps
        keep = math.exp(-self.scheme.friction_per_ps * dt)
        noise = math.sqrt((1.0 - keep * keep) * BOLTZMANN * self.scheme.temperature_k)
        v = self.constraints.velocities(self.x, self.v + dt * self.inverse_mass * self.forces)
        half = self.x + 0.5 * dt * v
        v = keep * v + noise * torch.sqrt(self.inverse_mass) * self._noise()
        v = self.constraints.velocities(self.x, v)
        free = half + 0.5 * dt * v
        moved = self.constraints.positions(self.x, free)
        self.v = v + (moved - free) / dt if self.constraints.any else v
        self._arrive(moved)

    def _arrive(self, moved: Tensor) -> None:
        """Take new positions, renew the pair list where it is due, and find the forces."""
        before, self.x = self.x, moved
        gone = moved - self.list.positions
        gone2 = (gone * gone).sum(1)
        too_far = ((gone2 > (0.5 * self.field.skin_nm) ** 2) | torch.isnan(gone2)).any()
        every = self.scheme.renew_every
        if bool(too_far):
            check_motion(self.field.system, before, moved, self.step + 1)
            self.renew()
        elif every and self.step - self.listed_at >= every:
            self.renew()
        self.forces = self.field(self.x, self.pairs, energies=False)[0].double()

    def _noise(self) -> Tensor:
        """Unit normal numbers from the host's generator: the same on every device, and part of a checkpoint."""
        shape = (len(self.inverse_mass), 3)
        return torch.randn(shape, generator=self.draw, dtype=torch.float64).to(self.x.device)
