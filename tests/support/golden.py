"""Comparison with a recorded file. ``UPDATE_GOLDEN=1 pytest`` records anew; look at the difference then."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"


def check(name: str, text: str) -> None:
    """Assert that ``text`` is what ``tests/golden/<name>`` holds."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing: record it with UPDATE_GOLDEN=1"
    assert text == path.read_text(encoding="utf-8")
