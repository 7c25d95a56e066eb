"""What recorded ranks tell each other: small values and Python objects, through files in a private folder.

Ranks are processes of one run. A message is a file named after sender, receiver and place in their sequence.
A receiver that finds none looks whether its sender has ended, or waits for somebody who waits for it, and
says so instead of hanging. Tensors without data need no message: their size is known to both sides.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windtunnel.errors import WindtunnelError

POLL_S = 0.002
STUCK_S = 2.0
"""Ranks that wait for each other this long, without a message on its way, will do so forever."""
LIMIT_S = 600.0
MOST_RANKS = 64
"""Every recorded rank is a process with some tens of MB of its own."""


def too_many(why: str, line: str = "") -> WindtunnelError:
    """E245: more ranks than a machine has room for."""
    return WindtunnelError(
        "E245",
        f"more than {MOST_RANKS} ranks would be recorded: {why}",
        hint=f"ask for at most {MOST_RANKS} cards (--on CHIP:{MOST_RANKS}), and reach further with --scale or "
        "`windtunnel plan`; or name only ranks that differ, as --ranks 0,8",
        values={"line": line} if line else {},
    )


class SenderStopped(Exception):
    """The sender recorded the steps asked for and ended; there is nothing more to come."""


@dataclass(slots=True)
class Mailbox:
    """The messages of one rank.

    Attributes:
        folder: shared by the ranks of a run.
        start: called with a rank's number before it is first talked to; it starts to be recorded.
        where: the script's current line, for errors.
    """

    folder: Path
    rank: int
    start: Callable[[int], None]
    where: Callable[[], str] = lambda: ""
    _sequence: Counter[str] = field(default_factory=Counter)
    _met: set[int] = field(default_factory=set)

    def meet(self, peer: int) -> None:
        """``peer`` takes part in what this rank does: it must be recorded too. Raises E245, too many are already."""
        if peer not in self._met and peer != self.rank:
            self._met.add(peer)
            if (
                not (self.folder / f"begun-{peer}").exists()
                and len(list(self.folder.glob("begun-*"))) >= MOST_RANKS
            ):
                raise too_many(f"rank {self.rank} sends to or receives from rank {peer}", self.where())
            self.start(peer)

    def send(self, to: int, channel: str, payload: object) -> None:
        """Leave a message; never waits."""
        self.meet(to)
        write_whole(self._path(self.rank, to, channel), pickle.dumps(payload))

    def expect(self, sender: int, channel: str) -> Path:
        """Keep the place in the sequence for a message that is read later."""
        self.meet(sender)
        return self._path(sender, self.rank, channel)

    def receive(self, sender: int, path: Path) -> Any:
        """Wait for an expected message and take it.

        Raises:
            SenderStopped: the sender ended in order.
            WindtunnelError: E230, the sender failed or ended without sending; E231, ranks wait in a circle.
        """
        self.wait_for(sender, path, lambda ended: self._no_message(sender, ended))
        payload = pickle.loads(path.read_bytes())  # written by a process of this run, in a private folder
        path.unlink()
        return payload

    def wait_for(self, sender: int, path: Path, nothing_comes: Callable[[str], Exception]) -> None:
        """Wait until ``sender`` has left the file ``path``.

        ``nothing_comes`` makes the error of a sender that ended without, from how it ended.

        Raises:
            SenderStopped: the sender ended in order.
            WindtunnelError: E231, ranks wait in a circle.
        """
        begin = time.monotonic()
        waiting = self.folder / f"waiting-{self.rank}"
        told = False
        while not path.exists():
            waited = time.monotonic() - begin
            if not told and waited > 10 * POLL_S:
                write_whole(waiting, f"{sender} {path.name} {self.where()}".encode())
                told = True
            ended = read_state(self.folder / f"ended-{sender}")
            if ended is not None and not path.exists():
                raise self._stopped_or(ended, nothing_comes)
            if waited > STUCK_S:
                self._look_for_circle(sender)
            if waited > LIMIT_S:
                raise nothing_comes("is silent")
            time.sleep(min(20 * POLL_S, POLL_S * (1 + waited / POLL_S / 50)))
        if told:
            waiting.unlink(missing_ok=True)

    @staticmethod
    def _stopped_or(ended: str, nothing_comes: Callable[[str], Exception]) -> Exception:
        return SenderStopped() if ended == "stopped" else nothing_comes(ended)

    def _path(self, sender: int, receiver: int, channel: str) -> Path:
        name = f"{sender}-{receiver}-{channel}"
        self._sequence[name] += 1
        return self.folder / f"{name}-{self._sequence[name]}"

    def _no_message(self, sender: int, ended: str) -> Exception:
        return WindtunnelError(
            "E230",
            f"rank {self.rank} waits for a message that rank {sender} never sends",
            hint="every receive needs a send on the other rank; check the conditions on the rank around them",
            values={f"rank {self.rank}": f"receives at {self.where()}", f"rank {sender}": ended},
        )

    def _look_for_circle(self, sender: int) -> None:
        chain = [self.rank]
        lines = {f"rank {self.rank}": f"waits for rank {sender} at {self.where()}"}
        current = sender
        while current not in chain:
            state = read_state(self.folder / f"waiting-{current}")
            if state is None:
                return
            peer, name, line = ([*state.split(" ", 2), "", ""])[:3]
            if (self.folder / name).exists():
                return
            chain.append(current)
            lines[f"rank {current}"] = f"waits for rank {peer} at {line}"
            current = int(peer)
        if current == self.rank:
            raise WindtunnelError(
                "E231",
                f"ranks {', '.join(map(str, chain))} wait for each other, forever",
                hint="let one side send first, or post both with batch_isend_irecv; join collectives in one order",
                values=lines,
            )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that nobody sees half-written."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)


def read_state(path: Path) -> str | None:
    """A small text file, or None where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
