"""Findings' edits put into a file's text, and the change as a unified diff."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from windtunnel.porting.finding import Edit
from windtunnel.porting.python_code import NAME, findings
from windtunnel.porting.source import Source


def freed(path: str, text: str) -> str:
    """The file after every edit. An edit inside another is made when the file is read once more.

    Raises:
        SyntaxError: the text is no Python.
    """
    taken = NAME in text  # the file's own use of that word must keep its meaning
    while True:
        source = Source(text)
        edits = [f.edit for f in findings(path, source) if f.edit and not (taken and f.edit.needs_name)]
        if not edits:
            return text
        text = _edited(source, _outermost(edits))


def _edited(source: Source, edits: Sequence[Edit]) -> str:
    if any(edit.needs_name for edit in edits) and not source.assigns(NAME):
        edits = [*edits, _constant(source)]
    data = source.data
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        data = data[: edit.start] + edit.text.encode() + data[edit.end :]
    return data.decode()


def diff(path: str, before: str, after: str) -> list[str]:
    """The lines of a unified diff that ``git apply`` and ``patch -p1`` take."""
    return list(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
        )
    )


def _outermost(edits: Sequence[Edit]) -> list[Edit]:
    kept: list[Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit.start, -edit.end)):
        if not kept or edit.start >= kept[-1].end:
            kept.append(edit)
    return kept


def _constant(source: Source) -> Edit:
    """The line after the imports that names the accelerator once for the file."""
    torch = source.local_name("torch") or "torch"
    at = source.after_imports()
    import_line = "" if source.local_name("torch") else "import torch\n"
    ask = f"{torch}.accelerator"
    line = f'{NAME} = {ask}.current_accelerator().type if {ask}.is_available() else "cpu"\n'
    newline = "" if at == 0 or source.data[:at].endswith(b"\n") else "\n"
    return Edit(at, at, f"{newline}{import_line}\n{line}")
