"""Menus of tiles: a rule goes by the rows of the product, a search tries every tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit.cost.sample_chips import sample_chip
from tests.unit.cost.sample_works import gemm
from windtunnel.cost.batch import Batch
from windtunnel.cost.choose import choose
from windtunnel.cost.gemm import times
from windtunnel.cost.tiles import MENUS, SPLITS, TILES, Menu


def test_a_search_tries_every_tile_and_split() -> None:
    rows, columns = MENUS[0].tiles(np.array([1.0, 5000.0]))
    assert rows.shape == columns.shape == (len(TILES), 1, 1)
    assert MENUS[0].splits().shape == (1, len(SPLITS), 1)


def test_a_rule_takes_the_tile_of_the_height() -> None:
    menu = Menu("", ((64, 64, 32), (128, 64, 128), (float("inf"), 128, 256)))
    rows, columns = menu.tiles(np.array([1.0, 64.0, 65.0, 128.0, 129.0, 1e5]))
    assert rows.ravel().tolist() == [64, 64, 64, 64, 128, 128]
    assert columns.ravel().tolist() == [32, 32, 128, 128, 256, 256]
    assert menu.splits().tolist() == [[[1.0]]]


def test_under_a_rule_one_row_more_costs_a_whole_wave() -> None:
    chip = sample_chip()
    searched = choose("gemm", chip).fit
    ruled = searched.with_values({**dict(searched.values), "menu": 2.0})
    units = int(chip.multiprocessors.value)
    full, over = gemm(512, 32 * units, 8192), gemm(513, 32 * units, 8192)

    def step(fit) -> float:  # type: ignore[no-untyped-def]
        seconds = times(Batch.of_works([full, over]), chip, fit).seconds
        return float(seconds[1] / seconds[0])

    assert step(ruled) > 1.5
    assert step(searched) < step(ruled)


def test_more_rows_never_take_less_under_any_menu() -> None:
    chip = sample_chip()
    fit = choose("gemm", chip).fit
    batch = Batch.of_works([gemm(m, 2048, 4096) for m in range(1, 600)])
    for number in range(len(MENUS)):
        ruled = replace(
            fit, values=(*(pair for pair in fit.values if pair[0] != "menu"), ("menu", float(number)))
        )
        assert np.all(np.diff(times(batch, chip, ruled).seconds) >= -1e-12), MENUS[number].name
