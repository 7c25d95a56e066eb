"""One collective on one tier of a cluster, priced: inside the nodes, between them, or expert traffic over both.

Each answers seconds with the interval of its fit, and how much of the links it fills meanwhile.
Not here: which tiers a group uses (``model.py``), what happens when several ask for one (``contention.py``).
"""

from __future__ import annotations

from dataclasses import replace

from windtunnel.estimate import Source
from windtunnel.network.collective import Collective
from windtunnel.network.engine import Engine, by_generation, engine_s
from windtunnel.network.expert import ExpertCard, ExpertTraffic, expert_s
from windtunnel.network.fabric import fabric_s
from windtunnel.network.links import Links
from windtunnel.network.mesh import mesh_s
from windtunnel.network.overlap import sm_share
from windtunnel.network.parameters import (
    ExpertParameters,
    SwitchParameters,
    engine_fit,
    expert_parameters,
    fabric_parameters,
    mesh_parameters,
    pcie_parameters,
    switch_parameters,
)
from windtunnel.network.pcie import pcie_s
from windtunnel.network.switch import switch_s
from windtunnel.network.time import NetworkTime
from windtunnel.network.topology import GroupShape
from windtunnel.network.transfer import Transfer
from windtunnel.specs.schema import ScaleUp, Vendor

MEASURED_NODES = 4
"""Published all-reduce points reach four nodes; beyond, intervals widen."""
EXPERT_NODES = 32
"""DeepEP's published points reach 32 nodes."""
ONE_SIDED_CHIP = "gb200"
ONE_SIDED_RANKS = 8
"""The chip and size of group whose one-sided exchange has calibration points."""
UNMEASURED_WIDENING = 1.25
"""Factor on either side of the interval where no point stands near (more nodes, S5000 between nodes)."""


def inside(
    links: Links, kind: Collective, nbytes: float, shape: GroupShape, engine: Engine | None
) -> NetworkTime:
    """The part inside the nodes; of a larger group, its ranks in one node carry the whole ring's traffic."""
    ranks = shape.ranks if shape.nodes == 1 else shape.per_node
    if shape.nodes > 1 and kind is Collective.ALL_TO_ALL:
        nbytes = nbytes * shape.per_node / shape.ranks
    if links.scale_up is ScaleUp.MESH:
        time = _mesh(links, kind, nbytes, ranks)
    elif links.scale_up is ScaleUp.PCIE:
        time = _pcie(links, kind, nbytes, shape, engine)
    else:
        time = _switch(links, kind, nbytes, ranks, engine)
    return replace(time, sm_share=sm_share(kind, shape.nodes, links.chip))


def _mesh(links: Links, kind: Collective, nbytes: float, ranks: int) -> NetworkTime:
    mesh = mesh_parameters()
    moved = mesh_s(kind, nbytes, ranks, links.pair_bytes_per_s, mesh)
    known = links.chip.name.startswith("mtt-s5000") and moved.wire_s > mesh.launch_s
    source = Source.CALIBRATED if known else Source.ANALYTIC
    formula = "rounds x launch + (sqrt(fill) + sqrt(rounds S/N / pair rate))^2"
    return _priced(moved, mesh.interval.at(nbytes), source, formula, 1.0 if known else UNMEASURED_WIDENING)


def _pcie(
    links: Links, kind: Collective, nbytes: float, shape: GroupShape, engine: Engine | None
) -> NetworkTime:
    """Engines have no all-reduce of their own here beyond pairs; theirs is the library's, launched by a graph."""
    pcie = pcie_parameters()
    launch_s = pcie.launch_s
    if engine is not None:
        own = engine_fit().parameters
        launch_s = by_generation(own.launch_s[engine], links.chip.compute_capability[0], own.latency)
    moved = pcie_s(kind, nbytes, shape, links.pcie_bytes_per_s, links.cards_per_node, launch_s, pcie)
    formula = "launch + min(hops + 2 f S / rate, (sqrt(hops) + sqrt(f S / rate))^2)"
    return _priced(moved, pcie.interval.at(nbytes), Source.ANALYTIC, formula)


def _switch(links: Links, kind: Collective, nbytes: float, ranks: int, engine: Engine | None) -> NetworkTime:
    switch, capability = switch_parameters(), links.chip.compute_capability
    if engine is not None and kind is Collective.ALL_REDUCE:
        own = engine_fit()
        moved = engine_s(engine, nbytes, ranks, links.link_bytes_per_s, capability, own.parameters)
        if moved is not None:
            known = capability[0] in own.fitted
            residuals = (own.interval if known else own.interval_transfer).at(nbytes)
            formula = "launch + barriers + bytes read from peers / link rate"
            return _priced(moved, residuals, Source.CALIBRATED if known else Source.ANALYTIC, formula)
    moved = switch_s(
        kind, nbytes, ranks, links.link_bytes_per_s, capability[0], links.switches_reduce, switch
    )
    known = capability[0] in switch.fitted
    residuals = (switch.interval if known else switch.interval_transfer).at(nbytes)
    formula = "launch + start + hops + (f S + local S/N) / link rate, by the protocol that NCCL takes"
    return _priced(moved, residuals, Source.CALIBRATED if known else Source.ANALYTIC, formula)


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
    card = ExpertCard(
        rate, nic, int(links.chip.multiprocessors.value), occupies, _latency(links, switch_parameters())
    )
    seconds, link_wire_s, nic_wire_s, algorithm = expert_s(kind, traffic, shape, card, parameters)
    by_nic = algorithm.endswith("nic")
    residuals, known, widening = _expert_residuals(links, shape, traffic, parameters)
    time = _priced(
        Transfer(seconds, nic_wire_s if by_nic else link_wire_s, algorithm),
        residuals,
        Source.CALIBRATED if known else Source.ANALYTIC,
        "launch + first chunk + max(links, SMs, NIC) of the distinct copies of each token",
        widening,
        "nic" if by_nic else "links",
    )
    return replace(
        time,
        sm_share=sm_share(kind, shape.nodes, links.chip, traffic.sms),
        link_busy=min(1.0, link_wire_s / seconds),
        nic_busy=min(1.0, nic_wire_s / seconds) / thinner,
    )


def _expert_residuals(
    links: Links, shape: GroupShape, traffic: ExpertTraffic, parameters: ExpertParameters
) -> tuple[tuple[float, float], bool, float]:
    """Residuals, whether such a group was timed, and a factor for what no residual tells."""
    nbytes = traffic.tokens * traffic.token_bytes
    if traffic.one_sided:
        known = links.chip.name == ONE_SIDED_CHIP and shape.ranks == ONE_SIDED_RANKS
        return parameters.interval_one_sided.at(nbytes), known, 1.0 if known else UNMEASURED_WIDENING
    interval = parameters.interval_low_latency if traffic.low_latency else parameters.interval
    residuals = interval.at(nbytes)
    if links.scale_up is not ScaleUp.SWITCH:
        return residuals, False, UNMEASURED_WIDENING
    known = links.chip.compute_capability[0] in parameters.fitted and shape.nodes <= EXPERT_NODES
    if known:
        return residuals, True, 1.0
    # low-latency kernels fill the links by what one generation's multiprocessors do: no other was timed
    return _elsewhere(residuals, nbytes), False, UNMEASURED_WIDENING if traffic.low_latency else 1.0


def _elsewhere(residuals: tuple[float, float], nbytes: float) -> tuple[float, float]:
    """Residuals on cards that were not fitted: wider by what leaving a generation out widened two other fits."""
    own, switch = engine_fit(), switch_parameters()
    low = high = 1.0
    for fitted, left_out in (
        (own.interval, own.interval_transfer),
        (switch.interval, switch.interval_transfer),
    ):
        (near_low, near_high), (far_low, far_high) = fitted.at(nbytes), left_out.at(nbytes)
        low, high = min(low, far_low / near_low), max(high, far_high / near_high)
    return residuals[0] * low, residuals[1] * high


def _latency(links: Links, switch: SwitchParameters) -> float:
    """Factor on what starts and waits on a card's links; 1 where no switch was timed."""
    if links.scale_up is not ScaleUp.SWITCH or links.chip.vendor is not Vendor.NVIDIA:
        return 1.0
    return by_generation(switch.latency, links.chip.compute_capability[0])


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
