"""Ranks recorded together: saved beside each other, found again, priced as one cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.timeline.ranks_program import collective, mm, program
from windtunnel import api
from windtunnel.cli.main import main
from windtunnel.errors import WindtunnelError
from windtunnel.program import world_files


def pipeline(world: int = 2) -> list:
    first = [mm(), collective("send", peer=1), collective("recv_", peer=1), mm()]
    second = [collective("recv_", peer=0), mm(), mm(), collective("send", peer=0)]
    return [program(ops, rank=rank, world=world) for rank, ops in enumerate((first, second))]


def test_ranks_are_found_beside_the_first(tmp_path: Path) -> None:
    world_files.save(pipeline(), tmp_path / "train.wt")
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["train.rank1.wt", "train.wt"]
    found = world_files.load(tmp_path / "train.wt")
    assert [one.origin.rank for one in found] == [0, 1]


def test_saving_again_leaves_no_rank_of_the_world_before(tmp_path: Path) -> None:
    world_files.save(pipeline(), tmp_path / "train.wt")
    world_files.save([program([mm()], world=2)], tmp_path / "train.wt")
    assert [file.name for file in tmp_path.iterdir()] == ["train.wt"]


def test_a_world_is_predicted_as_a_cluster(tmp_path: Path) -> None:
    world_files.save(pipeline(), tmp_path / "train.wt")
    result = api.predict(tmp_path / "train.wt", on="h100-sxm")
    assert result.cards == 2
    assert [rank.rank for rank in result.ranks] == [0, 1]
    assert result.parts.bubble_s > 0
    with pytest.raises(WindtunnelError) as caught:
        api.predict(tmp_path / "train.wt", on="h100-sxm:4")
    assert caught.value.code == "E238"


def test_the_report_of_a_world_shows_its_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world_files.save(pipeline(), tmp_path / "train.wt")
    page = tmp_path / "train.html"
    assert (
        main(["report", str(tmp_path / "train.wt"), "--on", "h100-sxm", "--days", "7", "--html", str(page)])
        == 0
    )
    text = page.read_text(encoding="utf-8")
    assert '<h2 id="ranks">' in text
    assert '<h2 id="days">' in text
    assert "wrote" in capsys.readouterr().out
