"""The shipped models, by name. Their configurations lie beside this file as data, each with its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import cast

from windtunnel.errors import WindtunnelError
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_config import model_from_config
from windtunnel.specs.table import did_you_mean

MODELS = Path(__file__).parent / "models"

Entry = Mapping[str, object]


def model_names() -> list[str]:
    """Every shipped model, in alphabetical order."""
    return sorted(str(entry["name"]) for entry in _entries())


def shipped_model(name: str) -> ModelSpec:
    """The shipped model called ``name`` (or an alias of it; case and ``_`` do not matter).

    Raises:
        WindtunnelError: E302, no such model; E304, the published facts do not determine it.
    """
    entry = _by_name().get(_plain(name))
    if entry is None:
        raise unknown_model(name)
    try:
        spec = model_from_config(cast("Mapping[str, object]", entry["config"]), str(entry["name"]))
    except WindtunnelError as error:
        if "note" not in entry:
            raise
        raise WindtunnelError(
            error.code, f"{entry['title']}: {error.what}", hint=str(entry["note"]), values=error.values
        ) from None
    return replace(
        spec,
        title=str(entry["title"]),
        aliases=tuple(cast("list[str]", entry.get("aliases", []))),
        source=str(entry["source"]),
        date=str(entry["date"]),
    )


def shipped_config(name: str) -> Mapping[str, object]:
    """The published configuration of a shipped model, keys as in its config.json. Raises E302."""
    entry = _by_name().get(_plain(name))
    if entry is None:
        raise unknown_model(name)
    return cast("Mapping[str, object]", entry["config"])


def unknown_model(name: str) -> WindtunnelError:
    """E302."""
    known = sorted(_by_name())
    near = did_you_mean(_plain(name), known)
    return WindtunnelError(
        "E302",
        f"no model is called `{name}`",
        hint=f"{near}give a model of `windtunnel fit --models`, a config.json or a transformers type",
    )


def is_shipped(name: str) -> bool:
    """Whether a shipped model has this name or alias."""
    return _plain(name) in _by_name()


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


@cache
def _entries() -> tuple[Entry, ...]:
    files = sorted(MODELS.glob("*.json"))
    return tuple(entry for file in files for entry in json.loads(file.read_text(encoding="utf-8")))


@cache
def _by_name() -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in _entries():
        for name in (str(entry["name"]), *cast("list[str]", entry.get("aliases", []))):
            found[_plain(name)] = entry
    return found
