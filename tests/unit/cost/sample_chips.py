"""Chips made of round numbers, so that tests of physics do not move when the catalogue does."""

from __future__ import annotations

from collections.abc import Mapping

from windtunnel.specs.schema import AttentionRules, Chip, Quantity, ScaleUp, Trust, Vendor


def quantity(value: float, unit: str, trust: Trust = Trust.VENDOR) -> Quantity:
    return Quantity(value=value, unit=unit, source="test", date="2025", trust=trust)


PEAKS: Mapping[str, float] = {
    "fp8": 2000e12,
    "bf16": 1000e12,
    "fp16": 1000e12,
    "tf32": 500e12,
    "fp32": 60e12,
    "fp64": 30e12,
}


def sample_chip(
    name: str = "sample",
    *,
    speed: float = 1.0,
    peaks: Mapping[str, float] = PEAKS,
    assumed: tuple[str, ...] = (),
    relatives: tuple[str, ...] = (),
    tf32_default: bool = False,
) -> Chip:
    """A chip whose every rate is ``speed`` times round numbers."""
    return Chip(
        name=name,
        title=name.title(),
        vendor=Vendor.NVIDIA,
        architecture="test",
        device_type="cuda",
        device_name=name,
        compute_capability=(9, 0),
        warp_size=32,
        multiprocessors=quantity(128, "1"),
        clock_hz=quantity(1.7e9 * speed, "Hz"),
        peak_flops={
            key: quantity(value * speed, "FLOP/s", Trust.ASSUMED if key in assumed else Trust.VENDOR)
            for key, value in peaks.items()
        },
        memory_bytes=quantity(80 * 2**30, "B"),
        memory_bytes_per_s=quantity(3e12 * speed, "B/s"),
        l2_bytes=quantity(50e6, "B"),
        l2_bytes_per_s=quantity(6e12 * speed, "B/s"),
        shared_memory_bytes=quantity(228e3, "B"),
        registers_per_block=65536,
        threads_per_multiprocessor=2048,
        scale_up=ScaleUp.SWITCH,
        link_bytes_per_s=quantity(450e9, "B/s"),
        links=18,
        pcie_bytes_per_s=quantity(64e9, "B/s"),
        nic_bytes_per_s=quantity(50e9, "B/s"),
        launch_s=quantity(2e-6, "s"),
        graph_launch_s=quantity(6e-6, "s"),
        kernel_floor_s=quantity(2e-6, "s"),
        tdp_w=quantity(700, "W"),
        attention=AttentionRules(dtypes=("bfloat16", "float16"), head_dim_max=256),
        tf32_default=tf32_default,
        relatives=relatives,
    )
