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
from windtunnel.network.engine import Engine, EngineParameters
from windtunnel.network.nccl import RING_WAYS, Way


@dataclass(frozen=True, slots=True)
class Regime:
    """One way a library moves data: hop latency, and the share of link bandwidth that payload gets."""

    hop_s: float
    efficiency: float


@dataclass(frozen=True, slots=True)
class Protocol:
    """A ring's protocol on NVLink, for cards whose latency factor is 1.

    Attributes:
        start_s: until the first chunk is under way. hop_s: of each step of the ring.
        gather_efficiency, reduce_efficiency: share of link bandwidth that payload gets, in an all-reduce and else.
    """

    start_s: float
    hop_s: float
    gather_efficiency: float
    reduce_efficiency: float


@dataclass(frozen=True, slots=True)
class PairParameters:
    """Exchanges between pairs: two protocol regimes and the local copy.

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

    Attributes:
        launch_s: by the cards' major compute capability. latency: factor on starts and hops, likewise; 1 on Hopper.
        local_efficiency: rate at which a rank of a ring handles its own chunk, as a fraction of link bandwidth.
        in_switch: by generation of the switches that reduce: capability 9 Hopper, 10 Blackwell.
        fitted: capabilities whose cards were timed at every size.
    """

    launch_s: Mapping[int, float]
    latency: Mapping[int, float]
    protocols: Mapping[Way, Protocol]
    local_efficiency: float
    exchange: PairParameters
    send: PairParameters
    in_switch: Mapping[int, Regime]
    interval: Interval
    interval_transfer: Interval
    fitted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MeshParameters:
    """Collectives over direct links between every pair.

    ``launch_s``: of each round. ``copy_launch_s``: of a copy between two cards.
    """

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
class LowLatency:
    """DeepEP's low-latency kernels, for cards whose latency factor is 1.

    Attributes:
        launch_s: start and flags. group_s: of each further group of warps that a multiprocessor needs.
        dispatch_efficiency, combine_efficiency: share of the links. nic_efficiency: of the network card.
        token_s, pack_bytes_per_s: what one multiprocessor takes to cast and send a token.
        send_bytes_per_s: at which one multiprocessor returns what experts made.
    """

    launch_s: float
    group_s: float
    dispatch_efficiency: float
    combine_efficiency: float
    nic_efficiency: float
    token_s: float
    pack_bytes_per_s: float
    send_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class EarlyExchange:
    """DeepEP's first releases: share of the network card that each mode reached, the own node's copies included."""

    nic_efficiency: float
    low_latency_nic_efficiency: float


@dataclass(frozen=True, slots=True)
class ExpertParameters:
    """DeepEP dispatch and combine, and TensorRT-LLM's one-sided exchange over NVLink.

    Attributes:
        launch_s: of both normal kernels. chunk_copies: of one multiprocessor, sent before their receiver starts.
        fitted: major compute capabilities of the cards that were timed.
        walk_bytes_per_s: at which one warp of combine walks a token, waiting for the remote reads of each step.
        early: of the first releases.
    """

    dispatch: ExpertKernel
    combine: ExpertKernel
    launch_s: float
    chunk_copies: float
    walk_bytes_per_s: float
    link_efficiency: float
    nic_efficiency: float
    low_latency: LowLatency
    early: EarlyExchange
    one_sided_dispatch_s: float
    one_sided_combine_s: float
    one_sided_start_s: float
    one_sided_efficiency: float
    default_sms: int
    fitted: tuple[int, ...]
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


def _pairs(table: Mapping[str, Any]) -> PairParameters:
    return PairParameters(_regime(table["low_latency"]), _regime(table["simple"]), table["local_efficiency"])


def _by_number(table: Mapping[str, float]) -> dict[int, float]:
    return {int(name): value for name, value in table.items()}


@cache
def switch_parameters() -> SwitchParameters:
    """Constants of the NVLink switch family."""
    table = _read("switch")
    return SwitchParameters(
        launch_s=_by_number(table["launch_s"]),
        latency=_by_number(table["latency"]),
        protocols={way: Protocol(**table["ring"][way.name.lower()]) for way in RING_WAYS},
        local_efficiency=table["ring"]["local_efficiency"],
        exchange=_pairs(table["exchange"]),
        send=_pairs(table["send"]),
        in_switch={int(name): _regime(regime) for name, regime in table["in_switch"].items()},
        interval=_interval(table["interval"]),
        interval_transfer=_interval(table["interval_transfer"]),
        fitted=tuple(table["fitted"]),
    )


@dataclass(frozen=True, slots=True)
class EngineFit:
    """The engines' own all-reduce; ``interval_transfer``: on cards of a generation that was not timed."""

    parameters: EngineParameters
    interval: Interval
    interval_transfer: Interval
    fitted: tuple[int, ...]


@cache
def engine_fit() -> EngineFit:
    """Constants of the engines' own all-reduce."""
    table = _read("engine")
    plain = {name: value for name, value in table.items() if isinstance(value, float)}
    launch_s, call_s = (
        {Engine(name): _by_number(values) for name, values in table[key].items()}
        for key in ("launch_s", "call_s")
    )
    return EngineFit(
        EngineParameters(**plain, launch_s=launch_s, call_s=call_s, latency=switch_parameters().latency),
        _interval(table["interval"]),
        _interval(table["interval_transfer"]),
        tuple(table["fitted"]),
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
        low_latency=LowLatency(**table["low_latency"]),
        early=EarlyExchange(**table["early"]),
        default_sms=table["default_sms"],
        dispatch=ExpertKernel(**table["dispatch"]),
        combine=ExpertKernel(**table["combine"]),
        fitted=tuple(table["fitted"]),
        interval=_interval(table["interval"]),
        interval_low_latency=_interval(table["interval_low_latency"]),
        interval_one_sided=_interval(table["interval_one_sided"]),
    )
