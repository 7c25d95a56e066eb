"""Files that are not Python: CUDA C++, job scripts, lists of requirements. Text and patterns, no parser."""

from __future__ import annotations

import re
from collections.abc import Iterator

from windtunnel.porting import tables
from windtunnel.porting.finding import Finding, Level

KERNEL_SUFFIXES = (".cu", ".cuh")
SCRIPT_SUFFIXES = (".sh", ".bash", ".slurm", ".sbatch")

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")
_REQUIREMENT = re.compile(r"^\s*[\"']?([A-Za-z0-9][\w.-]*)")


def kernels(path: str, text: str) -> Iterator[Finding]:
    """Each thing that a CUDA C++ file uses, once, at its first line; and the file itself."""
    lines = text.count("\n") + 1
    said = "names changed by musify-text or torchada's build, compiled by mcc"
    yield Finding(path, 1, f"CUDA C++, {lines:,} lines", Level.PORT, said)
    code = _COMMENT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for use in tables.kernel_uses():
        places = list(use.pattern.finditer(code))
        if places:
            line = code.count("\n", 0, places[0].start()) + 1
            many = f" ({len(places)} times)" if len(places) > 1 else ""
            yield Finding(path, line, f"{use.what}{many}", use.known.level, use.known.instead)


def script(path: str, text: str) -> Iterator[Finding]:
    """Variables and tools that a job script names."""
    for number, line in enumerate(text.splitlines(), 1):
        code = line.partition("#")[0]
        for word in dict.fromkeys(_WORD.findall(code)):
            known = tables.variable(word)
            if known is not None:
                yield Finding(path, number, word, known.level, known.instead)
        for tool, instead in tables.tools().items():
            if re.search(rf"(^|[\s;|&(/`])({re.escape(tool)})(\s|$|[;|&)`])", code):
                yield Finding(path, number, tool, Level.EDIT, instead)


def requirements(path: str, text: str) -> Iterator[Finding]:
    """Packages that a list of requirements asks for."""
    for number, line in enumerate(text.splitlines(), 1):
        found = _REQUIREMENT.match(line.partition("#")[0])
        known = tables.package(found[1].replace("-", "_")) if found else None
        if found and known is not None:
            yield Finding(path, number, f"requires {found[1]}", known.level, known.instead)
