"""The pages of sweeps and of agents: their figures are the results', their curves are where the numbers are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.estimate import Estimate, Source
from windtunnel.report import agents_page, line_plots, sweep_page
from windtunnel.results.agents_result import AgentsResult, TeamsLoad
from windtunnel.results.serving_result import QUANTILES, Limit, Spread
from windtunnel.results.sweep_result import Pair, Point, SweepResult


def about(value: float) -> Estimate:
    return Estimate(value, 0.8 * value, 1.2 * value, ((Source.ANALYTIC, 1.0),))


def point(phase: str, batch: int, context: int, rate: float, step_s: float, fits: bool = True) -> Point:
    return Point(
        chip="mtt-s5000", cards=32, layout="EP 32", phase=phase, batch=batch, context=context,
        tokens_per_s_per_gpu=about(rate), roofline=4000.0, step_s=about(step_s), fits=fits,
    )  # fmt: skip


def swept() -> SweepResult:
    decode = [point("decode", 16, 4096, 250, 0.064), point("decode", 64, 4096, 700, 0.09)]
    decode.append(point("decode", 256, 4096, 1300, 0.2, fits=False))
    prefill = [point("prefill", 16, 1024, 3000, 3.2), point("prefill", 1, 16384, 2000, 4.7)]
    pair = Pair(prefill=prefill[0], decode=decode[1], prompt=1024, output=128)
    return SweepResult(
        model="m", model_title="Model <M>", pass_tokens=16384, points=(*prefill, *decode), pairs=(pair,),
        left_out=("8 cards do not hold <it>",),
    )  # fmt: skip


def test_a_sweep_speaks_of_the_best_batch_that_fits() -> None:
    page = sweep_page.render(swept())
    (answer,) = re.findall(r'<h1 id="answer">(.*?)</h1>', page)
    assert answer == "Up to 700 output tokens/s a card, 11.1 a user, on 32 × mtt-s5000"
    assert "Model &lt;M&gt;" in page
    assert "8 cards do not hold &lt;it&gt;" in page
    assert page.count("too small") == 1
    assert "http://" not in page
    assert "https://" not in page


def test_the_front_has_the_batches_that_fit_where_their_numbers_are() -> None:
    front = sweep_page._front(swept())
    assert front is not None
    (line,) = front.lines
    assert [label for _, _, label in line.dots] == ["64", "16"]  # fastest for a user last
    users, rates = [1 / 0.09, 1 / 0.064], [700.0, 250.0]
    for (left, bottom, _), user, rate in zip(line.dots, users, rates, strict=True):
        assert left == pytest.approx(line_plots.linear(users, str).place(user))
        assert bottom == pytest.approx(line_plots.linear(rates, str).place(rate))
    nothing = replace(swept(), points=(point("decode", 9, 4096, 1, 1, fits=False),), pairs=())
    assert sweep_page._front(nothing) is None
    assert "No batch of this sweep fits" in sweep_page.render(nothing)


def spread(p50: float, p90: float) -> Spread:
    return Spread(p50, p50, p90, p90)


def carried(met: bool) -> AgentsResult:
    loads = tuple(
        TeamsLoad(
            teams=teams, task_s=spread(teams, 2 * teams), ttft_s=spread(0.1, 0.2), tpot_s=spread(0.02, 0.05),
            tasks_per_hour=3600.0, met=teams < 30,
        )
        for teams in (1, 20, 40)
    )  # fmt: skip
    return AgentsResult(
        model="m", model_title="M", chip="mtt-s5000", chip_title="S5000", cards=8, layout="TP 8", scenario="swarm",
        graph_source="made up", teams=40, sustained_teams=Estimate(25, 10, 31, ((Source.ANALYTIC, 1.0),)),
        loads=loads, task_s=spread(40, 80), task_quantiles_s=tuple(40 + 40 * q for q in QUANTILES), alone_s=1.0,
        ttft_s=spread(0.1, 0.2), tpot_s=spread(0.02, 0.05), in_flight=39, calls_per_task=9,
        prompt_tokens_per_task=900, output_tokens_per_task=90, cached_fraction=0.25, shared_fraction=0.5,
        tasks_per_hour=about(3600), card_hour_price=2.0, cost_per_task=about(0.01), preemptions=0,
        limits=(Limit("task", "p90", 90.0 if met else 70.0, 80.0),), assumptions=("lengths <as recorded>",),
    )  # fmt: skip


def test_agents_say_how_many_teams_and_where_the_sla_breaks() -> None:
    page = agents_page.render(carried(met=False))
    assert '<h1 id="answer" class="no">Carries 25 teams of swarm within the SLA</h1>' in page
    assert "10 – 31" in page
    assert "lengths &lt;as recorded&gt;" in page
    assert page.count(">broken<") == 1
    assert page.count(">missed<") == 1
    assert 'class="no">Carries' not in agents_page.render(carried(met=True))


def test_latencies_stand_against_teams_beside_what_the_sla_allows() -> None:
    task = agents_page._plots(carried(met=True))[0]
    assert [(line.name, line.dashed) for line in task.lines] == [
        ("p50", False), ("p90", False), ("most that p90 may be", True),
    ]  # fmt: skip
    across, up = line_plots.linear([1, 20, 40], str), line_plots.linear([90.0], str)
    ends = [
        (round(1000 * across.place(x), 1), round(1000 * (1 - up.place(y)), 1)) for x, y in ((1, 2), (40, 80))
    ]
    p90 = task.lines[1].path
    assert p90.startswith(f"M{ends[0][0]} {ends[0][1]}L")
    assert p90.endswith(f"L{ends[1][0]} {ends[1][1]}")


def test_serve_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--html"]
    page = tmp_path / "page.html"
    assert main([*common, str(page), "--sweep", "--sweep-batches", "16,32"]) == 0
    assert "output tokens/s a card" in page.read_text(encoding="utf-8")
    assert main([*common, str(page), "--agents", "autogen:swarm×2"]) == 0
    assert "teams of autogen:swarm within the SLA" in page.read_text(encoding="utf-8")
    assert main([*common, str(tmp_path / "no" / "page.html"), "--sweep"]) == 2
    assert "E925" in capsys.readouterr().err
