"""Every coded error is explained, and every explanation belongs to a code that is raised."""

from __future__ import annotations

import re
from pathlib import Path

from windtunnel.errors import AnswerIsNo, InternalError, WindtunnelError

ROOT = Path(__file__).parents[2]
RAISED = re.compile(r'"(E\d{3})"')
EXPLAINED = re.compile(r"^## (E\d{3})\b", re.MULTILINE)


def raised() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted((ROOT / "windtunnel").rglob("*.py")):
        for code in RAISED.findall(path.read_text(encoding="utf-8")):
            found.setdefault(code, path)
    return found


def explained() -> list[str]:
    pages = sorted((ROOT / "docs" / "errors").glob("*.md"))
    return [code for page in pages for code in EXPLAINED.findall(page.read_text(encoding="utf-8"))]


def test_codes_and_explanations_are_the_same_list() -> None:
    codes, pages = raised(), explained()
    missing = {code: str(path.relative_to(ROOT)) for code, path in codes.items() if code not in pages}
    assert missing == {}
    assert [code for code in pages if code not in codes] == []
    assert len(pages) == len(set(pages))


def test_an_error_tells_what_values_and_hint() -> None:
    error = WindtunnelError("E101", "no chip named `x`", hint="try `y`", values={"known": 3})
    assert error.render() == "error: no chip named `x` [E101]\n  known: 3\nhint: try `y`"
    assert error.to_dict()["hint"] == "try `y`"
    assert (WindtunnelError.exit_status, AnswerIsNo.exit_status, InternalError.exit_status) == (2, 1, 3)
