"""Menus of tiles: a rule goes by the rows of the product, a search tries every tile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.unit.cost.sample_chips import sample_chip
from tests.unit.cost.sample_works import gemm
from windtunnel.cost.batch import Batch
from windtunnel.cost.choose import choose
from windtunnel.cost.gemm import GemmParameters, product_times, products, times
from windtunnel.cost.tiles import MENUS, SPLITS, TILES, Menu, Step, known_menu
from windtunnel.specs.catalogue import chip as chip_named
from windtunnel.specs.schema import Chip

ONE = np.array([1.0])


def test_a_search_tries_every_tile_and_split() -> None:
    tiles = MENUS[0].tiles(np.array([1.0, 5000.0]), ONE, ONE)
    assert tiles.rows.shape == tiles.columns.shape == (len(TILES), 1, 1)
    assert MENUS[0].splits().shape == (1, len(SPLITS), 1)


def test_a_rule_takes_the_first_tile_that_covers_the_product() -> None:
    menu = Menu("", (Step(64, 64, 32), Step(128, 64, 128, most_columns=4096), Step(float("inf"), 128, 256)))
    rows = np.array([1.0, 64.0, 65.0, 128.0, 128.0, 129.0, 1e5])
    columns = np.array([100.0, 100.0, 100.0, 4096.0, 4097.0, 100.0, 100.0])
    tiles = menu.tiles(rows, columns, np.full(7, 4096.0))
    assert tiles.rows.ravel().tolist() == [64, 64, 64, 64, 128, 128, 128]
    assert tiles.columns.ravel().tolist() == [32, 32, 128, 128, 256, 256, 256]
    assert menu.splits().tolist() == [[[1.0]]]


def test_deep_products_may_take_another_tile() -> None:
    menu = Menu("", (Step(float("inf"), 256, 128, least_depth=6144), Step(float("inf"), 128, 128)))
    rows = menu.tiles(np.full(2, 8192.0), np.full(2, 8192.0), np.array([6143.0, 6144.0])).rows
    assert rows.ravel().tolist() == [128, 256]


def test_tiles_of_a_cluster_are_launched_together() -> None:
    tiles = Menu("", (Step(float("inf"), 128, 128, cluster=2),)).tiles(ONE, ONE, ONE)
    assert tiles.high(np.array([1.0, 256.0, 257.0])).ravel().tolist() == [2, 2, 4]


def test_a_library_ships_other_tiles_on_other_architectures() -> None:
    menu = MENUS[int(known_menu("gemm", "trtllm", "fp8", "block128") or 0)]
    assert menu.tiles(ONE, ONE, ONE, "Ada").rows.ravel().tolist() == [32]
    assert len(menu.tiles(ONE, ONE, ONE, "Hopper").rows) > 1
    assert known_menu("gemm", "trtllm", "bf16", "") is None


def test_on_hopper_a_tile_that_reaches_far_beyond_the_product_is_slower_than_a_full_one() -> None:
    works = Batch.of_works([gemm(513, 65536, 6144), gemm(768, 65536, 6144)])
    works = works.with_precision("fp8")

    def ratio(name: str) -> float:
        chosen = chip_named(name)
        fit = choose("gemm", chosen, library="vllm", precision="fp8", repeated=True).fit
        seconds = times(works, chosen, fit).seconds
        return float(seconds[0] / seconds[1])

    assert ratio("h100-sxm") > 1.05
    assert ratio("b200") <= 1.0 + 1e-9


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


def test_experts_that_nobody_tunes_run_on_narrow_tiles_of_hopper() -> None:
    menu = MENUS[int(known_menu("grouped_gemm", "cutlass@vllm", "fp8", "") or 0)]
    tiles = menu.tiles(ONE, ONE, ONE, "Hopper")
    assert (tiles.rows.ravel().tolist(), tiles.columns.ravel().tolist()) == ([128], [16])
    assert len(menu.tiles(ONE, ONE, ONE, "Blackwell").rows) > 1
    assert known_menu("grouped_gemm", "cutlass@vllm", "fp8", "block128") is None


def test_a_cluster_covers_whole_multiples_both_ways() -> None:
    tiles = Menu("", (Step(float("inf"), 128, 128, cluster=2, beside=2),)).tiles(ONE, ONE, ONE)
    assert tiles.wide(np.array([1.0, 256.0, 257.0])).ravel().tolist() == [2, 2, 4]
    assert MENUS[7].states_clusters
    assert not MENUS[0].states_clusters


def _cache_bound_s(chip: Chip, **values: float) -> float:
    """A large product of a kernel that only the cache holds up."""
    fit = choose("gemm", chip).fit
    fit = fit.with_values({**dict(fit.values), "cache": 0.05, "menu": 2.0, **values})
    return float(times(Batch.of_works([gemm(8192, 8192, 8192)]), chip, fit).seconds[0])


def test_tiles_share_what_they_read_where_there_are_clusters_only() -> None:
    hopper, ada = chip_named("h100-sxm"), chip_named("l40s")
    alone, shared = (_cache_bound_s(hopper, shared=count) for count in (1.0, 2.0))
    assert 1.9 < alone / shared < 2.05
    assert _cache_bound_s(ada, shared=1.0) == _cache_bound_s(ada, shared=2.0)


def test_a_cluster_reads_what_its_tiles_have_in_common_once() -> None:
    chip = replace(chip_named("h100-sxm"), architecture="test")
    alone = Menu("", (Step(float("inf"), 128, 128),))
    pairs = Menu("", (Step(float("inf"), 128, 128, cluster=2, beside=2),))
    fit = choose("gemm", chip).fit
    parameters = GemmParameters.of(fit.with_values({**dict(fit.values), "cache": 0.05, "shared": 1.0}))
    works = products(Batch.of_works([gemm(8192, 8192, 8192)]))
    seconds = [
        float(product_times(works, "bf16", chip, replace(parameters, menu=menu)).seconds[0])
        for menu in (alone, pairs)
    ]
    assert 1.9 < seconds[0] / seconds[1] < 2.05


def test_weights_that_come_round_before_the_cache_is_full_are_read_from_it() -> None:
    chip = chip_named("l40s")
    batch = Batch.of_works([gemm(1, 8192, 1024)])
    fit = choose("gemm", chip).fit

    def seconds(touched_bytes: float) -> float:
        turned = replace(batch, dims={**batch.dims, "touched_bytes": np.array([touched_bytes])})
        return float(times(turned, chip, fit).seconds[0])

    taken = [seconds(share * chip.l2_bytes.value) for share in (0.2, 0.8, 1.0, 1.3, 5.0)]
    assert taken == sorted(taken)
    assert taken[-1] > 2.0 * taken[0]
