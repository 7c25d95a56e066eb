"""Pairs of atoms within reach, by cells, in tensors of fixed size.

Atoms are sorted into cells no smaller than the reach; each cell is compared with itself and the half of its 26
neighbours. Every tensor's size follows from the density alone, so nothing waits for the device while the list is
built, and the same code runs on a card that holds no data. Where a size was too small, building starts again with
more room. On a CPU sizes follow the data instead, a few cells at a time. Small or crowded boxes (fewer than three
cells along an edge) compare all atoms.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HALF = tuple(
    offset for offset in itertools.product((-1, 0, 1), repeat=3) if offset > (0, 0, 0) or offset == (0, 0, 0)
)
ROOM = 1.15  # slots over what an even density needs
CPU_CHUNK = 1 << 18
"""Atom pairs of cells that are compared at a time on a CPU: their distances stay in its cache."""
_WINDOW = 62  # exclusions up to this distance in the numbering are bits of one integer


@dataclass(frozen=True, slots=True)
class PairList:
    """Pairs, each once, and the positions that they were found at; unused slots hold (0, 0)."""

    first: Tensor
    second: Tensor
    positions: Tensor


class PairFinder:
    """Finds pairs of atoms of ``replicas`` systems of ``atoms`` atoms within ``reach_nm``; excluded ones left out.

    Args:
        exclusions: (pairs, 2), atom numbers of one replica.
        box_nm: edges, None without a box: then every pair is listed once and for all.
    """

    def __init__(
        self,
        atoms: int,
        replicas: int,
        box_nm: np.ndarray[tuple[int], np.dtype[np.float64]] | None,
        reach_nm: float,
        exclusions: np.ndarray[tuple[int, int], np.dtype[np.int64]],
        device: torch.device,
    ) -> None:
        self.atoms, self.replicas, self.box_nm, self.reach_nm = atoms, replicas, box_nm, reach_nm
        self.device = device
        self.room = 1.0
        self._sizes_follow_data = device.type == "cpu"  # where nothing waits for the host to learn them
        self._near, self._far = _exclusion_tables(exclusions, atoms, device)
        self._cells = None if box_nm is None else tuple(int(edge // reach_nm) for edge in box_nm)

    def find(self, x: Tensor) -> PairList:
        """The pairs at positions ``x`` (replicas × atoms, 3), wrapped or not."""
        while True:
            first, second, overflow = self._all(x) if self._is_small() else self._by_cells(x)
            if not bool(overflow):
                break
            self.room *= 1.5
        keep = (first >= 0) & ~self._excluded(first, second)
        if self._sizes_follow_data:
            first, second = first[keep], second[keep]
        else:
            first, second = torch.where(keep, first, 0), torch.where(keep, second, 0)
        return PairList(first, second, x.clone())

    def _is_small(self) -> bool:
        return self._cells is None or min(self._cells) < 3

    def _all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.atoms
        overflow = torch.zeros((), dtype=torch.bool, device=self.device)
        if self.box_nm is None:
            first, second = torch.triu_indices(n, n, 1, device=self.device)
            start = torch.arange(self.replicas, device=self.device)[:, None] * n
            return (start + first).reshape(-1), (start + second).reshape(-1), overflow
        edges = torch.as_tensor(self.box_nm, dtype=torch.float32, device=self.device)
        rows = (x - torch.floor(x / edges) * edges).float().view(self.replicas, n, 3)
        number = torch.arange(n, device=self.device)
        chunk = max(1, CPU_CHUNK // (n * self.replicas)) if self._sizes_follow_data else n
        found_first, found_second = [], []
        for begin in range(0, n, chunk):
            part = slice(begin, begin + chunk)
            r2 = torch.zeros((), device=self.device)
            for axis in range(3):
                d = rows[:, None, :, axis] - rows[:, part, None, axis]
                d = d - edges[axis] * torch.round(d / edges[axis])
                r2 = torch.addcmul(r2, d, d)
            near = (r2 < self.reach_nm**2) & (number > number[part, None])
            size = min(int(self._expected_pairs() * ROOM * self.room) + 64, near.numel())
            chosen, at, too_many = self._chosen(near, size)
            overflow = overflow | too_many
            used, start = chosen[:, 0] >= 0, at[:, 0] * n
            found_first.append(torch.where(used, start + at[:, 1] + begin, -1))
            found_second.append(torch.where(used, start + at[:, 2], -1))
        return torch.cat(found_first), torch.cat(found_second), overflow

    def _chosen(self, near: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where ``near`` is true: indices, −1 in unused rows; the same with 0 there; whether ``size`` is too few."""
        if self._sizes_follow_data:
            chosen = torch.nonzero(near)
            return chosen, chosen, torch.zeros((), dtype=torch.bool, device=self.device)
        chosen = torch.nonzero_static(near, size=size, fill_value=-1)
        return chosen, chosen.clamp_min(0), near.sum() > size

    def _expected_pairs(self) -> float:
        assert self.box_nm is not None
        density = self.atoms / float(np.prod(self.box_nm))
        near = 2.0 / 3.0 * math.pi * self.reach_nm**3 * density
        return self.replicas * self.atoms * near

    def _by_cells(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert self.box_nm is not None
        assert self._cells is not None
        shape, total = self._cells, math.prod(self._cells)
        cells = total * self.replicas
        box = torch.as_tensor(self.box_nm, dtype=x.dtype, device=self.device)
        counts = torch.tensor(shape, device=self.device)
        inside = x / box
        inside = inside - torch.floor(inside)
        place = torch.minimum((inside * counts).long(), counts - 1)
        cell = (place[:, 0] * shape[1] + place[:, 1]) * shape[2] + place[:, 2]
        if self.replicas > 1:
            cell = (
                cell + torch.arange(self.replicas, device=self.device).repeat_interleave(self.atoms) * total
            )
        order = torch.argsort(cell, stable=True)
        sorted_cell = cell[order]
        population = torch.zeros(cells, dtype=torch.int64, device=self.device)
        population.index_add_(0, cell, torch.ones_like(cell))
        start = torch.cumsum(population, 0) - population
        mean = self.atoms / total
        slots = int(mean * self.room + 3.0 * math.sqrt(mean)) + 2
        slot = torch.arange(len(cell), device=self.device) - start[sorted_cell]
        overflow = population.max() > slots
        address = sorted_cell * slots + slot.clamp_max(slots - 1)
        table = torch.full((cells * slots,), -1, dtype=torch.int64, device=self.device)
        table[address] = order
        table = table.view(cells, slots)
        here = (inside * box).float()[table.clamp_min(0)]  # the skin is far wider than what rounding moves
        here = torch.where((table >= 0)[:, :, None], here, torch.nan).permute(2, 0, 1).contiguous()
        edges = box.float()
        chunk = max(1, CPU_CHUNK // slots**2) if self._sizes_follow_data else cells
        found_first, found_second = [], []
        for offset, share in zip(HALF, _shares(shape, self.box_nm, self.reach_nm)):
            partner, shift = _partners(shape, offset, self.replicas, self.device)
            size = int(self.replicas * self.atoms * self.atoms * share * ROOM * self.room) + 64
            for begin in range(0, cells, chunk):
                part = slice(begin, begin + chunk)
                r2 = torch.zeros((), device=self.device)
                for axis in range(3):
                    there = here[axis][partner[part]] + shift[part, axis, None] * edges[axis]
                    d = there[:, None, :] - here[axis][part][:, :, None]
                    r2 = torch.addcmul(r2, d, d)
                near = r2 < self.reach_nm**2
                if offset == (0, 0, 0):
                    near = near & torch.ones(slots, slots, dtype=torch.bool, device=self.device).triu(1)
                chosen, at, too_many = self._chosen(near, min(size, near.numel()))
                overflow = overflow | too_many
                used = chosen[:, 0] >= 0
                cell_at = at[:, 0] + begin
                found_first.append(torch.where(used, table[cell_at, at[:, 1]], -1))
                found_second.append(torch.where(used, table[partner[cell_at], at[:, 2]], -1))
        return torch.cat(found_first), torch.cat(found_second), overflow

    def _excluded(self, first: Tensor, second: Tensor) -> Tensor:
        """Whether a pair is excluded: a bit of the lower atom's window, or one of the few far ones."""
        low, high = torch.minimum(first, second).clamp_min(0), torch.maximum(first, second)
        apart = high - low
        bit = torch.bitwise_right_shift(self._near[low % self.atoms], apart.clamp(0, _WINDOW)) & 1
        found = (bit == 1) & (apart <= _WINDOW)
        if len(self._far):
            key = (low % self.atoms) * self.atoms + high % self.atoms
            spot = torch.searchsorted(self._far, key).clamp_max(len(self._far) - 1)
            found = found | (self._far[spot] == key)
        return found


def _exclusion_tables(
    exclusions: np.ndarray[tuple[int, int], np.dtype[np.int64]], atoms: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    low, high = np.sort(exclusions, axis=1).T
    apart = high - low
    window = np.zeros(atoms, dtype=np.int64)
    near = apart <= _WINDOW
    np.bitwise_or.at(window, low[near], np.int64(1) << apart[near])
    far = np.unique(low[~near] * atoms + high[~near])
    return torch.from_numpy(window).to(device), torch.from_numpy(far).to(device)


def _partners(
    shape: tuple[int, ...], offset: tuple[int, ...], replicas: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The cell at ``offset`` from each, and how many boxes away it lies, (cells,) and (cells, 3)."""
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    moved = [axis + step for axis, step in zip(axes, offset)]
    boxes = np.stack([np.floor_divide(axis, n).ravel() for axis, n in zip(moved, shape)], 1)
    wrapped = [axis % n for axis, n in zip(moved, shape)]
    cell = ((wrapped[0] * shape[1] + wrapped[1]) * shape[2] + wrapped[2]).ravel()
    total = math.prod(shape)
    every = (np.arange(replicas)[:, None] * total + cell).ravel()
    return torch.from_numpy(every).to(device), torch.from_numpy(np.tile(boxes, (replicas, 1))).to(device)


def _shares(
    shape: tuple[int, ...], box_nm: np.ndarray[tuple[int], np.dtype[np.float64]], reach_nm: float
) -> list[float]:
    """For each half-neighbour, the chance that a given pair of atoms lies there and within reach.

    By sampling 40,000 points of an even density, with a fixed seed: sizes must not depend on chance.
    """
    draw = np.random.default_rng(0)
    edges = np.asarray(box_nm) / np.asarray(shape)
    a, b = draw.random((40_000, 3)) * edges, draw.random((40_000, 3)) * edges
    chance = []
    for offset in HALF:
        d = b + np.asarray(offset) * edges - a
        part = float(((d * d).sum(1) < reach_nm**2).mean()) / math.prod(shape)
        chance.append(part * (0.5 if offset == (0, 0, 0) else 1.0) + 1e-3 / math.prod(shape))
    return chance
