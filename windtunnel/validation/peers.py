"""Ours beside what other simulators publish or were found to do on the same rows.

SimuMax's errors are in ``simumax_b200_accuracy.csv``. Those of Calculon and SimuMax on vTrain's measurements were found
by running them, vTrain's own are its paper's. Calculon's own validation table is arXiv 2205.05198, table 5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from windtunnel.validation.rows_file import Answers
from windtunnel.validation.tables import Table, read_table

VTRAIN = (
    ("vTrain (its paper)", 0.1473, 0.0837),
    ("Calculon as shipped", 0.129, 0.389),
    ("SimuMax, starter values", 0.183, 0.264),
)
"""Mean absolute error on vTrain's rows over several nodes, and on one."""
VTRAIN_REGRET = (("Calculon as shipped", 0.013, 0.102), ("SimuMax, starter values", 0.157, 0.069))
"""Mean regret: measured time of the layout that was predicted to be best over that of the best, less 1."""
CALCULON_SEQUENCE_PARALLEL = 0.0365
"""Mean error over the eight end-to-end points of its own validation."""
_SAME = 2e-3


@dataclass(frozen=True, slots=True)
class Peer:
    """One comparison: mean absolute errors or regrets on the same rows."""

    table: str
    what: str
    rows: int
    ours: float
    theirs: float
    who: str
    where: str


def beside_peers(data: Path, answers: Sequence[Answers], where: str) -> list[Peer]:
    """Every comparison that the predicted rows of a folder allow."""
    return [*_simumax(data, answers, where), *_vtrain(data, answers, where), *_calculon(data, answers, where)]


def _errors(answers: Iterable[Answers], file: str, target: str) -> Iterator[tuple[int, float, float]]:
    """Row, prediction and measurement of every predicted and measured row of a target."""
    for part in answers:
        if part.file == file and part.target == target:
            for row, value, measured in zip(part.row.tolist(), part.value.tolist(), part.measured.tolist()):
                if np.isfinite(value) and measured > 0:
                    yield row, value, measured


def _simumax(data: Path, answers: Sequence[Answers], where: str) -> Iterator[Peer]:
    path = data / "simumax_b200_accuracy.csv"
    if not path.exists():
        return
    theirs = read_table(path)
    for target, real, error, scale, what in (
        ("step_seconds", "real_ms", "rel_err_pct", 1e3, "step time"),
        ("peak_memory_gib", "real_alloc_gib", "alloc_err_pct", 1.0, "allocated memory"),
    ):
        known = list(zip((theirs.number(real) / scale).tolist(), np.abs(theirs.number(error)).tolist()))
        pairs = []
        for _, value, measured in _errors(answers, "train_simumax_b200", target):
            same = [their for seconds, their in known if abs(seconds / measured - 1) < _SAME]
            if same:
                pairs.append((abs(value / measured - 1), same[0] / 100))
        if pairs:
            ours, peer = np.mean(pairs, axis=0).tolist()
            yield Peer("SimuMax B200", what, len(pairs), ours, peer, "SimuMax (its release)", where)


def _vtrain(data: Path, answers: Sequence[Answers], where: str) -> Iterator[Peer]:
    path = data / "vtrain_a100_measured.csv"
    found = {row: (v, m) for row, v, m in _errors(answers, "vtrain_a100_measured", "iteration_ms")}
    if not path.exists() or not found:
        return
    table = read_table(path)
    setups = dict(zip(table.index.tolist(), table.text("setup").tolist()))
    regrets = _regrets(table, found)
    for column, setup in ((1, "multi"), (2, "single")):
        what = "several nodes" if setup == "multi" else "one node"
        mine = [abs(v / m - 1) for row, (v, m) in found.items() if setups[row] == setup]
        for entry in VTRAIN if mine else ():
            yield Peer(
                "vTrain A100",
                f"step time, {what}",
                len(mine),
                float(np.mean(mine)),
                float(entry[column]),
                entry[0],
                where,
            )
        for entry in VTRAIN_REGRET if regrets[setup] else ():
            own = float(np.mean(regrets[setup]))
            title = f"planner regret, {what} (groups)"
            yield Peer("vTrain A100", title, len(regrets[setup]), own, float(entry[column]), entry[0], where)


def _regrets(table: Table, found: dict[int, tuple[float, float]]) -> dict[str, list[float]]:
    """Regret of each group of layouts of one model, size and batch that has more than one measured layout."""
    names = ("setup", "params_billion", "gpus", "global_batch", "hidden", "layers", "heads", "seq_len")
    cells = zip(table.index.tolist(), *(table.text(name).tolist() for name in names), strict=True)
    groups: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for row, *key in cells:
        if row in found:
            groups[tuple(key)].append(found[row])
    regrets: dict[str, list[float]] = defaultdict(list)
    for names_of_group, members in sorted(groups.items()):
        if len(members) > 1:
            chosen = min(members)[1]
            regrets[names_of_group[0]].append(chosen / min(measured for _, measured in members) - 1)
    return regrets


def _calculon(data: Path, answers: Sequence[Answers], where: str) -> Iterator[Peer]:
    path = data / "train_megatron_lm.csv"
    if not path.exists():
        return
    table = read_table(path)
    rows = {
        number
        for number, source in zip(table.index.tolist(), table.text("source_id").tolist())
        if "2205.05198" in source
    }
    found = [(v, m) for row, v, m in _errors(answers, "train_megatron_lm", "step_seconds") if row in rows]
    if found:
        ours = float(np.mean([abs(v / m - 1) for v, m in found]))
        what = "step time, sequence-parallel paper"
        yield Peer(
            "Calculon",
            what,
            len(found),
            ours,
            CALCULON_SEQUENCE_PARALLEL,
            "Calculon (its own validation)",
            where,
        )
