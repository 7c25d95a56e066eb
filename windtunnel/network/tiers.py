"""One collective on one tier of a cluster, priced: inside the nodes, between them, or expert traffic over both.

Each answers seconds with the interval of its fit, and how much of the links it fills meanwhile.
Not here: which tiers a group uses (``model.py``), what happens when several ask for one (``contention.py``).
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.estimate import Source
from windtunnel.network.collective import Collective
from windtunnel.network.expert import ExpertTraffic, expert_s
from windtunnel.network.fabric import fabric_s
from windtunnel.network.links import Links
from windtunnel.network.mesh import mesh_s
from windtunnel.network.overlap import sm_share
from windtunnel.network.parameters import (
    expert_parameters,
    fabric_parameters,
    mesh_parameters,
    pcie_parameters,
    switch_parameters,
)
from windtunnel.network.pcie import pcie_s
from windtunnel.network.switch import custom_all_reduce_s, custom_limit_bytes, switch_s
from windtunnel.network.time import NetworkTime
from windtunnel.network.topology import GroupShape
from windtunnel.network.transfer import Transfer
from windtunnel.specs.schema import ScaleUp

MEASURED_NODES = 4
"""Published all-reduce points reach four nodes; beyond, intervals widen."""
EXPERT_NODES = 32
"""DeepEP's published points reach 32 nodes."""
ONE_SIDED_CHIP = "gb200"
ONE_SIDED_RANKS = 8
"""The chip and size of group whose one-sided exchange has calibration points."""
UNMEASURED_WIDENING = 1.25
"""Factor on either side of the interval where no point stands near (more nodes, S5000 between nodes)."""


def inside(links: Links, kind: Collective, nbytes: float, shape: GroupShape, custom: bool) -> NetworkTime:
    """The part inside the nodes; of a larger group, its ranks in one node carry the whole ring's traffic."""
    ranks = shape.ranks if shape.nodes == 1 else shape.per_node
    if shape.nodes > 1 and kind is Collective.ALL_TO_ALL:
        nbytes = nbytes * shape.per_node / shape.ranks
    if links.scale_up is ScaleUp.MESH:
        time = _mesh(links, kind, nbytes, ranks)
    elif links.scale_up is ScaleUp.PCIE:
        time = _pcie(links, kind, nbytes, shape, custom)
    else:
        time = _switch(links, kind, nbytes, ranks, custom)
    return replace(time, sm_share=sm_share(kind, shape.nodes, links.chip))


def _mesh(links: Links, kind: Collective, nbytes: float, ranks: int) -> NetworkTime:
    mesh = mesh_parameters()
    moved = mesh_s(kind, nbytes, ranks, links.pair_bytes_per_s, mesh)
    known = links.chip.name.startswith("mtt-s5000") and moved.seconds > 2 * mesh.launch_s
    source = Source.CALIBRATED if known else Source.ANALYTIC
    formula = "launch + (sqrt(fill) + sqrt(rounds S/N / pair rate))^2"
    return _priced(moved, mesh.interval.at(nbytes), source, formula, 1.0 if known else UNMEASURED_WIDENING)


def _pcie(links: Links, kind: Collective, nbytes: float, shape: GroupShape, custom: bool) -> NetworkTime:
    """Engines have no all-reduce of their own here beyond pairs; theirs is the library's, launched by a graph."""
    pcie = pcie_parameters()
    launch_s = switch_parameters().custom_launch_s if custom else pcie.launch_s
    moved = pcie_s(kind, nbytes, shape, links.pcie_bytes_per_s, links.cards_per_node, launch_s, pcie)
    formula = "launch + min(hops + 2 f S / rate, (sqrt(hops) + sqrt(f S / rate))^2)"
    return _priced(moved, pcie.interval.at(nbytes), Source.ANALYTIC, formula)


def _switch(links: Links, kind: Collective, nbytes: float, ranks: int, custom: bool) -> NetworkTime:
    switch, chip = switch_parameters(), links.chip.name
    fitted = chip in switch.fitted_chips
    interval = switch.interval if fitted else switch.interval_transfer
    if custom and kind is Collective.ALL_REDUCE and nbytes <= custom_limit_bytes(links.switch_generation):
        moved = custom_all_reduce_s(nbytes, ranks, links.link_bytes_per_s, switch)
        interval = switch.interval_custom
    else:
        generation = links.switch_generation
        moved = switch_s(kind, nbytes, ranks, links.link_bytes_per_s, chip, generation, switch)
    source = Source.CALIBRATED if fitted else Source.ANALYTIC
    formula = "launch + min over protocols of hops and (f S + local S/N) / link rate"
    return _priced(moved, interval.at(nbytes), source, formula)


def between(links: Links, kind: Collective, nbytes: float, shape: GroupShape) -> NetworkTime:
    """The part between nodes; beyond a pod, the network card gets its share of the uplinks."""
    fabric = fabric_parameters()
    thinner = links.oversubscription if shape.pods > 1 else 1.0
    moved = fabric_s(kind, nbytes, shape, links.nic_bytes_per_s / thinner, fabric)
    known = shape.nodes <= MEASURED_NODES and links.scale_up is ScaleUp.SWITCH
    source = Source.CALIBRATED if known else Source.ANALYTIC
    formula = "launch + (sqrt(hops) + sqrt(f S / (ranks in node x NIC rate)))^2"
    widening = 1.0 if known else UNMEASURED_WIDENING
    time = _priced(moved, fabric.interval.at(nbytes), source, formula, widening, "nic")
    return replace(time, link_busy=0.0, nic_busy=moved.busy / thinner)


def expert(links: Links, kind: Collective, shape: GroupShape, traffic: ExpertTraffic) -> NetworkTime:
    """Dispatch or combine of a mixture of experts, over both tiers."""
    parameters = expert_parameters()
    occupies = sm_share(kind, shape.nodes, links.chip) > 0
    rate = links.link_bytes_per_s
    if links.scale_up is ScaleUp.PCIE:
        rate = links.pcie_bytes_per_s
    elif links.scale_up is ScaleUp.MESH:
        # what a group cannot reach through the pairs it lacks; a whole node uses all of them
        rate = links.pair_bytes_per_s * max(1, min(shape.ranks, links.cards_per_node) - 1)
    thinner = links.oversubscription if shape.pods > 1 else 1.0
    nic = max(links.nic_bytes_per_s / thinner, 1.0)
    seconds, link_wire_s, nic_wire_s, algorithm = expert_s(
        kind, traffic, shape, rate, nic, occupies, parameters
    )
    by_nic = algorithm.endswith("nic")
    fitted = links.chip.name in parameters.fitted_chips
    known = fitted and shape.nodes <= EXPERT_NODES
    interval = parameters.interval_low_latency if traffic.low_latency else parameters.interval
    if traffic.one_sided:
        interval = parameters.interval_one_sided
        known = links.chip.name == ONE_SIDED_CHIP and shape.ranks == ONE_SIDED_RANKS
    nbytes = traffic.tokens * traffic.token_bytes
    residuals = interval.at(nbytes)
    if links.scale_up is ScaleUp.SWITCH and not known and not traffic.one_sided:
        residuals = _elsewhere(residuals, nbytes)
    time = _priced(
        Transfer(seconds, nic_wire_s if by_nic else link_wire_s, algorithm),
        residuals,
        Source.CALIBRATED if known else Source.ANALYTIC,
        "launch + first chunk + max(links, SMs, NIC) of the distinct copies of each token",
        UNMEASURED_WIDENING
        if links.scale_up is not ScaleUp.SWITCH or (traffic.one_sided and not known)
        else 1.0,
        "nic" if by_nic else "links",
    )
    return replace(
        time,
        sm_share=sm_share(kind, shape.nodes, links.chip, traffic.sms),
        link_busy=min(1.0, link_wire_s / seconds),
        nic_busy=min(1.0, nic_wire_s / seconds) / thinner,
    )


def _elsewhere(residuals: tuple[float, float], nbytes: float) -> tuple[float, float]:
    """Residuals on a chip that was not fitted: wider by what leaving a chip out of NCCL's fit widened that."""
    switch = switch_parameters()
    (low, high), (far_low, far_high) = switch.interval.at(nbytes), switch.interval_transfer.at(nbytes)
    return residuals[0] * far_low / low, residuals[1] * far_high / high


def _priced(
    moved: Transfer,
    residuals: tuple[float, float],
    source: Source,
    formula: str,
    widening: float = 1.0,
    tier: str = "links",
) -> NetworkTime:
    """``residuals``: measured over predicted, 10 % and 90 %."""
    low, high = residuals
    return NetworkTime(
        seconds=moved.seconds,
        low_s=moved.seconds * min(1.0, low / widening),
        high_s=moved.seconds * max(1.0, high * widening),
        source=source,
        limit=tier if moved.busy > 0.5 else "latency",
        formula=formula,
        algorithm=moved.algorithm,
        link_busy=moved.busy,
    )
