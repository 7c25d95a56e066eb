"""What is known of names, packages, variables and kernels on MUSA: the files in ``tables/``, typed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from windtunnel.porting.finding import Level


@dataclass(frozen=True, slots=True)
class Known:
    """What becomes of something, what to write instead, and the name under which it is known."""

    level: Level
    instead: str = ""
    neutral: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class KernelUse:
    """Something CUDA C++ does, found by a pattern."""

    pattern: re.Pattern[str]
    what: str
    known: Known


@cache
def cuda_name(name: str) -> Known:
    """What becomes of ``torch.cuda.<name>``; a submodule's entry serves what it holds."""
    table = _table("names")
    parent = name.partition(".")[0]
    neutral = table["neutral"].get(name, "")
    if name in table["gaps"]["names"] or parent in table["gaps"]["names"]:
        return Known(Level.TIED, "neither torch_musa nor torchada has it")
    if name in table["facts"]:
        return Known(Level.EDIT, table["facts"][name], neutral)
    if neutral:
        return Known(Level.REDIRECTED, f"`{neutral}`", neutral)
    said = table["advice"].get(name) or table["advice"].get(parent, "")
    if name in table["redirected"]["names"] or parent in table["redirected"]["names"]:
        return Known(Level.REDIRECTED, said)
    return Known(Level.EDIT, said or "not among the names known to be redirected")


@cache
def package(module: str) -> Known | None:
    """What becomes of an imported module; None for one that ties nothing."""
    table = _table("packages")
    name = module
    while name:
        if name in table["counterparts"]:
            return Known(Level.PORT, table["counterparts"][name], name=name)
        if name in table["instead"]:
            return Known(Level.TIED, table["instead"][name], name=name)
        name = name.rpartition(".")[0]
    return None


@cache
def variable(name: str) -> Known | None:
    """What becomes of an environment variable; None for one that is not a vendor's."""
    table = _table("settings")
    if name in table["variables"]:
        return Known(Level.EDIT, table["variables"][name])
    for prefix, instead in table["prefixes"].items():
        if name.startswith(prefix) and name != prefix:
            return Known(Level.EDIT, instead)
    return None


def tools() -> Mapping[str, str]:
    """Command-line tools of one vendor, and their counterparts."""
    found: Mapping[str, str] = _table("settings")["tools"]
    return found


@cache
def kernel_uses() -> tuple[KernelUse, ...]:
    """What is looked for in CUDA C++."""
    return tuple(
        KernelUse(re.compile(use["pattern"]), use["what"], Known(Level(use["level"]), use["instead"]))
        for use in _table("kernels")["use"]
    )


@cache
def _table(name: str) -> Mapping[str, Any]:
    return tomllib.loads((files("windtunnel.porting") / "tables" / f"{name}.toml").read_text("utf-8"))
