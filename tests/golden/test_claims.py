"""A prediction cannot move without its page: docs/claims.md is what `windtunnel claims --markdown` writes.

With ``UPDATE_GOLDEN=1`` the page is written anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windtunnel.claims import catalogue, page
from windtunnel.claims.claim import Says
from windtunnel.claims.verdict import Finding

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"
UNKNOWN = (
    "dense-mfu",
    "moe-mfu",
    "scaling-1024",
    "scaling-10240",
    "effective-time",
    "deepseek-prefill",
    "deepseek-decode",
    "prefill-h20",
    "multimodal",
)
"""Claims whose settings are unknown: they are searched."""


@pytest.fixture(scope="module")
def findings() -> tuple[Finding, ...]:
    return catalogue.check(catalogue.CLAIMS)


def test_the_page_holds_todays_predictions(findings: tuple[Finding, ...]) -> None:
    text = page.markdown(findings)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PAGE.write_text(text, encoding="utf-8")
        return
    assert text == PAGE.read_text(encoding="utf-8")
    assert "not reproduced" in text


def test_the_page_is_one_offline_file(findings: tuple[Finding, ...]) -> None:
    html = page.html(findings)
    assert len(html) < 3_000_000
    assert "<script src" not in html
    assert html.count("<h3 id=") == len(findings)


def test_every_assumption_is_varied_or_said_to_turn_nothing(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        answer = finding.answer
        covered = {one.of for one in answer.variations} | {one.of for one in answer.steady}
        assert finding.claim.assumed, finding.claim.name
        assert set(finding.claim.assumed) == covered, finding.claim.name


def test_unknown_settings_are_searched_and_solved_for(findings: tuple[Finding, ...]) -> None:
    found = {finding.claim.name: finding for finding in findings}
    for name in UNKNOWN:
        answer = found[name].answer
        assert answer.regions, name
        assert answer.turns, name
        assert all(len(region.cells) >= 6 for region in answer.regions), name


def test_every_row_says_why_down_to_something(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        assert finding.answer.why or finding.answer.runs or finding.answer.would_take, finding.claim.name


def test_no_figure_of_the_makers_own_stands_alone(findings: tuple[Finding, ...]) -> None:
    """Beside every number that a claim's maker published stands one that it did not."""
    for finding in findings:
        own = [setting for setting in finding.answer.settings if setting.claimant]
        others = [setting for setting in finding.answer.settings if not setting.claimant]
        if own and finding.claim.says is not Says.NO_FIGURE:
            assert others, finding.claim.name
