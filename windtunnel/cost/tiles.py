"""Which output tiles a library of matrix products has to choose from: its menu.

Vendor libraries search: they hold tiles of many shapes and split K, and take what suits. Others go by a rule: the
height of the tile follows the rows of the product, its width is fixed, and a product of one row more than fills a
wave of tiles pays for a whole wave (vLLM's and SGLang's CUTLASS kernels for FP8; block-scaled FP4 on Blackwell,
whose scales are laid out for 128 rows). A rule carries over to chips that were not measured, as a kernel does.

Which menu a library has is chosen while fitting: the one under which its measured products are explained best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windtunnel.cost.kernel_time import Floats

TILES = (
    (256, 256),
    (256, 128),
    (128, 256),
    (128, 128),
    (128, 64),
    (64, 256),
    (64, 128),
    (64, 64),
    (32, 128),
    (32, 64),
    (16, 128),
    (16, 64),
    (16, 32),
)
"""(rows, columns) of output tiles that libraries ship for tensor cores."""

SPLITS = (1, 2, 4, 8, 16)
"""Split-K factors."""


@dataclass(frozen=True, slots=True)
class Menu:
    """A menu of tiles.

    Attributes:
        rule: (most rows of the product, rows, columns of its tile), ascending, the last for all taller products;
            empty: any tile of ``TILES`` with at least ``rows_least`` rows.
        split: whether K may be split.
    """

    name: str
    rule: tuple[tuple[float, int, int], ...] = ()
    rows_least: int = 0
    split: bool = False

    def tiles(self, m: Floats) -> tuple[Floats, Floats]:
        """Rows and columns of the tiles to try: shape (tiles, 1, 1), or (1, 1, products) where a rule decides."""
        if not self.rule:
            shapes = [shape for shape in TILES if shape[0] >= self.rows_least]
            rows, columns = (np.array(side, dtype=np.float64).reshape(-1, 1, 1) for side in zip(*shapes))
            return rows, columns
        index = np.searchsorted([most for most, _, _ in self.rule[:-1]], m, side="left").reshape(1, 1, -1)
        rows, columns = (np.array([step[i] for step in self.rule], dtype=np.float64)[index] for i in (1, 2))
        return rows, columns

    def splits(self) -> Floats:
        """Split-K factors to try: shape (1, splits, 1)."""
        return np.array(SPLITS if self.split else (1,), dtype=np.float64).reshape(1, -1, 1)


_ALL = float("inf")

MENUS = (
    Menu("searched", split=True),
    Menu("searched, K whole", rows_least=64),
    Menu("by height, to 128 × 128", ((64, 64, 64), (128, 64, 128), (_ALL, 128, 128))),
    Menu("by height, to 128 × 64", ((64, 64, 64), (_ALL, 128, 64))),
    Menu("by height, to 128 × 256", ((64, 64, 256), (_ALL, 128, 256))),
    Menu("by height from 16, to 64 × 64", ((16, 16, 64), (_ALL, 64, 64))),
    Menu("by height from 16, to 128 × 128", ((16, 16, 128), (32, 32, 128), (64, 64, 128), (_ALL, 128, 128))),
)
"""The number of a menu is its place here, and stands in parameter files."""
