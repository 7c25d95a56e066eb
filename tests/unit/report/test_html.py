"""The page: every section has its content, nothing of a file runs, no network, small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support import sample_results
from windtunnel.errors import WindtunnelError
from windtunnel.report import html, op_tree
from windtunnel.results.run_result import RunResult, Span

VOID = {"meta", "link", "input", "br", "img"}


class _Page(HTMLParser):
    """Tags, attributes and text of a page, with a check that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
        table = dict(attrs)
        if table.get("id"):
            self.ids.append(str(table["id"]))
        if tag == "a":
            self.links.append(str(table["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


CASES: dict[str, tuple[RunResult, ...]] = {
    "training": (sample_results.training(),),
    "out of memory": (sample_results.out_of_memory(),),
    "decode": (sample_results.decode(),),
    "hostile": (sample_results.hostile(),),
    "compared": (sample_results.training(), sample_results.other_chip(), sample_results.out_of_memory()),
    "before and after": (sample_results.training(), sample_results.other_chip()),
}


@pytest.fixture(scope="module", params=CASES)
def page(request: pytest.FixtureRequest) -> tuple[str, _Page]:
    source = html.render(CASES[request.param])
    return source, _Page(source)


def test_links_lead_somewhere_and_ids_are_unique(page: tuple[str, _Page]) -> None:
    _, parsed = page
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link for link in parsed.links if link.startswith("#")} <= {f"#{name}" for name in parsed.ids}


def test_nothing_comes_from_a_network(page: tuple[str, _Page]) -> None:
    source, parsed = page
    loads = [(t, n, v) for t, n, v in parsed.attributes if n in ("src", "href", "srcset", "action")]
    assert all(value.startswith(("#", "data:")) for _, _, value in loads)
    assert "url(" not in source.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in source
    assert "http" not in source.replace("http-equiv", "")


def test_only_our_own_script_may_run(page: tuple[str, _Page]) -> None:
    source, parsed = page
    assert source.count("<script>") == 1
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    policy = next(v for _, n, v in parsed.attributes if n == "content" and "default-src" in v)
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_pages_are_small(page: tuple[str, _Page]) -> None:
    assert len(page[0].encode()) < 300_000


def test_hostile_names_are_text() -> None:
    source = html.render([sample_results.hostile()])
    assert "<script>alert" not in source
    assert "onerror=alert" not in re.sub(r'title="[^"]*"|data-[a-z]+="[^"]*"', "", source).replace(
        "&gt;&lt;img src=x onerror=alert(1)&gt;", ""
    )
    assert "<script>alert('x')</script>" in _Page(source).text


def test_sections_follow_the_content() -> None:
    full = _Page(html.render([sample_results.training()])).ids
    wanted = "answer time timeline memory communication roofline what-if trust inputs".split()
    assert [name for name in full if name in wanted] == wanted
    small = _Page(html.render([sample_results.decode()])).ids
    assert "communication" not in small
    assert "what-if" not in small


def test_the_answer_is_on_the_page() -> None:
    result = sample_results.training()
    text = _Page(html.render([result])).text
    for expected in (
        "Fits, using 58 % of memory; training step in 850 ms",
        "9,640 tokens/s/GPU",
        "full attention; 50.2 % if causal; peak bf16 989 TFLOP/s",
        "torch.cuda.is_available() → True",
        "FP8 accumulator width: 14 bits",
        "a public log, table 1",
        result.program_hash,
        result.command,
        *result.warnings,
    ):
        assert expected in text, expected


def test_an_empty_run_still_has_a_page() -> None:
    base = sample_results.training()
    nothing = base.step_time_s.scaled(0.0)
    memory = replace(base.memory, timeline=(), categories=(), largest=(), peak_by_category=())
    empty = replace(
        base, step_time_s=nothing, ops=(), spans=(), tracks=(), communication=(), sensitivities=(),
        notices=(), warnings=(), command="", memory=memory, mfu=None, ceilings=(),
    )  # fmt: skip
    parsed = _Page(html.render([empty]))
    assert "timeline" not in parsed.ids
    assert "roofline" not in parsed.ids
    _Page(html.render([empty, empty]))


def test_the_drawing_holds_every_span() -> None:
    result = sample_results.training()
    source = html.render([result])
    packed = source.partition('id="data">')[2].partition("<")[0]
    data = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert [track["name"] for track in data["tracks"]] == list(result.tracks)
    assert sum(len(track["starts"]) for track in data["tracks"]) == len(result.spans)
    default = data["tracks"][1]
    expected = sum(span.duration_s for span in result.spans if span.track == 1)
    assert sum(default["durations"]) / 1e9 == pytest.approx(expected, rel=1e-6)


def test_a_long_step_stays_below_the_limit() -> None:
    base = sample_results.training()
    ops = tuple(
        replace(base.ops[i % len(base.ops)], module=f"model.block{i}.part{i % 7}", line=f"file{i}.py:{i}")
        for i in range(8_000)
    )
    spans = tuple(Span(i % 3, i * 7e-6, 5e-6 + (i % 11) * 1e-7, i % 8_000) for i in range(130_000))
    size = len(html.render([replace(base, ops=ops, spans=spans)]).encode())
    assert size < 3_000_000


def test_tree_adds_up() -> None:
    ops = sample_results.training().ops
    nodes = op_tree.build(ops)
    whole_s = sum(row.seconds for row in ops)
    assert len(nodes) <= op_tree.MAX_NODES
    assert sum(node.seconds for node in nodes if node.level == 0) == pytest.approx(whole_s)
    for node in nodes:
        below = [child.seconds for child in nodes if child.parent == node.number]
        assert bool(below) is node.has_children
        if below:
            assert sum(below) == pytest.approx(node.seconds)


def test_tree_of_many_places_is_folded_without_loss() -> None:
    row = sample_results.training().ops[0]
    ops = [replace(row, name=f"op{i}", line=f"f.py:{i}", seconds=1e-3 / (i + 1)) for i in range(5000)]
    nodes = op_tree.build(ops)
    assert len(nodes) <= op_tree.MAX_NODES
    assert sum(n.seconds for n in nodes if n.level == 1) == pytest.approx(sum(op.seconds for op in ops))
    assert any(node.name.endswith(" more") for node in nodes)


def test_unwritable_page(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as caught:
        html.write([sample_results.decode()], tmp_path / "absent" / "x.html")
    assert caught.value.code == "E925"


def test_comparison_lists_kinds_and_memory() -> None:
    slower, empty = sample_results.other_chip(), replace(sample_results.decode(), ops=())
    source = html.render([sample_results.training(), slower, empty], ["a", "b", "c"])
    text = _Page(source).text
    assert "matmul 561 ms 561 ms —" in text
    assert "46.0 GiB reserved of 79.1 GiB usable" in text


def test_the_policy_names_the_script_that_is_there() -> None:
    source = html.render([sample_results.decode()])
    script = source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in source
