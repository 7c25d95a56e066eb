"""MoE dispatch and combine as DeepEP runs them.

Normal mode: a token is sent once to every *node* that holds one of its experts, over the NIC, and forwarded
inside that node over the scale-up links; ``sms`` multiprocessors pack and copy (dispatch) or fetch and sum
(combine), each copy at a fixed rate and with a fixed cost of its own. Both kernels start alike and send
a first chunk before its receiver copies it. Sums wait for their reads at each step through a token, where dispatch
only writes: the first one shows, so that a combine of few tokens takes longer the wider they are.
Low-latency mode: every (token, expert) pair is written straight to its rank. Within one node only the
scale-up links are used. A multiprocessor keeps counts and flags of one expert for each of its groups of warps, of which
it needs more where experts outnumber multiprocessors; where experts are fewer, only as many multiprocessors pack
tokens (``internode_ll.cu``: ``num_warp_groups``, ``num_sms``). What starts and waits is network latency, a factor by
generation of cards. One-sided mode (TensorRT-LLM, NVLink domains): one write for each rank that a token
needs. Balanced routing; imbalance is a factor on the most loaded rank, given by callers.

DeepEP's first releases (its own tables of the time): between nodes a token's copy for its own node took as long as one
for another, until 21 April 2025; low-latency messages inside a node went through the network card, too, until 5 June.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, comb, sqrt
from typing import NamedTuple

from windtunnel.network.collective import Collective
from windtunnel.network.parameters import ExpertParameters
from windtunnel.network.topology import GroupShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTraffic:
    """One dispatch or combine of one rank.

    Attributes:
        tokens: tokens of this rank. token_bytes: payload of one token (hidden size times element size).
        node_limit: most nodes that one token may reach; 0: no limit.
        groups, groups_chosen: a token's experts lie in ``groups_chosen`` of as many groups, which are spread over the
            ranks in order (group-limited routing); 0: anywhere.
        experts: of the layer, all ranks together; 0: not known, DeepSeek-V3's number is taken.
        one_sided: TensorRT-LLM's exchange: written once to each rank of a scale-up domain, the own one included.
        tma: copy units move the data, so that the links limit and not the multiprocessors (HybridEP).
        imbalance: load of the busiest rank over the mean, at least 1. node_imbalance: of the busiest node, whose
            network cards take in what is meant for it (normal mode); 0: as the busiest rank.
        as_of: date (ISO, day or month) of the DeepEP that runs; empty: today's.
    """

    tokens: float
    token_bytes: float
    top_k: int
    node_limit: int = 0
    groups: int = 0
    groups_chosen: int = 0
    experts: int = 0
    low_latency: bool = False
    one_sided: bool = False
    sms: int = 0
    tma: bool = False
    imbalance: float = 1.0
    node_imbalance: float = 0.0
    as_of: str = ""

    @property
    def first_release(self) -> bool:
        """Whether this runs before the change that made its mode what it is today."""
        change = LOW_LATENCY_CHANGED if self.low_latency else NORMAL_CHANGED
        return bool(self.as_of) and self.as_of < change


NORMAL_CHANGED, LOW_LATENCY_CHANGED = "2025-04-21", "2025-06-05"
ASSUMED_EXPERTS = 256
"""Of a layer that does not say: DeepSeek-V3's."""


class ExpertCard(NamedTuple):
    """What the exchange needs to know of a card.

    Attributes:
        link_bytes_per_s, nic_bytes_per_s: scale-up rate and network rate, one direction.
        multiprocessors: all of them. occupies_sms: whether kernels move the data. latency: factor on starts and waits.
    """

    link_bytes_per_s: float
    nic_bytes_per_s: float
    multiprocessors: int
    occupies_sms: bool
    latency: float = 1.0


class ExpertTime(NamedTuple):
    """One dispatch or combine: seconds, and for how long of them it fills the links and the network card."""

    seconds: float
    link_wire_s: float
    nic_wire_s: float
    algorithm: str


def distinct(places: float, draws: int) -> float:
    """Expected number of distinct places hit by ``draws`` uniform draws among ``places``."""
    return float(places * (1 - (1 - 1 / places) ** draws)) if places else 0.0


def within_groups(places: int, groups: int, chosen: int) -> float:
    """Places out of ``places`` that hold any of ``chosen`` groups, drawn without putting back."""
    if not 0 < chosen < groups:
        return float(places)
    if places >= groups:
        return places * chosen / groups
    each = groups // places
    missed = comb(groups - each, chosen) / comb(groups, chosen)
    return places * (1 - missed)


def expert_s(
    kind: Collective,
    traffic: ExpertTraffic,
    shape: GroupShape,
    card: ExpertCard,
    parameters: ExpertParameters,
) -> ExpertTime:
    """One dispatch or combine."""
    load = traffic.tokens * traffic.token_bytes * traffic.imbalance
    if traffic.one_sided:
        return _one_sided_s(kind, traffic, load, shape, card.link_bytes_per_s, parameters)
    if traffic.low_latency:
        return _low_latency_s(kind, traffic, load, shape, card, parameters)
    link_bytes_per_s, nic_bytes_per_s = card.link_bytes_per_s, card.nic_bytes_per_s
    groups = traffic.groups, traffic.groups_chosen
    nodes_hit = distinct(within_groups(shape.nodes, *groups), traffic.top_k)
    if traffic.node_limit:
        nodes_hit = min(nodes_hit, traffic.node_limit)
    early = traffic.first_release
    efficiency = parameters.early.nic_efficiency if early else parameters.nic_efficiency
    inbound = traffic.tokens * traffic.token_bytes * (traffic.node_imbalance or traffic.imbalance)
    over_nic = inbound * nodes_hit * (1.0 if early and shape.nodes > 1 else (shape.nodes - 1) / shape.nodes)
    copies = distinct(within_groups(shape.ranks, *groups), traffic.top_k) * (shape.ranks - 1) / shape.ranks
    over_links_s = load * copies / (link_bytes_per_s * parameters.link_efficiency)
    over_nic_s = over_nic / (nic_bytes_per_s * efficiency) if over_nic else 0.0
    inside_s = over_links_s
    kernel = parameters.combine if kind is Collective.COMBINE else parameters.dispatch
    # how much of it is network latency is not known from cards of one generation: between none and all
    start_s = sqrt(card.latency) * parameters.launch_s
    if card.occupies_sms and not traffic.tma:
        each_s = traffic.token_bytes / kernel.rate_per_sm + kernel.copy_s
        sms = traffic.sms or parameters.default_sms
        copies_per_sm = traffic.tokens * traffic.imbalance * (copies + kernel.own_copies) / sms
        inside_s = max(inside_s, copies_per_sm * each_s)
        start_s += min(copies_per_sm, parameters.chunk_copies) * each_s
        if kind is Collective.COMBINE:
            start_s += traffic.token_bytes / parameters.walk_bytes_per_s
    limit = "links" if inside_s >= over_nic_s else "nic"
    seconds = start_s + max(inside_s, over_nic_s)
    return ExpertTime(seconds, over_links_s, over_nic_s, f"DeepEP normal, {limit}")


LANDED_PASSES, SENT_PASSES = 3, 4
"""Times that device memory is read or written for every copy of a token. Inside a node it is written to its receiver's
buffer, read there and written in place. Between nodes it is written to the sender's buffer, read by the network card,
written by the receiver's and read to be forwarded (DeepEP's ``internode.cu``: sender, forwarder and receiver warps, and
the same ways back)."""


def memory_bytes(traffic: ExpertTraffic, shape: GroupShape) -> float:
    """Bytes of device memory that a dispatch or combine reads and writes on a card, in passes over copies of tokens."""
    groups = traffic.groups, traffic.groups_chosen
    sent = traffic.tokens * traffic.token_bytes
    if traffic.low_latency or traffic.one_sided:
        return LANDED_PASSES * sent * distinct(shape.ranks, traffic.top_k)
    landed = distinct(within_groups(shape.ranks, *groups), traffic.top_k)
    nodes = distinct(within_groups(shape.nodes, *groups), traffic.top_k) if shape.nodes > 1 else 0.0
    return sent * (LANDED_PASSES * landed + SENT_PASSES * nodes)


def _one_sided_s(
    kind: Collective,
    traffic: ExpertTraffic,
    load: float,
    shape: GroupShape,
    link_bytes_per_s: float,
    parameters: ExpertParameters,
) -> ExpertTime:
    """Writes run beside the fixed part (preparation, flags), so that the longer of the two shows."""
    copies = distinct(shape.ranks, traffic.top_k)
    wire_s = load * copies / (link_bytes_per_s * parameters.one_sided_efficiency)
    fixed = parameters.one_sided_combine_s if kind is Collective.COMBINE else parameters.one_sided_dispatch_s
    seconds = max(fixed, parameters.one_sided_start_s + wire_s)
    return ExpertTime(seconds, wire_s, 0.0, "one-sided, links")


def _low_latency_s(
    kind: Collective,
    traffic: ExpertTraffic,
    load: float,
    shape: GroupShape,
    card: ExpertCard,
    parameters: ExpertParameters,
) -> ExpertTime:
    fast = parameters.low_latency
    experts = traffic.experts or ASSUMED_EXPERTS
    groups = ceil(experts / card.multiprocessors)
    working = ceil(experts / groups)
    messages = load * traffic.top_k
    inside = messages * (shape.per_node - 1) / shape.ranks
    away = messages * (shape.ranks - shape.per_node) / shape.ranks
    nic_efficiency = fast.nic_efficiency
    if traffic.first_release:
        inside, away, nic_efficiency = 0.0, messages, parameters.early.low_latency_nic_efficiency
    combines = kind is Collective.COMBINE
    share = fast.combine_efficiency if combines else fast.dispatch_efficiency
    over_links_s = inside / (card.link_bytes_per_s * share)
    over_nic_s = away / (card.nic_bytes_per_s * nic_efficiency)
    packed_s = 0.0
    if card.occupies_sms:
        # dispatch casts every token once; combine sends what each expert made of it
        each_s = fast.token_s + traffic.token_bytes / fast.pack_bytes_per_s
        packed_s = traffic.tokens * traffic.imbalance * each_s / working
        if combines:
            packed_s = messages / (fast.send_bytes_per_s * working)
    limit = "links" if over_links_s > over_nic_s else "nic"
    start_s = card.latency * (fast.launch_s + (groups - 1) * fast.group_s)
    seconds = start_s + max(over_links_s, over_nic_s, packed_s)
    return ExpertTime(seconds, over_links_s, over_nic_s, f"DeepEP low latency, {limit}")
