"""Bonds, angles and torsions: energies and forces, written out rather than differentiated.

Positions are in double precision and so are the differences between them: a stiff bond turns the last digit of a
coordinate into a visible force. The rest is computed in the precision of the parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor

Box = Tensor | None


def displacement(a: Tensor, b: Tensor, box: Box, dtype: torch.dtype) -> Tensor:
    """b − a by the nearest image, (..., 3)."""
    d = b - a
    if box is not None:
        d = d - box * torch.round(d / box)
    return d.to(dtype)


def bonds(x: Tensor, atoms: Tensor, parameters: Tensor, box: Box, forces: Tensor) -> Tensor:
    """Adds ½ k (r − r₀)² to ``forces`` (atoms, 3); the energy of each bond."""
    d = displacement(x[atoms[:, 0]], x[atoms[:, 1]], box, forces.dtype)
    r = (d * d).sum(1).sqrt()
    stretch = r - parameters[:, 0]
    pull = (parameters[:, 1] * stretch / r)[:, None] * d
    forces.index_add_(0, atoms[:, 0], pull)
    forces.index_add_(0, atoms[:, 1], -pull)
    return 0.5 * parameters[:, 1] * stretch * stretch


def angles(x: Tensor, atoms: Tensor, parameters: Tensor, box: Box, forces: Tensor) -> Tensor:
    """Adds ½ k (θ − θ₀)² to ``forces``; the energy of each angle. The middle atom is the apex.

    From the cross product, so that straight angles lose no digits.
    """
    middle = x[atoms[:, 1]]
    a, b = (displacement(middle, x[atoms[:, end]], box, forces.dtype) for end in (0, 2))
    normal = torch.linalg.cross(a, b)
    length = normal.norm(dim=1).clamp_min(1e-12)
    theta = torch.atan2(length, (a * b).sum(1))
    bend = theta - parameters[:, 0]
    strength = (-parameters[:, 1] * bend / length)[:, None]
    on_a = strength * torch.linalg.cross(a, normal) / (a * a).sum(1, keepdim=True)
    on_b = strength * torch.linalg.cross(normal, b) / (b * b).sum(1, keepdim=True)
    forces.index_add_(0, atoms[:, 0], on_a)
    forces.index_add_(0, atoms[:, 2], on_b)
    forces.index_add_(0, atoms[:, 1], -(on_a + on_b))
    return 0.5 * parameters[:, 1] * bend * bend


def torsions(x: Tensor, atoms: Tensor, parameters: Tensor, box: Box, forces: Tensor) -> Tensor:
    """Adds k (1 + cos(n φ − phase)) to ``forces``; the energy of each torsion.

    φ and its gradient as in Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    p = [x[atoms[:, column]] for column in range(4)]
    f, g, h = (displacement(p[start], p[end], box, forces.dtype) for start, end in ((1, 0), (2, 1), (2, 3)))
    m, n = torch.linalg.cross(f, g), torch.linalg.cross(h, g)
    g_length = g.norm(dim=1)
    phi = torch.atan2((torch.linalg.cross(n, m) * g).sum(1) / g_length, (m * n).sum(1))
    periodicity, phase, constant = parameters.unbind(1)
    turned = periodicity * phi - phase
    slope = (-constant * periodicity * torch.sin(turned))[:, None]
    m2, n2 = (m * m).sum(1, keepdim=True), (n * n).sum(1, keepdim=True)
    length = g_length[:, None]
    on_first, on_last = slope * length / m2 * m, -slope * length / n2 * n
    fg, hg = (f * g).sum(1, keepdim=True), (h * g).sum(1, keepdim=True)
    shift = slope * (fg / (m2 * length) * m - hg / (n2 * length) * n)
    forces.index_add_(0, atoms[:, 0], on_first)
    forces.index_add_(0, atoms[:, 1], -on_first - shift)
    forces.index_add_(0, atoms[:, 2], -on_last + shift)
    forces.index_add_(0, atoms[:, 3], on_last)
    return constant * (1.0 + torch.cos(turned))
