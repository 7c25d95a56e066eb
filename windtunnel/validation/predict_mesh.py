"""Rows of ``s5000_measured`` that are exchanges between cards: bus bandwidths of MCCL and copies between a pair."""

from __future__ import annotations

import re
from collections.abc import Iterator

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
    "unidirectional": Collective.SEND,
}
_UNITS = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


def is_exchange(table: Table) -> Flags:
    """Rows of MCCL or of copies between cards."""
    if table.file != "s5000_measured":
        return np.zeros(len(table), dtype=np.bool_)
    return np.isin(table.text("group"), ["mccl", "p2p"])


def predict_mesh(table: Table) -> Iterator[Answers]:
    """Seconds of each row, one row a part; bandwidths become times by nccl-tests' definition. Never raises."""
    names = ("device", "group", "metric", "shape", "unit")
    cells = zip(*(table.text(name).tolist() for name in names), strict=True)
    values, ids = table.number("value"), ids_of(table)
    for number, (device, group, metric, shape, unit) in enumerate(cells):
        row = table.index[number : number + 1]
        found = re.fullmatch(r"(.*) (\d+)x", device)
        size = re.fullmatch(r"([\d.]+) ?([KMG]iB)", shape)
        kind = _KINDS.get(metric.split()[0] if metric else "")
        name = chip_name(found[1]) if found else None
        if found is None or size is None or name is None or unit != "GB/s":
            reason = f"{UNREADABLE}: device, size or unit of the exchange is not known"
            yield refused(table.file, "seconds", row, ids[number : number + 1], np.full(1, np.nan), reason)
            continue
        if kind is None or "P2P off" in metric:
            reason = f"{NOT_MODELLED}: no model of `{metric}`"
            yield refused(table.file, "seconds", row, ids[number : number + 1], np.full(1, np.nan), reason)
            continue
        ranks = 2 if kind is Collective.SEND else int(found[2])
        nbytes = float(size[1]) * _UNITS[size[2]]
        links = Links.of_chip(chip(name), ranks)
        time = NetworkModel(links).shaped_time(kind, nbytes, GroupShape(ranks, 1, ranks))
        moved = bus_factor(kind, ranks) * nbytes
        pair = kind is Collective.SEND or ranks == 2
        rate = links.pair_bytes_per_s if pair else links.link_bytes_per_s
        yield Answers(
            table.file, f"{kind.value} from 1 MiB", group, name, "seconds", "s", row, ids[number : number + 1],
            np.array([time.seconds]), np.array([time.low_s]), np.array([time.high_s]),
            moved / (values[number : number + 1] * 1e9), np.array([moved / rate]), np.ones(1, dtype=np.bool_),
        )  # fmt: skip
