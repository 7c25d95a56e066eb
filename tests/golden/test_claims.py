"""A prediction cannot move without its page: docs/claims.md is what `windtunnel claims --markdown` writes.

With ``UPDATE_GOLDEN=1`` the page is written anew.
"""

from __future__ import annotations

import os
from pathlib import Path

from windtunnel.claims import catalogue, page

PAGE = Path(__file__).parents[2] / "docs" / "claims.md"


def test_the_page_holds_todays_predictions() -> None:
    findings = catalogue.check(catalogue.CLAIMS)
    text = page.markdown(findings)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        PAGE.write_text(text, encoding="utf-8")
        return
    assert text == PAGE.read_text(encoding="utf-8")
    assert "not reproduced" in text
    html = page.html(findings)
    assert len(html) < 3_000_000
    assert "<script src" not in html
