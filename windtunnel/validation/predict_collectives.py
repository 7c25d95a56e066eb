"""Every row of a collective table as prediction or refusal.

Link figures are the catalogue's; the shape of the group is what the row states. Dispatch sends one byte an element
in DeepEP's benchmarks, combine two.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import Collective, bus_factor
from windtunnel.network.engine import Engine, call_s
from windtunnel.network.expert import ExpertTraffic
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.network.parameters import engine_fit
from windtunnel.network.topology import GroupShape
from windtunnel.specs.catalogue import chip
from windtunnel.specs.schema import ScaleUp
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.reasons import NOT_MODELLED, UNKNOWN_NAME, UNREADABLE
from windtunnel.validation.rows_file import Answers, refused
from windtunnel.validation.tables import Table

if TYPE_CHECKING:
    from windtunnel.validation.nearest import Nearest

KINDS = {
    "all_reduce": Collective.ALL_REDUCE,
    "all_gather": Collective.ALL_GATHER,
    "reduce_scatter": Collective.REDUCE_SCATTER,
    "alltoall": Collective.ALL_TO_ALL,
    "all_to_all": Collective.ALL_TO_ALL,
    "send_recv": Collective.SEND,
    "broadcast": Collective.BROADCAST,
    "dispatch": Collective.DISPATCH,
    "combine": Collective.COMBINE,
}


LARGE_BYTES = 1 << 20
LIBRARY_CALL_S = 34e-6
"""Host time of an NCCL call from Python without a graph: geometric mean of what the engines' calls take."""
CALL_SPREAD = (0.8, 2.1)
"""Low and high end of a call's host time: hosts and releases of the calibration tables differ by as much (vLLM 21 us
beside 45 us)."""

EAGER_COPY = 0.9
"""Share of memory bandwidth that the copy of an eager call's input reaches: what calls of 1 GiB take longer without a
graph on the A100 and H100 of the calibration tables, 1,230 and 710 us."""


UNSTATED_NETWORK = 4.0
"""High end of the interval where the network between nodes is not stated: clouds sell these nodes with 100 to 400 Gb/s
a card, and the catalogue has the most."""
UNSTATED_BOX = 5.0
"""The same where more than two cards meet over PCIe and the box is not stated: which of them share a switch, a socket
and the path between. On the one box of the calibration tables pairs reach 20.6 GB/s, or 3.9 where four cross."""


class Refused(Exception):
    """A row that cannot be predicted; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Case:
    """One collective as a row states it; ``target``: the column that holds its time.

    ``engine``: whose all-reduce. ``eager``: called from Python. ``in_switch``: switches may reduce.
    ``network_stated``: else it is the catalogue's.
    """

    chip: str
    kind: Collective
    library: str
    message_bytes: float
    shape: GroupShape
    target: str
    traffic: ExpertTraffic | None = None
    engine: Engine | None = None
    eager: bool = False
    in_switch: bool = True
    network_stated: bool = True


Row = dict[str, str]
_BROKEN = (ValueError, KeyError, ZeroDivisionError, OverflowError, AssertionError)


def _number(row: Row, name: str) -> int:
    return int(float(row[name]))


def _chip(spelling: str) -> str:
    name = chip_name(spelling) or chip_name(spelling.split()[0] if spelling else "")
    if name is None:
        raise Refused(f"{UNKNOWN_NAME}: accelerator `{spelling}` is not in the catalogue")
    return name


def _kind(text: str) -> Collective:
    if text not in KINDS:
        raise Refused(f"{NOT_MODELLED}: no model of the collective `{text}`")
    return KINDS[text]


def _nccl(row: Row) -> list[Case]:
    ranks, size = _number(row, "num_gpus"), float(row["message_bytes"])
    case = Case(
        _chip(row["gpu_system"]), _kind(row["collective"]), "nccl", size, GroupShape(ranks, 1, ranks),
        "latency_seconds",
    )  # fmt: skip
    return [case]


def _custom(row: Row) -> list[Case]:
    ranks, size = _number(row, "num_gpus"), float(row["message_bytes"])
    eager = "eager" in row.get("kernel_source", "")
    library = f"{row.get('library', '')} custom" + (" eager" if eager else "")
    shape = GroupShape(ranks, 1, ranks)
    return [
        Case(
            _chip(row["gpu_system"]),
            Collective.ALL_REDUCE,
            library,
            size,
            shape,
            "latency_seconds",
            engine=Engine(row["library"]),
            eager=eager,
        )
    ]


def _deepep(row: Row) -> list[Case]:
    nodes = _number(row, "num_nodes")
    name = _chip(row["gpu_system"])
    per_node = min(8, chip(name).cards_per_node)
    low_latency = row["mode"] == "low_latency"
    cases = []
    for what, width in (("dispatch", 1.0), ("combine", 2.0)):
        traffic = ExpertTraffic(
            tokens=float(row["tokens_per_rank"]),
            token_bytes=float(row["hidden_size"]) * width,
            top_k=_number(row, "topk"),
            experts=_number(row, "num_experts"),
            low_latency=low_latency,
            sms=int(float(row["num_sms"] or 0)),
        )
        cases.append(
            Case(
                name,
                KINDS[what],
                f"deepep {row['mode']}",
                traffic.tokens * traffic.token_bytes,
                GroupShape(nodes * per_node, nodes, per_node),
                f"{what}_seconds",
                traffic,
            )
        )
    return cases


def _published(row: Row) -> list[Case]:
    ranks, per_node = _number(row, "num_gpus"), _number(row, "gpus_per_node")
    network = row["inter_node_network"]
    nodes = max(1, ranks // per_node)
    algorithm = row.get("algorithm", "")
    case = Case(
        _chip(row["gpu"]),
        _kind(row["collective"]),
        "nccl",
        float(row["message_bytes"]),
        GroupShape(ranks, nodes, ranks // nodes),
        "latency_seconds",
        engine=Engine.SGLANG if "custom" in algorithm else None,
        eager="PyTorch" in row.get("measured_with", ""),
        in_switch="NVLS disabled" not in algorithm and algorithm != "without SHARP",
        network_stated=nodes == 1 or "not stated" not in network,
    )
    return [replace(case, library="one or two shots") if case.engine else case]


def _deepep_published(row: Row) -> list[Case]:
    ranks = _number(row, "ep_size")
    traffic = ExpertTraffic(
        tokens=float(row["tokens_per_rank"]),
        token_bytes=float(row["hidden_size"]) * (1.0 if row["op"] == "dispatch" else 2.0),
        top_k=_number(row, "topk"),
        node_limit=4,
        low_latency=row["kernel_mode"] == "low_latency",
    )
    nodes = max(1, ranks // 8)
    shape = GroupShape(ranks, nodes, min(ranks, 8))
    library = f"deepep {row['kernel_mode']}"
    size = traffic.tokens * traffic.token_bytes
    return [Case(_chip(row["gpu"]), _kind(row["op"]), library, size, shape, "latency_seconds", traffic)]


def _one_sided(row: Row) -> list[Case]:
    """TensorRT-LLM writes a token once to every rank that needs it, over NVLink."""
    ranks = _number(row, "num_gpus")
    traffic = ExpertTraffic(
        tokens=float(row["tokens_per_gpu"]),
        token_bytes=float(row["bytes_per_token"]),
        top_k=_number(row, "top_k"),
        one_sided=True,
    )
    size = traffic.tokens * traffic.token_bytes
    shape = GroupShape(ranks, 1, ranks)
    return [
        Case(
            _chip(row["gpu"]),
            _kind(row["operation"]),
            "trtllm one-sided",
            size,
            shape,
            "latency_seconds",
            traffic,
        )
    ]


def _vidur(row: Row) -> list[Case]:
    system = row["system"]
    if "pairwise" in system:
        raise Refused(f"{NOT_MODELLED}: boxes whose cards are linked in pairs")
    ranks, per_node = _number(row, "num_ranks"), _number(row, "devices_per_node")
    nodes = max(1, ranks // per_node)
    if nodes > 1 and system != "h100_dgx":
        raise Refused(f"{NOT_MODELLED}: the network between the nodes is not stated")
    shape = GroupShape(ranks, nodes, ranks // nodes)
    size = float(row["message_bytes"])
    return [Case(_chip(system), _kind(row["collective"]), "nccl", size, shape, "median_seconds")]


_READERS: dict[str, Callable[[Row], list[Case]]] = {
    "collective_aiconfigurator_nccl": _nccl,
    "collective_aiconfigurator_custom_allreduce": _custom,
    "collective_aiconfigurator_deepep": _deepep,
    "collective_nccl_published": _published,
    "collective_deepep": _deepep_published,
    "collective_trtllm_gb200_alltoall": _one_sided,
    "collective_vidur_nccl": _vidur,
}
_TARGETS = {
    "collective_aiconfigurator_deepep": ("dispatch_seconds", "combine_seconds"),
    "collective_vidur_nccl": ("median_seconds",),
}


@cache
def _network(name: str, cards: int, in_switch: bool = True) -> NetworkModel:
    """Links as the catalogue has them."""
    return NetworkModel(replace(Links.of_chip(chip(name), cards), reduces_in_switch=in_switch))


@dataclass(frozen=True, slots=True)
class _Found:
    position: int
    seconds: float
    low_s: float
    high_s: float
    baseline_s: float
    nearest_s: float


def predict_collectives(table: Table, nearest: Nearest | None = None) -> Iterator[Answers]:
    """Predictions of all rows by kind, library and chip, and the others with a reason. Never raises."""
    read = _READERS[table.file]
    names = list(table.columns)
    found: dict[tuple[str, str, str, str], list[_Found]] = defaultdict(list)
    failed: dict[str, list[int]] = defaultdict(list)
    cells = zip(*(table.text(name).tolist() for name in names), strict=True)
    for position, values in enumerate(cells):
        row = dict(zip(names, values, strict=True))
        try:
            for case in read(row):
                key = (_family(case), case.library, case.chip, case.target)
                found[key].append(_priced(case, position, nearest))
        except Refused as reason:
            failed[str(reason)].append(position)
        except WindtunnelError as error:
            failed[f"{error.code}: {error.what}"].append(position)
        except _BROKEN as error:
            failed[f"{UNREADABLE}: the row cannot be read: {error}"].append(position)
    ids = ids_of(table)
    for (family, library, name, target), items in sorted(found.items()):
        yield _answers(table, ids, family, library, name, target, items)
    for reason_text, positions in sorted(failed.items()):
        rows = table.index[positions]
        own = tuple(ids[i] for i in positions)
        for target in _TARGETS.get(table.file, ("latency_seconds",)):
            measured = table.number(target)[positions]
            yield refused(table.file, target, rows, own, measured, reason_text)


def measured_cases(table: Table) -> Iterator[tuple[int, Case, float]]:
    """Row number, collective and measured seconds of every row that can be read and has a time."""
    for number, row in zip(table.index.tolist(), _texts(table)):
        try:
            timed = [(case, float(row[case.target])) for case in _READERS[table.file](row)]
        except (Refused, WindtunnelError, *_BROKEN):
            continue
        yield from ((number, case, seconds) for case, seconds in timed if seconds > 0)


def cases_of(table: Table) -> list[Case]:
    """The collectives of all rows that can be read."""
    found = []
    for row in _texts(table):
        try:
            found += _READERS[table.file](row)
        except (Refused, WindtunnelError, *_BROKEN):
            continue
    return found


def _texts(table: Table) -> Iterator[Row]:
    names = list(table.columns)
    for values in zip(*(table.text(name).tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def network_of(case: Case) -> NetworkModel:
    """The links that a row's collective runs over."""
    return _network(case.chip, case.shape.ranks, case.in_switch)


def _family(case: Case) -> str:
    """Latency rules below 1 MiB and bandwidth above: they are judged apart."""
    size = "from 1 MiB" if case.message_bytes >= LARGE_BYTES else "below 1 MiB"
    return f"{case.kind.value} {size}"


def _priced(case: Case, position: int, nearest: Nearest | None) -> _Found:
    network = network_of(case)
    time = network.shaped_time(
        case.kind, case.message_bytes, case.shape, engine=case.engine, traffic=case.traffic
    )
    seconds = (time.low_s, time.seconds, time.high_s)
    if not case.network_stated:
        seconds = (time.low_s, time.seconds, UNSTATED_NETWORK * time.high_s)
    elif network.links.scale_up is ScaleUp.PCIE and case.shape.per_node > 2:
        seconds = (time.low_s, time.seconds, UNSTATED_BOX * time.high_s)
    if case.eager:
        seconds = _called(case, seconds)
    near = math.nan if nearest is None else _nearest_s(case, nearest)
    return _Found(position, seconds[1], seconds[0], seconds[2], _wire_s(case, network.links), near)


def _called(case: Case, on_card: tuple[float, float, float]) -> tuple[float, float, float]:
    """Without a graph: engines copy the input first; calls follow one another, the slower of host and card rules."""
    card, size = chip(case.chip), case.message_bytes
    copied, host_s = 0.0, LIBRARY_CALL_S
    if case.engine is not None:
        copied = 2 * size
        host_s = call_s(case.engine, size, case.shape.ranks, card.compute_capability, engine_fit().parameters)
    copy_s = copied / (EAGER_COPY * card.memory_bytes_per_s.value)
    low, high = CALL_SPREAD
    return (
        max(on_card[0] + copy_s, low * host_s),
        max(on_card[1] + copy_s, host_s),
        max(on_card[2] + copy_s, high * host_s),
    )


def _nearest_s(case: Case, nearest: Nearest) -> float:
    dims = {"ranks": case.shape.ranks, "nodes": case.shape.nodes, "bytes": case.message_bytes}
    columns = {name: np.array([float(value)]) for name, value in dims.items()}
    return float(nearest.of(case.kind.value, case.chip, case.library, "", columns, 1)[0])


def _wire_s(case: Case, links: Links) -> float:
    """Bytes over the data sheet's slowest link on the way, without any latency."""
    inside = links.pcie_bytes_per_s if links.scale_up is ScaleUp.PCIE else links.link_bytes_per_s
    rate = links.nic_bytes_per_s * case.shape.per_node if case.shape.nodes > 1 else inside
    copies = 1.0 if case.traffic is None else float(min(case.traffic.top_k, case.shape.ranks))
    return copies * max(bus_factor(case.kind, case.shape.ranks), 0.5) * case.message_bytes / rate


def _answers(
    table: Table, ids: tuple[str, ...], family: str, library: str, name: str, target: str, items: list[_Found]
) -> Answers:
    positions = [item.position for item in items]
    return Answers(
        table.file, family, library, name, target, "s",
        table.index[positions],
        tuple(ids[i] for i in positions),
        np.array([item.seconds for item in items]),
        np.array([item.low_s for item in items]),
        np.array([item.high_s for item in items]),
        table.number(target)[positions],
        np.array([item.baseline_s for item in items]),
        np.ones(len(items), dtype=np.bool_),
        nearest=np.array([item.nearest_s for item in items]),
    )  # fmt: skip
