"""The fitted constants of the network models, read from ``parameters/*.toml``.

Each file states where its points come from, which were fitted, and the residuals that became its interval.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from windtunnel.estimate import Source


@dataclass(frozen=True, slots=True)
class Regime:
    """One way a library moves data: hop latency, and the share of link bandwidth that payload gets."""

    hop_s: float
    efficiency: float


@dataclass(frozen=True, slots=True)
class RingParameters:
    """A ring (or a pairwise exchange) inside a switch: two protocol regimes and the local copy.

    ``local_efficiency``: rate, as a fraction of link bandwidth, at which a rank handles its own chunk.
    """

    low_latency: Regime
    simple: Regime
    local_efficiency: float


@dataclass(frozen=True, slots=True)
class Interval:
    """Residual quantiles of the fit: measured over predicted, 10 % and 90 %, by message size."""

    small_low: float
    small_high: float
    large_low: float
    large_high: float

    def at(self, message_bytes: float) -> tuple[float, float]:
        """The factors for a message; large from 1 MiB on."""
        if message_bytes >= 1 << 20:
            return self.large_low, self.large_high
        return self.small_low, self.small_high


@dataclass(frozen=True, slots=True)
class SwitchParameters:
    """Collectives through a crossbar (NVLink switch).

    ``in_switch`` is by generation: the major compute capability of the cards (9 Hopper, 10 Blackwell).
    """

    launch_s: Mapping[str, float]
    default_launch_s: float
    rings: Mapping[str, RingParameters]
    in_switch: Mapping[int, Regime]
    custom_one_shot: Regime
    custom_two_shot: Regime
    custom_launch_s: float
    interval: Interval
    interval_transfer: Interval
    interval_custom: Interval
    fitted_chips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeshParameters:
    """Collectives over direct links between every pair; ``copy_launch_s``: of a copy between two cards."""

    launch_s: float
    copy_launch_s: float
    fill_s: float
    pair_efficiency: float
    copy_efficiency: float
    rooted_factor: float
    interval: Interval
    source: Source


@dataclass(frozen=True, slots=True)
class FabricParameters:
    """Between nodes: network cards and the fat tree."""

    launch_s: float
    hop_s: float
    ring_efficiency: float
    exchange_efficiency: float
    send: Regime
    interval: Interval


@dataclass(frozen=True, slots=True)
class PcieParameters:
    """Ring through PCIe and the host's root complex."""

    launch_s: float
    hop_s: float
    low_latency_hop_s: float
    efficiency: float
    crossing_efficiency: float
    cards_per_socket: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class ExpertKernel:
    """DeepEP's normal dispatch or combine on the multiprocessors it was given.

    Attributes:
        rate_per_sm: bytes a second that one multiprocessor moves. own_copies: of a token, besides those sent.
        copy_s: what each copy takes one multiprocessor whatever its size (its slot, its flags).
    """

    rate_per_sm: float
    own_copies: float
    copy_s: float


@dataclass(frozen=True, slots=True)
class ExpertParameters:
    """DeepEP dispatch and combine, and TensorRT-LLM's one-sided exchange over NVLink.

    Attributes:
        launch_s: of both normal kernels. chunk_copies: of one multiprocessor, sent before their receiver starts.
        walk_bytes_per_s: at which one warp of combine walks a token, waiting for the remote reads of each step.
    """

    dispatch: ExpertKernel
    combine: ExpertKernel
    launch_s: float
    chunk_copies: float
    walk_bytes_per_s: float
    link_efficiency: float
    nic_efficiency: float
    low_latency_launch_s: float
    low_latency_link_efficiency: float
    low_latency_nic_efficiency: float
    one_sided_dispatch_s: float
    one_sided_combine_s: float
    one_sided_start_s: float
    one_sided_efficiency: float
    default_sms: int
    fitted_chips: tuple[str, ...]
    interval: Interval
    interval_low_latency: Interval
    interval_one_sided: Interval


def _read(name: str) -> dict[str, Any]:
    text = files("windtunnel.network").joinpath(f"parameters/{name}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _interval(table: Mapping[str, Any]) -> Interval:
    return Interval(table["small_low"], table["small_high"], table["large_low"], table["large_high"])


def _regime(table: Mapping[str, Any]) -> Regime:
    return Regime(table["hop_s"], table["efficiency"])


@cache
def switch_parameters() -> SwitchParameters:
    """Constants of the NVLink switch family."""
    table = _read("switch")
    rings = {
        kind: RingParameters(_regime(ring["low_latency"]), _regime(ring["simple"]), ring["local_efficiency"])
        for kind, ring in table["ring"].items()
    }
    launches: dict[str, float] = table["launch_s"]
    return SwitchParameters(
        launch_s=launches,
        default_launch_s=sum(launches.values()) / len(launches),
        rings=rings,
        in_switch={int(name): _regime(regime) for name, regime in table["in_switch"].items()},
        custom_one_shot=_regime(table["custom"]["one_shot"]),
        custom_two_shot=_regime(table["custom"]["two_shot"]),
        custom_launch_s=table["custom"]["launch_s"],
        interval=_interval(table["interval"]),
        interval_transfer=_interval(table["interval_transfer"]),
        interval_custom=_interval(table["interval_custom"]),
        fitted_chips=tuple(table["fitted_chips"]),
    )


@cache
def mesh_parameters() -> MeshParameters:
    """Constants of the switchless mesh."""
    table = _read("mesh")
    return MeshParameters(
        **{k: v for k, v in table.items() if k not in ("about", "interval", "source")},
        interval=_interval(table["interval"]),
        source=Source(table["source"]),
    )


@cache
def fabric_parameters() -> FabricParameters:
    """Constants of scale-out networks."""
    table = _read("fabric")
    return FabricParameters(
        launch_s=table["launch_s"],
        hop_s=table["hop_s"],
        ring_efficiency=table["ring_efficiency"],
        exchange_efficiency=table["exchange_efficiency"],
        send=_regime(table["send"]),
        interval=_interval(table["interval"]),
    )


@cache
def pcie_parameters() -> PcieParameters:
    """Constants of nodes without a scale-up fabric."""
    table = _read("pcie")
    return PcieParameters(
        **{k: v for k, v in table.items() if k != "interval"}, interval=_interval(table["interval"])
    )


@cache
def expert_parameters() -> ExpertParameters:
    """Constants of DeepEP."""
    table = _read("expert")
    return ExpertParameters(
        **{name: value for name, value in table.items() if isinstance(value, float)},
        default_sms=table["default_sms"],
        dispatch=ExpertKernel(**table["dispatch"]),
        combine=ExpertKernel(**table["combine"]),
        fitted_chips=tuple(table["fitted_chips"]),
        interval=_interval(table["interval"]),
        interval_low_latency=_interval(table["interval_low_latency"]),
        interval_one_sided=_interval(table["interval_one_sided"]),
    )
