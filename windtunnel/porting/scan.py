"""All files of a codebase, each by what it is; what cannot be read is listed, never lost."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.porting import other_files, python_code
from windtunnel.porting.edits import diff, freed
from windtunnel.porting.finding import ORDER, Finding, Scan, Unread
from windtunnel.porting.source import Source

SKIPPED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", "build", "dist", "site-packages"}
"""Folders that hold no code of the project's own."""

Progress = Callable[[int], None]


def scan(paths: Sequence[Path], progress: Progress = lambda done: None) -> Scan:
    """Read every file below ``paths``.

    Args:
        progress: told how many files were read, after each.

    Raises:
        WindtunnelError: E981, a path does not exist; E982, nothing there can be scanned.
    """
    found: list[Finding] = []
    unread: list[Unread] = []
    files = lines = 0
    for path in _files(paths):
        try:
            text = path.read_text("utf-8")
            found += _findings(path, text)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError) as error:
            unread.append(Unread(str(path), _why(error)))
            continue
        files, lines = files + 1, lines + text.count("\n")
        progress(files)
    if not files and not unread:
        raise WindtunnelError(
            "E982",
            f"no Python, CUDA, job script or list of requirements in {', '.join(map(str, paths))}",
            hint="name a folder or a file of the codebase",
        )
    found.sort(key=lambda f: (-ORDER.index(f.level), f.path, f.line, f.what))
    return Scan(found, unread, files, lines)


def patch(paths: Sequence[Path]) -> Iterator[str]:
    """The lines of one unified diff with every mechanical edit; files that cannot be read are left as they are.

    Raises:
        WindtunnelError: E981.
    """
    for path in _files(paths):
        if path.suffix != ".py":
            continue
        try:
            text = path.read_text("utf-8")
            with _quiet():
                after = freed(str(path), text)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            continue
        yield from diff(_shown(path), text, after)


def _findings(path: Path, text: str) -> list[Finding]:
    name = str(path)
    if path.suffix == ".py":
        with _quiet():
            return list(python_code.findings(name, Source(text)))
    if path.suffix in other_files.KERNEL_SUFFIXES:
        return list(other_files.kernels(name, text))
    if path.suffix in other_files.SCRIPT_SUFFIXES:
        return list(other_files.script(name, text))
    return list(other_files.requirements(name, text))


@contextmanager
def _quiet() -> Iterator[None]:
    """Python warns about odd escapes in the code that it parses; that is not our user's concern here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shown(path: Path) -> str:
    """The path from here, as ``git apply`` wants it."""
    full = path.resolve()
    return (full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else path).as_posix()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise WindtunnelError("E981", f"{path} does not exist", hint="name a file or a folder to scan")
    for path in paths:
        if path.is_file():
            yield path
        else:
            yield from _below(path)


def _below(folder: Path) -> Iterable[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted(names):
            if _wanted(name):
                yield Path(root, name)


def _wanted(name: str) -> bool:
    suffix = os.path.splitext(name)[1]
    lists = name.startswith("requirements") and suffix in (".txt", ".in")
    return lists or suffix in (".py", *other_files.KERNEL_SUFFIXES, *other_files.SCRIPT_SUFFIXES)


def _why(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"no Python 3 at line {error.lineno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"{type(error).__name__}: {error}"
