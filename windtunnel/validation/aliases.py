"""Spellings of accelerators and precisions in measured tables, as names of the catalogue."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any


def chip_name(spelling: str) -> str | None:
    """``"H100 SXM 80GB"`` → ``"h100-sxm"``; None when unknown."""
    plain, known = _plain(spelling), _table("chips")
    return known.get(plain) or known.get(plain.removeprefix("nvidia"))


def precision_of(spelling: str) -> tuple[str, str] | None:
    """``"fp8_block"`` → ``("fp8", "block128")``: matrix precision and kernel path; None when unknown."""
    found = _table("precisions").get(_plain(spelling))
    return None if found is None else (str(found[0]), str(found[1]))


def _plain(spelling: str) -> str:
    return "".join(letter for letter in spelling.lower() if letter.isalnum())


@cache
def _table(name: str) -> dict[str, Any]:
    text = resources.files("windtunnel.validation").joinpath("aliases.toml").read_text("utf-8")
    return dict(tomllib.loads(text)[name])
