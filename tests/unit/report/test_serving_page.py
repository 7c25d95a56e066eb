"""The page of a served load: its figures are the result's, its curves are where its numbers are."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from windtunnel.cli.main import main
from windtunnel.report import line_plots, serving_page
from windtunnel.results.serving_result import QUANTILES, ServingResult
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.metrics import parse_sla
from windtunnel.serving.offload import OffloadOptions
from windtunnel.serving.predict import Load, predict
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of


def served(rate: float, sla: str = "ttft:p50<5s,tpot<60ms") -> ServingResult:
    options = DeploymentOptions(
        gpu_memory_utilization=0.25, offload=OffloadOptions(kv_offloading_size_bytes=64 * 2**30)
    )
    found = deploy(shipped_model("qwen3-8b"), cluster_of("mtt-s5000", 1), options)
    requests = tuple(drawn(60, Lengths(prompt=900, output=24, prefix=512), rate=rate))
    return predict(found, Load(requests=requests, words="60 requests <of a test>"), sla=parse_sla(sla))


class _Links(HTMLParser):
    """Everything that a page asks for or opens."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and value:
                (self.anchors if value.startswith("#") else self.sources).append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_the_page_stands_alone_and_says_what_the_result_says() -> None:
    result = served(2.0)
    page = serving_page.render([result])
    links = _Links()
    links.feed(page)
    assert links.sources == ["data:,"]
    assert {anchor[1:] for anchor in links.anchors} <= set(links.ids)
    assert "60 requests &lt;of a test&gt;" in page
    assert "Meets the SLA" in page
    assert "host memory" in page
    assert all(said in page for said in result.assumptions)
    assert page.count('role="img"') == 3 + 2 + 1  # distributions, over time, the bar
    missed = serving_page.render([served(2.0, "ttft<1ms")])
    assert "Misses the SLA" in missed
    assert '<h1 id="answer" class="no">' in missed


def test_rates_are_drawn_where_their_figures_are() -> None:
    rates = (1.0, 2.0, 400.0)
    results = [served(rate) for rate in rates]
    page = serving_page.render(results, rates)
    assert page.count("<summary>") == 2 * len(rates)
    against, _, front = serving_page._against_rate(rates, results)
    offered = next(line for line in against.lines if line.name == "offered")
    ends = [tuple(map(float, pair.split())) for pair in offered.path[1:].split("L")]
    top = 1.04 * max(rates)
    assert ends == [pytest.approx((1000 * r / top, 1000 - 1000 * r / top), abs=0.1) for r in rates]
    assert [label for _, _, label in front.lines[0].dots] == ["400/s", "2/s", "1/s"]
    bottoms = [bottom for _, bottom, _ in front.lines[0].dots]
    assert bottoms == sorted(bottoms, reverse=True)  # what a user gains, the card loses


def test_distributions_rise_from_the_least_to_the_most() -> None:
    result = served(20.0)
    plot = serving_page._run("", result).distributions[0]
    points = [tuple(map(float, p.split())) for p in plot.lines[0].path[1:].split("L")]
    assert len(points) == len(QUANTILES)
    assert [1 - up / 1000 for _, up in points] == pytest.approx(QUANTILES, abs=1e-3)
    assert points == sorted(points, key=lambda point: point[0])
    assert sum(part.share for part in serving_page._run("", result).prompt_tokens) == pytest.approx(1.0)


@pytest.mark.parametrize(("last_s", "marks"), [(9.0, "s"), (500.0, "min"), (9000.0, "h")])
def test_axes_are_marked_with_round_values(last_s: float, marks: str) -> None:
    found = line_plots.over_time(last_s).marks()
    assert 4 <= len(found) <= 12
    assert all(mark.label.endswith(marks) for mark in found)
    assert len({len(re.sub(r"[^\d.]", "", mark.label)) for mark in found}) <= 3
    assert line_plots.linear([], str).marks()
    assert 2 <= len(line_plots.seconds([0.2, 900.0], str).marks()) <= line_plots.MOST_MARKS


def test_serve_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    common = ["serve", "qwen3-8b", "--on", "mtt-s5000", "--requests", "20", "--output-len", "4"]
    assert main([*common, "--rate", "2", "--html", str(page)]) == 0
    assert "wrote" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([*common, "--rates", "2,4", "--html", str(tmp_path / "no" / "page.html")]) == 2
    assert "E925" in capsys.readouterr().err
    assert main([*common, "--port", "0", "--engine", "vllm", "--html", str(page)]) == 2
    assert "E650" in capsys.readouterr().err
