"""The shipped data: every number has its origin, and none contradicts another or the laws of arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.specs.catalogue import CHIPS, chip, chip_names
from windtunnel.specs.files import FASTER, FILE_NAME, PEAK_UNIT, UNITS
from windtunnel.specs.schema import Chip, Provenance, Quantity, ScaleUp, Trust
from windtunnel.specs.table import read_toml
from windtunnel.specs.targets import cluster_names, cluster_of, parse_target

NAMED = """mtt-s5000 mtt-s5000-air mtt-s5000-56mp mtt-s5000-air-56mp mtt-s4000 a100-80g a100-40g a100-pcie
h100-sxm h100-pcie h100-96g-500w h800 h20 h200 gh200 b200 b200-750w b300 gb200 gb300 l40s rtx-4080""".split()

SI = {"FLOP/s", "B/s", "B", "s", "W", "Hz", "1"}


def quantities(found: Chip) -> dict[str, Quantity]:
    named: dict[str, Quantity] = {key: getattr(found, key) for key in UNITS}
    return named | {f"peak_flops.{key}": value for key, value in found.peak_flops.items()}


def test_the_promised_chips_are_there() -> None:
    assert set(NAMED) <= set(chip_names())


@pytest.mark.parametrize("name", chip_names())
def test_every_number_has_unit_source_date_and_trust(name: str) -> None:
    found = chip(name)
    for key, quantity in quantities(found).items():
        assert quantity.unit == UNITS.get(key, PEAK_UNIT), key
        assert quantity.unit in SI, key
        assert len(quantity.source) > 5, key
        assert quantity.date[:4].isdigit(), key
        assert isinstance(quantity.trust, Trust), key
        assert quantity.note or quantity.trust not in (Trust.ASSUMED, Trust.DERIVED), key
    for origin in (found.properties, found.attention.provenance):
        assert isinstance(origin, Provenance)
        assert origin.source


@pytest.mark.parametrize("name", chip_names())
def test_no_number_stands_outside_a_quantity_or_a_group_with_a_source(name: str) -> None:
    """Of the file itself: a bare number at the top level would have no source."""
    data = read_toml(CHIPS / name / FILE_NAME).data
    bare = [key for key, value in data.items() if type(value) in (int, float)]
    assert not bare
    for key in ("properties", "attention"):
        group = data.get(key)
        assert group is None or (isinstance(group, dict) and {"source", "date", "trust"} <= set(group))


@pytest.mark.parametrize("name", chip_names())
def test_peaks_do_not_rise_with_precision(name: str) -> None:
    peaks = {key: value.value for key, value in chip(name).peak_flops.items()}
    for fast, slow in FASTER:
        if fast in peaks and slow in peaks:
            assert peaks[fast] >= peaks[slow], (fast, slow)
    assert peaks["bf16"] == peaks["fp16"]


@pytest.mark.parametrize("name", chip_names())
def test_orders_of_magnitude_are_those_of_accelerators(name: str) -> None:
    """A value in another unit (GB/s, TFLOP/s, µs, GiB) would fall far outside."""
    found = chip(name)
    assert 1e13 < found.peak_flops["bf16"].value < 1e17
    assert 8 * 2**30 < found.memory_bytes.value < 1e12
    assert 1e11 < found.memory_bytes_per_s.value < 1e14
    assert found.memory_bytes_per_s.value < found.l2_bytes_per_s.value
    assert 4e6 < found.l2_bytes.value < 1e9
    assert 16e3 < found.shared_memory_bytes.value < 1e6
    assert 16 <= found.multiprocessors.value <= 512
    assert 0.5e9 < found.clock_hz.value < 4e9
    assert 1e10 < found.pcie_bytes_per_s.value < 1e12
    assert 1e9 <= found.nic_bytes_per_s.value < 1e12
    assert 1e-7 < found.kernel_floor_s.value <= 1e-5
    assert 1e-7 < found.launch_s.value < found.graph_launch_s.value * 2 < 1e-4
    assert 50 < found.tdp_w.value < 5000


@pytest.mark.parametrize("name", chip_names())
def test_vector_peak_is_within_what_the_multiprocessors_can_issue(name: str) -> None:
    """FP32 is at most 128 lanes × 2 × clock; the S5000 reports a clock below the one it computes at."""
    found = chip(name)
    lanes = found.peak_flops["fp32"].value / (2 * found.multiprocessors.value * found.clock_hz.value)
    limit = 128 * 1.45 if found.name.startswith("mtt-") else 128 * 1.15
    assert 32 <= lanes <= limit


@pytest.mark.parametrize("name", chip_names())
def test_undisclosed_rates_of_moore_threads_are_assumed(name: str) -> None:
    found = chip(name)
    if not name.startswith("mtt-s5000"):
        return
    for key in ("fp64", "int8", "tf32"):
        assert found.peak_flops[key].trust is Trust.ASSUMED
    assert found.tdp_w.trust is Trust.ASSUMED


@pytest.mark.parametrize("name", chip_names())
def test_relatives_exist_and_are_others(name: str) -> None:
    found = chip(name)
    assert name not in found.relatives
    assert set(found.relatives) <= set(chip_names())


def test_names_and_aliases_of_chips_and_clusters_are_distinct() -> None:
    words = [word for name in chip_names() for word in (name, *chip(name).aliases)] + cluster_names()
    assert sorted(words) == sorted(set(words))


def test_mesh_of_the_s5000() -> None:
    """14 links of 28 GB/s, two to each of seven peers."""
    cluster = cluster_of("mtt-s5000", 8)
    node = cluster.node
    assert node.scale_up is ScaleUp.MESH
    assert node.links_per_pair * (node.cards - 1) == cluster.chip.links == 14
    assert node.link_bytes_per_s.value / cluster.chip.links == pytest.approx(28e9)
    assert node.effective_pair_bytes_per_s is not None
    assert node.effective_pair_bytes_per_s.value == pytest.approx(33.5e9)


def test_kuae_has_ten_thousand_cards() -> None:
    (kuae,) = parse_target("kuae-10240")
    assert (kuae.chip.name, kuae.cards, kuae.nodes) == ("mtt-s5000", 10_240, 1_280)


@pytest.mark.parametrize("name", chip_names())
def test_every_chip_has_a_node(name: str) -> None:
    cluster = cluster_of(name, 16)
    assert cluster.node.cards == chip(name).cards_per_node
    assert cluster.node.nics >= 1
    for quantity in (cluster.fabric.oversubscription, cluster.fabric.nodes_per_leaf, cluster.fabric.hop_s):
        assert quantity.source
        assert quantity.date


def test_every_shipped_chip_is_a_folder_with_only_data() -> None:
    files = {file.relative_to(CHIPS).name for file in Path(CHIPS).rglob("*") if file.is_file()}
    assert files == {FILE_NAME}
