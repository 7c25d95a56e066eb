"""Ranks that are recorded together meet in collectives, as on real cards: barriers wait, small values travel.

Who waits for whom follows from who is recorded. Where every rank is (``--ranks all``, values mode), all of them
meet. Else only barriers wait, for the ranks of the group that are being recorded, and broadcasts bring what a
recorded root has: the ranks beside them do the same as one that is there. Through files, as messages
(``mailbox.py``), so that a rank that never comes is seen: it has ended, or waits for somebody else.
What this is not: what a collective makes of the values (``real.py``).
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup

from windtunnel.capture.distributed.mailbox import Mailbox, SenderStopped, write_whole
from windtunnel.capture.steps import EnoughSteps
from windtunnel.errors import WindtunnelError


class NobodyThere:
    """What a root that is not recorded brings."""


NOBODY_THERE = NobodyThere()


@dataclass(slots=True)
class Rendezvous:
    """The meetings of one rank.

    Attributes:
        everybody: every rank of the world is recorded, from its start.
    """

    mailbox: Mailbox
    everybody: bool
    _met: Counter[str] = field(default_factory=Counter)
    _left: dict[str, list[Path]] = field(default_factory=dict)

    def all(self, group: ProcessGroup, what: str, payload: object) -> list[Any]:
        """What each rank of ``group`` brings, in their order. Only where everybody is recorded.

        Raises:
            WindtunnelError: E239, a rank never joins; E231, ranks wait in a circle; E212, one is elsewhere.
        """
        name, number = self._next(group)
        self._leave(name, number, what, payload)
        brought = [self._take(name, number, rank, what) for rank in ranks_of(group)]
        self._clear(name)
        return brought

    def barrier(self, group: ProcessGroup) -> None:
        """Wait for those of ``group`` that are recorded. Raises as ``all``."""
        name, number = self._next(group)
        self._leave(name, number, "barrier", None)
        ranks = ranks_of(group)
        for rank in ranks if self.everybody else self._begun(ranks):
            self._take(name, number, rank, "barrier")
        if self.everybody:
            self._clear(name)

    def root(self, group: ProcessGroup, root: int, what: str, payload: object) -> Any:
        """What the rank ``root`` brings, or ``NOBODY_THERE`` where it is not recorded. Raises as ``all``."""
        name, number = self._next(group)
        if root == self.mailbox.rank:
            self._leave(name, number, what, payload)
            return payload
        if not self.everybody and not self._begun([root]):
            return NOBODY_THERE
        return self._take(name, number, root, what)

    def pass_by(self, group: ProcessGroup) -> None:
        """A collective of ``group`` that is answered without the others: it counts all the same."""
        self._next(group)

    def _next(self, group: ProcessGroup) -> tuple[str, int]:
        """A name that every member has for the group, and the number of the meeting, from 1 on."""
        name = f"{group.group_name}-{hash(tuple(ranks_of(group))) & (1 << 64) - 1:x}".replace(os.sep, "_")
        self._met[name] += 1
        return name, self._met[name]

    def _path(self, group: str, number: int, rank: int) -> Path:
        return self.mailbox.folder / f"meet-{group}-{number}-{rank}"

    def _leave(self, group: str, number: int, what: str, payload: object) -> None:
        path = self._path(group, number, self.mailbox.rank)
        write_whole(path, pickle.dumps((what, self.mailbox.where(), payload)))
        self._left.setdefault(group, []).append(path)

    def _clear(self, group: str) -> None:
        """All have come to this meeting, so all are done with those before it."""
        *before, last = self._left[group]
        for path in before:
            path.unlink()
        self._left[group] = [last]

    def _begun(self, ranks: Iterable[int]) -> list[int]:
        begun = {int(path.name.removeprefix("begun-")) for path in self.mailbox.folder.glob("begun-*")}
        return sorted(begun.intersection(ranks))

    def _take(self, group: str, number: int, rank: int, what: str) -> Any:
        own = self.mailbox.rank
        path = self._path(group, number, rank)
        try:
            self.mailbox.wait_for(rank, path, lambda ended: self._never_joins(rank, what, ended))
        except SenderStopped:
            raise EnoughSteps from None
        theirs, line, payload = pickle.loads(
            path.read_bytes()
        )  # of a process of this run, in a private folder
        if theirs != what:
            raise WindtunnelError(
                "E212",
                f"ranks disagree about a collective: rank {own} is in {what}, rank {rank} in {theirs}",
                hint="check the order of collectives on the ranks named, and the conditions around them",
                values={
                    f"rank {own}": f"{what} at {self.mailbox.where()}",
                    f"rank {rank}": f"{theirs} at {line}",
                },
            )
        return payload

    def _never_joins(self, rank: int, what: str, ended: str) -> Exception:
        own = self.mailbox.rank
        return WindtunnelError(
            "E239",
            f"rank {own} waits in {what} that rank {rank} never joins",
            hint="all ranks of a group must issue the same collectives in the same order",
            values={f"rank {own}": f"{what} at {self.mailbox.where()}", f"rank {rank}": ended},
        )


def ranks_of(group: ProcessGroup) -> list[int]:
    """The members of a group, in its order."""
    return dist.get_process_group_ranks(group)


_here: list[Rendezvous] = []


def use(rendezvous: Rendezvous | None) -> None:
    """The meetings of this process, or none."""
    _here[:] = [] if rendezvous is None else [rendezvous]


def current() -> Rendezvous | None:
    """The meetings of this process; None outside a world."""
    return _here[0] if _here else None


def everybody_is_recorded() -> bool:
    """Whether every rank of the world is recorded, so that all can meet."""
    return bool(_here) and _here[0].everybody
