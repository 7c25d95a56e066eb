"""Rigid water and rigid bonds to hydrogen, cluster by cluster.

A cluster is a few atoms with up to three fixed distances that share no atom with other clusters: a water, or a heavy
atom and its hydrogens. Multipliers of all clusters are found together by Newton's method on 3 × 3 systems, solved
by cofactors; the answer is the one that SETTLE and SHAKE give. A fixed number of iterations keeps the work of a step
the same whatever the data; the distance error after them is below 1e-12 for steps of a few femtoseconds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from windtunnel.errors import WindtunnelError
from windtunnel.workloads.md.system import MolecularSystem

ITERATIONS = 6
_WIDTH = 3  # distances in a cluster; unused ones hold atom 0 against itself


class Constraints(nn.Module):
    """The clusters of a system, for ``replicas`` copies.

    Raises:
        WindtunnelError: E943, fixed distances that form larger clusters (all bonds rigid).
    """

    first: Tensor
    second: Tensor
    length2: Tensor
    used: Tensor
    inverse_mass: Tensor
    shared: Tensor

    def __init__(self, system: MolecularSystem, replicas: int, device: torch.device) -> None:
        super().__init__()
        clusters = _clusters(system)
        slots = np.zeros((len(clusters), _WIDTH, 2), dtype=np.int64)
        length2 = np.zeros((len(clusters), _WIDTH))
        for number, members in enumerate(clusters):
            for slot, index in enumerate(members):
                slots[number, slot] = system.terms.constraints[index]
                length2[number, slot] = system.terms.constraint_nm[index] ** 2
        starts = np.arange(replicas)[:, None, None, None] * system.atoms
        slots = (starts + slots[None]).reshape(-1, _WIDTH, 2)
        used = np.tile(length2 > 0, (replicas, 1))
        self.any = len(clusters) > 0
        self._add("first", slots[:, :, 0], device)
        self._add("second", slots[:, :, 1], device)
        self._add("length2", np.tile(length2, (replicas, 1)), device)
        self._add("used", used.astype(np.float64), device)
        self._add("inverse_mass", np.tile(1.0 / system.masses, replicas), device)
        # how the displacement of each distance answers to each multiplier: M⁻¹ of shared atoms
        masses = self.inverse_mass
        shared = torch.zeros(len(slots), _WIDTH, _WIDTH, dtype=torch.float64, device=device)
        for k in range(_WIDTH):
            for m in range(_WIDTH):
                for a, sign_a in ((self.first, -1.0), (self.second, 1.0)):
                    for b, sign_b in ((self.first, -1.0), (self.second, 1.0)):
                        same = (a[:, k] == b[:, m]).double() * sign_a * sign_b
                        shared[:, k, m] += same * masses[a[:, k]]
        both = self.used[:, :, None] * self.used[:, None, :]
        self.register_buffer("shared", shared * both)

    def positions(self, old: Tensor, new: Tensor) -> Tensor:
        """``new`` (atoms, 3) moved along the directions of ``old`` until every distance is right."""
        if not self.any:
            return new
        along = (old[self.second] - old[self.first]) * self.used[:, :, None]
        trial = (new[self.second] - new[self.first]) * self.used[:, :, None]
        force = torch.zeros_like(self.length2)
        d = trial
        for _ in range(ITERATIONS):
            error = (d * d).sum(2) - self.length2
            jacobian = 2.0 * self.shared * _dots(d, along)
            force = force - _solve3(self._filled(jacobian), error)
            d = trial + _sums(self.shared * force[:, None], along)
        return self._pushed(new, force, along)

    def velocities(self, x: Tensor, v: Tensor) -> Tensor:
        """``v`` less what would change a distance: one linear system a cluster."""
        if not self.any:
            return v
        along = (x[self.second] - x[self.first]) * self.used[:, :, None]
        rate = ((v[self.second] - v[self.first]) * along).sum(2)
        matrix = self.shared * _dots(along, along)
        return self._pushed(v, -_solve3(self._filled(matrix), rate), along)

    def _filled(self, matrix: Tensor) -> Tensor:
        """Ones on the diagonal of unused distances, so that they stay at zero."""
        return matrix + torch.diag_embed(1.0 - self.used)

    def _pushed(self, values: Tensor, force: Tensor, along: Tensor) -> Tensor:
        push = (force[:, :, None] * along).reshape(-1, 3)
        first, second = self.first.reshape(-1), self.second.reshape(-1)
        moved = values.index_add(0, second, push * self.inverse_mass[second, None])
        moved.index_add_(0, first, -push * self.inverse_mass[first, None])
        return moved

    def _add(
        self, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]], device: torch.device
    ) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)).to(device))


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """a_k · b_m of each cluster, (n, 3, 3). Pointwise: batched products of 3 × 3 keep matrix units waiting."""
    return (a[:, :, None] * b[:, None]).sum(3)


def _sums(weights: Tensor, vectors: Tensor) -> Tensor:
    """Σ_m weights_km vectors_m of each cluster, (n, 3, 3)."""
    return (weights[:, :, :, None] * vectors[:, None]).sum(2)


def _solve3(matrix: Tensor, right: Tensor) -> Tensor:
    """Solutions of 3 × 3 systems (n, 3, 3), (n, 3) by cofactors: pointwise work, no factorisation to launch."""
    a, b, c = matrix.unbind(2)
    bc: Tensor = torch.linalg.cross(b, c)
    determinant = (a * bc).sum(1, keepdim=True)
    parts: list[Tensor] = [bc, torch.linalg.cross(c, a), torch.linalg.cross(a, b)]
    return torch.stack([(part * right).sum(1) for part in parts], 1) / determinant


def _clusters(system: MolecularSystem) -> list[list[int]]:
    """Constraint numbers grouped by shared atoms."""
    owner: dict[int, int] = {}
    groups: dict[int, list[int]] = {}
    for index, (i, j) in enumerate(system.terms.constraints.tolist()):
        found = sorted({owner[atom] for atom in (i, j) if atom in owner})
        group = found[0] if found else index
        members = groups.setdefault(group, [])
        members.append(index)
        for other in found[1:]:
            members.extend(groups.pop(other))
        for member in members:
            for atom in system.terms.constraints[member].tolist():
                owner[atom] = group
    for members in groups.values():
        if len(members) > _WIDTH:
            i = int(system.terms.constraints[members[0], 0])
            raise WindtunnelError(
                "E943",
                f"{len(members)} fixed distances hang together around {system.names[i]}, and three is the most",
                hint="fix bonds to hydrogen only, or none: --flexible",
            )
    return list(groups.values())
