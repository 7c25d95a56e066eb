"""Whom a rank may still ask to be recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.capture.distributed.mailbox import MOST_RANKS, Mailbox
from windtunnel.errors import WindtunnelError


def test_a_ring_over_too_many_ranks_is_refused(tmp_path: Path) -> None:
    """Each rank of a ring asks for the next: it ends at the limit, not at as many processes as there are cards."""
    asked: list[int] = []

    def start(rank: int) -> None:
        asked.append(rank)
        (tmp_path / f"begun-{rank}").touch()

    def ask_all() -> None:
        for rank in range(1024):
            Mailbox(tmp_path, rank, start, where=lambda: "ring.py:6").meet(rank + 1)

    (tmp_path / "begun-0").touch()
    with pytest.raises(WindtunnelError, match=f"more than {MOST_RANKS} ranks") as raised:
        ask_all()
    assert raised.value.code == "E245"
    assert raised.value.values["line"] == "ring.py:6"
    assert len(asked) == MOST_RANKS - 1
    # who is recorded already can still be talked to
    Mailbox(tmp_path, 900, start).meet(3)
