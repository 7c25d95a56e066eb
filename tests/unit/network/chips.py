"""Chips with only the figures that the network needs: these tests stand on data-sheet numbers alone."""

from __future__ import annotations

from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.specs.schema import AttentionRules, Chip, Quantity, ScaleUp, Trust, Vendor


def quantity(value: float, unit: str = "1") -> Quantity:
    return Quantity(value=value, unit=unit, source="test", date="2026", trust=Trust.ASSUMED)


def chip(
    name: str,
    scale_up: ScaleUp,
    link: float,
    *,
    vendor: Vendor = Vendor.NVIDIA,
    capability: tuple[int, int] = (9, 0),
    nic: float = 50e9,
    processors: int = 132,
) -> Chip:
    some = quantity(1.0)
    return Chip(
        name=name,
        title=name,
        vendor=vendor,
        architecture="test",
        device_type="cuda",
        device_name=name,
        compute_capability=capability,
        warp_size=32,
        multiprocessors=quantity(processors),
        clock_hz=some,
        peak_flops={"bf16": quantity(1e15)},
        memory_bytes=quantity(80 * 2**30),
        memory_bytes_per_s=quantity(3.35e12),
        l2_bytes=some,
        l2_bytes_per_s=some,
        shared_memory_bytes=some,
        registers_per_block=65536,
        threads_per_multiprocessor=2048,
        scale_up=scale_up,
        link_bytes_per_s=quantity(link),
        links=18,
        pcie_bytes_per_s=quantity(55e9),
        nic_bytes_per_s=quantity(nic),
        launch_s=quantity(5e-6),
        graph_launch_s=quantity(5e-6),
        kernel_floor_s=quantity(2e-6),
        tdp_w=some,
        attention=AttentionRules(dtypes=("bfloat16",), head_dim_max=256),
        tf32_default=False,
    )


H100 = chip("h100-sxm", ScaleUp.SWITCH, 450e9)
A100 = chip("a100-80g", ScaleUp.SWITCH, 300e9, capability=(8, 0), nic=25e9, processors=108)
B200 = chip("b200", ScaleUp.SWITCH, 900e9, capability=(10, 0), processors=148)
S5000 = chip("mtt-s5000", ScaleUp.MESH, 392e9, vendor=Vendor.MOORE_THREADS, capability=(3, 1), processors=60)
L40S = chip("l40s", ScaleUp.PCIE, 0.0, capability=(8, 9), processors=142)


def network(on: Chip, cards: int = 8) -> NetworkModel:
    return NetworkModel(Links.of_chip(on, cards))
