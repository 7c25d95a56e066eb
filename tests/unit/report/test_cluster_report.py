"""Ranks, scaling and days: on the page, in the terminal, in JSON and in a saved result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import sample_results
from windtunnel.report import cluster_plots, html, long_run_table, scaling_table, terminal
from windtunnel.results import file, json_result

CLUSTER = sample_results.cluster()


def test_the_page_draws_ranks_scaling_and_days() -> None:
    page = html.render([CLUSTER])
    for anchor in ("ranks", "scaling", "days"):
        assert f'<h2 id="{anchor}">' in page
        assert f'href="#{anchor}"' in page
    assert page.count("What rank ") == 4
    assert "rank 48 · critical" in page
    assert "1,024 cards: 78.0%" in page
    assert "arXiv 2407.21783" in page
    plain = html.render([sample_results.training()])
    for anchor in ("ranks", "scaling", "days"):
        assert f'<h2 id="{anchor}">' not in plain


def test_the_curve_is_where_its_figures_are() -> None:
    plot = cluster_plots.scaling(CLUSTER.scaling)
    assert plot is not None
    lefts, bottoms = [x for x, _, _ in plot.points], [y for _, y, _ in plot.points]
    assert lefts == pytest.approx([0, 0.25, 0.5, 1.0])  # doublings are equal steps
    assert [b / bottoms[0] for b in bottoms] == pytest.approx([1, 0.97, 0.91, 0.78])
    assert [bar.width for bar in plot.bars] == pytest.approx([0.78, 0.78 / 0.97, 0.78 / 0.91, 1.0])
    for bar in plot.bars:
        assert sum(piece.width for piece in bar.pieces) == pytest.approx(1.0)


def test_lanes_share_one_scale_of_time() -> None:
    lanes = cluster_plots.lanes(CLUSTER)
    starts = [lane.pieces[0].left for lane in lanes]
    assert starts == pytest.approx([0.0, 0.05, 0.10, 0.15])
    assert all(piece.left + piece.width <= 1.0001 for lane in lanes for piece in lane.pieces)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminal_says_the_same(width: int) -> None:
    text = terminal.summary([CLUSTER], width)
    assert "96.2 % effective training time" in " ".join(text.split())
    assert "work lost" in text
    assert all(len(line) <= width or " " not in line.strip() for line in text.splitlines())
    table = "\n".join(scaling_table.lines(CLUSTER, width))
    assert "Weak scaling" in table
    strong = replace(CLUSTER, scaling=tuple(replace(p, work_per_step=1.0) for p in CLUSTER.scaling))
    assert "Strong scaling" in "\n".join(scaling_table.lines(strong, width))


def test_json_and_file_keep_all_of_it() -> None:
    run = json_result.run(CLUSTER)
    assert run["long_run"]["effective"]["value"] == pytest.approx(0.962)  # type: ignore[index]
    assert run["scaling"][-1]["exposed_comm_s"] > run["scaling"][0]["exposed_comm_s"]  # type: ignore[index]
    assert file.loads(file.dumps([CLUSTER])) == (CLUSTER,)
    assert long_run_table.lines(sample_results.training(), 100) == []
