"""Gathers and scatters of single elements: tables in the cache, tables beyond it, additions."""

from __future__ import annotations

import pytest

from windtunnel.cost.model import CostModel
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.specs.catalogue import chip


def seconds(name: str, table: int, taken: int, on: str = "h100-sxm") -> float:
    index, values = TensorSpec("int64", (taken,)), TensorSpec("float32", (taken,))
    source = TensorSpec("float32", (table,))
    if name == "aten.index_select.default":
        spec = OpSpec(name, (source, index), (values,), (("dim", 0),))
    else:
        spec = OpSpec(name, (source, index, values), (source,), (("dim", 0),))
    return CostModel(chip(on)).kernel_time(work_of(spec)).seconds


@pytest.mark.parametrize("name", ["aten.index_select.default", "aten.index_add_.default"])
def test_a_table_beyond_the_cache_costs_a_sector_of_memory_for_each_element(name: str) -> None:
    small, large = seconds(name, 100_000, 10**7), seconds(name, 10**9, 10**7)
    assert small < large
    sectors = 32.0 * 10**7 * (2 if "add" in name else 1)
    assert large == pytest.approx(sectors / (0.9 * 3.35e12), rel=0.1)
    assert small > (10**7 * 12) / 3.35e12  # never less than indices and values themselves


def test_adding_costs_more_than_taking() -> None:
    add, take = (seconds(n, 10**5, 10**7) for n in ("aten.index_add_.default", "aten.index_select.default"))
    assert add > 1.5 * take


def test_more_elements_take_longer_and_none_is_free() -> None:
    times = [seconds("aten.index_add_.default", 10**5, n) for n in (10, 10**4, 10**6, 10**8)]
    assert times == sorted(times)
    assert times[0] >= chip("h100-sxm").kernel_floor_s.value


def test_a_slow_cache_shows() -> None:
    assert seconds("aten.index_add_.default", 10**5, 10**7, "mtt-s5000") > 2.0 * seconds(
        "aten.index_add_.default", 10**5, 10**7
    )
