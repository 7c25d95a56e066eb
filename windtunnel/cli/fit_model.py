"""From what the user calls a model to its facts: a shipped name, a file, a class of transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from windtunnel.errors import WindtunnelError
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_catalogue import is_shipped, shipped_model, unknown_model
from windtunnel.specs.model_config import model_from_config

_HEADS = re.compile(r"For(CausalLM|ConditionalGeneration)$")


def find_model(word: str) -> ModelSpec:
    """The model that a word of the command line means.

    Raises:
        WindtunnelError: E302, nothing is called so; E303 and E304, its configuration; E306, a file that
            cannot be read; E307, transformers is needed and absent.
    """
    path = Path(word)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return _from_file(path)
    if is_shipped(word):
        return shipped_model(word)
    return _from_library(word)


def _from_file(path: Path) -> ModelSpec:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise _unreadable(path, str(error).splitlines()[0]) from None
    if not isinstance(content, dict):
        raise _unreadable(path, "it holds no JSON object")
    return model_from_config(content, path.parent.name or path.stem)


def _from_library(word: str) -> ModelSpec:
    looks_like_one = word.endswith("Config") or word.replace("_", "").isalnum()
    if not looks_like_one:
        raise unknown_model(word)
    if find_spec("transformers") is None:
        error = unknown_model(word)
        raise WindtunnelError(
            "E307",
            f"`{word}` is no shipped model, and transformers, which may know it, is not installed",
            hint=error.hint,
            values=error.values,
        )
    from transformers.models.auto import configuration_auto as library

    names: Mapping[str, str] = library.CONFIG_MAPPING_NAMES  # type: ignore[attr-defined]
    # a model's class is called as its configuration's, but for what it ends in
    config_class = _HEADS.sub("Config", word)
    family = next((key for key, name in names.items() if word == key or config_class == name), None)
    if family is None:
        raise unknown_model(word)
    config = library.CONFIG_MAPPING[family]().to_dict()
    return model_from_config(cast("Mapping[str, object]", config), family)


def _unreadable(path: Path, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E306",
        f"the model configuration {path} cannot be read: {why}",
        hint="give a config.json as checkpoints carry it, or the name of a shipped model",
        values={"path": str(path)},
    )
