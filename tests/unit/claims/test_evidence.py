"""Kept evidence is what it was when it was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.claims import evidence, rerun
from windtunnel.claims.catalogue import CLAIMS, named
from windtunnel.errors import WindtunnelError


def test_changed_evidence_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "folder", lambda: tmp_path)
    run = evidence.Run(topic="stack", stack="S 1", what="w", command="c", outcome="runs", date="2026-01-01")
    evidence.save_runs((run,))
    assert evidence.runs() == (run,)
    path = tmp_path / evidence.RUNS
    path.write_text(path.read_text().replace("runs;", "").replace('"w"', '"more"'))
    with pytest.raises(WindtunnelError, match="changed") as caught:
        evidence.runs()
    assert caught.value.code == "E809"


def test_names_are_unique_and_wrong_ones_are_told() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    with pytest.raises(WindtunnelError, match="sponges") as caught:
        named(["sponges"])
    assert "sponge" in caught.value.hint


def test_runs_that_cannot_be_made_again_stay() -> None:
    def run(command: str, outcome: str) -> evidence.Run:
        return evidence.Run(
            topic="stack", stack="S 1", what="w", command=command, outcome=outcome, date="2026-01-01"
        )

    kept = (run("a", "old"), run("b", "old"))
    found = rerun.merged(kept, {"b": run("b", "new"), "c": run("c", "new")})
    assert [(one.command, one.outcome) for one in found] == [("a", "old"), ("b", "new"), ("c", "new")]
