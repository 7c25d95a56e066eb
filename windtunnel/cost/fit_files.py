"""Fits as they are kept: ``parameters/<family>.json``, written by ``windtunnel calibrate``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from windtunnel.cost.fit import Fit, Regime


@cache
def load(family: str) -> tuple[Fit, ...]:
    """The fits of ``parameters/<family>.json``."""
    return tuple(fit_of(family, entry) for entry in _file(family)["fits"])


@cache
def transfer(family: str) -> Mapping[str, tuple[Regime, ...]]:
    """Intervals of borrowed fits by ``borrow.Distance``: empty where too little was measured to leave anything out."""
    found = _mapping(_file(family).get("transfer", {}))
    return {kind: tuple(Regime(*row) for row in _rows(rows)) for kind, rows in found.items()}


_ELSEWHERE: list[Path] = []


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Within it fits come from the files of ``folder``, those of families that it lacks from the package."""
    _ELSEWHERE.append(folder)
    forget()
    try:
        yield
    finally:
        _ELSEWHERE.pop()
        forget()


def forget() -> None:
    """Read the files anew: they have changed."""
    load.cache_clear()
    transfer.cache_clear()


def _file(family: str) -> dict[str, Any]:
    for folder in reversed(_ELSEWHERE):
        if (folder / f"{family}.json").exists():
            return dict(json.loads((folder / f"{family}.json").read_text("utf-8")))
    text = resources.files("windtunnel.cost").joinpath("parameters", f"{family}.json").read_text("utf-8")
    return dict(json.loads(text))


def fit_of(family: str, entry: Mapping[str, object]) -> Fit:
    """A fit from its entry in a parameter file."""
    fields = dict(entry)
    fields["values"] = tuple(sorted(_mapping(fields["values"]).items()))
    ranges = _mapping(fields.get("ranges", {}))
    fields["ranges"] = tuple((name, ends[0], ends[1]) for name, ends in sorted(ranges.items()))
    fields["regimes"] = tuple(Regime(*regime) for regime in _rows(fields["regimes"]))
    return Fit(family=family, **fields)  # type: ignore[arg-type]


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, got {value!r}")
    return value


def _rows(value: object) -> list[list[float]]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return [[float("inf") if cell is None else float(cell) for cell in row] for row in value]
