"""Rows of ``s5000_measured`` that are exchanges between cards: bus bandwidths of MCCL and copies between a pair."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from windtunnel.network.collective import Collective, bus_factor
from windtunnel.network.links import Links
from windtunnel.network.model import NetworkModel
from windtunnel.network.topology import GroupShape
from windtunnel.specs.catalogue import chip
from windtunnel.validation.aliases import chip_name
from windtunnel.validation.measured_files import ids_of
from windtunnel.validation.reasons import NOT_MODELLED, UNREADABLE
from windtunnel.validation.rows_file import Answers, Flags, refused
from windtunnel.validation.tables import Table

_KINDS = {
    "allreduce": Collective.ALL_REDUCE,
    "broadcast": Collective.BROADCAST,
    "reduce": Collective.REDUCE,
    "gather": Collective.GATHER,
    "scatter": Collective.SCATTER,
    "unidirectional": Collective.COPY,
}
_UNITS = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def is_exchange(table: Table) -> Flags:
    """Rows of MCCL or of copies between cards."""
    if table.file != "s5000_measured":
        return np.zeros(len(table), dtype=np.bool_)
    return np.isin(table.text("group"), ["mccl", "p2p"])


@dataclass(frozen=True, slots=True)
class Exchange:
    """One row: which exchange of how many bytes, and the seconds that its bandwidth means."""

    chip: str
    kind: Collective
    ranks: int
    message_bytes: float
    seconds: float


def exchange_of(device: str, metric: str, shape: str, unit: str, value: float) -> Exchange | str:
    """The exchange of a row, or the reason why it is none; bandwidths become times by nccl-tests' definition."""
    found = re.fullmatch(r"(.*) (\d+)x", device)
    size = re.fullmatch(r"([\d.]+) ?([KMG]iB)", shape)
    name = chip_name(found[1]) if found else None
    if found is None or size is None or name is None or unit != "GB/s":
        return f"{UNREADABLE}: device, size or unit of the exchange is not known"
    kind = _KINDS.get(metric.split()[0] if metric else "")
    if kind is None or "P2P off" in metric:
        return f"{NOT_MODELLED}: no model of `{metric}`"
    ranks = 2 if kind is Collective.COPY else int(found[2])
    nbytes = float(size[1]) * _UNITS[size[2]]
    seconds = bus_factor(kind, ranks) * nbytes / (value * 1e9) if value > 0 else math.nan
    return Exchange(name, kind, ranks, nbytes, seconds)


def measured_exchanges(table: Table) -> Iterator[tuple[int, Exchange]]:
    """Row number and exchange of every row that has a time."""
    for number, cells in _rows(table):
        found = exchange_of(*cells)
        if isinstance(found, Exchange) and found.seconds > 0:
            yield int(table.index[number]), found


def predict_mesh(table: Table) -> Iterator[Answers]:
    """Seconds of each row, one row a part. Never raises."""
    ids = ids_of(table)
    for number, cells in _rows(table):
        row, own = table.index[number : number + 1], ids[number : number + 1]
        found = exchange_of(*cells)
        if isinstance(found, str):
            yield refused(table.file, "seconds", row, own, np.full(1, np.nan), found)
            continue
        links = Links.of_chip(chip(found.chip), found.ranks)
        shape = GroupShape(found.ranks, 1, found.ranks)
        time = NetworkModel(links).shaped_time(found.kind, found.message_bytes, shape)
        pair = found.kind is Collective.COPY or found.ranks == 2
        rate = links.pair_bytes_per_s if pair else links.link_bytes_per_s
        wire_s = bus_factor(found.kind, found.ranks) * found.message_bytes / rate
        library = str(table.text("group")[number])
        yield Answers(
            table.file, f"{found.kind.value} from 1 MiB", library, found.chip, "seconds", "s", row, own,
            np.array([time.seconds]), np.array([time.low_s]), np.array([time.high_s]),
            np.array([found.seconds]), np.array([wire_s]), np.ones(1, dtype=np.bool_),
        )  # fmt: skip


def _rows(table: Table) -> Iterator[tuple[int, tuple[str, str, str, str, float]]]:
    columns = [table.text(name).tolist() for name in ("device", "metric", "shape", "unit")]
    yield from enumerate(zip(*columns, table.number("value").tolist(), strict=True))
