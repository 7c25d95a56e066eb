"""Device time by phase and module path as frames of an icicle: each as wide as its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from windtunnel.report import grouping
from windtunnel.results.run_result import OpRow

LEAST_WIDTH = 0.002  # of the whole: narrower frames cannot be seen or pointed at


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame: ``left`` and ``width`` as fractions of the whole, ``depth`` from the top."""

    name: str
    path: str
    depth: int
    left: float
    width: float
    seconds: float


@dataclass(slots=True)
class _Branch:
    seconds: float = 0.0
    children: dict[str, _Branch] = field(default_factory=dict)


def frames(ops: Iterable[OpRow]) -> list[Frame]:
    """Frames from the root down, wide ones first on each level."""
    root = _Branch()
    for row in ops:
        if row.seconds > 0:
            _grow(root, _path(row), row.seconds)
    result: list[Frame] = []
    if root.seconds > 0:
        _lay_out(root, "all", "", 0, 0.0, root.seconds, result)
    return result


def depth(of: list[Frame]) -> int:
    """Levels that the frames take."""
    return max((frame.depth for frame in of), default=-1) + 1


def _path(row: OpRow) -> list[str]:
    modules = grouping.generic_module(row.module).split(".") if row.module else []
    joined: list[str] = []
    for piece in modules:  # "layers", "*" read better as one frame
        if piece == "*" and joined:
            joined[-1] += ".*"
        else:
            joined.append(piece)
    return [row.phase or "other", *joined, grouping.op_name(row)]


def _grow(branch: _Branch, path: list[str], seconds: float) -> None:
    branch.seconds += seconds
    if path:
        _grow(branch.children.setdefault(path[0], _Branch()), path[1:], seconds)


def _lay_out(
    branch: _Branch, name: str, path: str, level: int, left: float, whole_s: float, into: list[Frame]
) -> None:
    width = branch.seconds / whole_s
    if width < LEAST_WIDTH:
        return
    into.append(Frame(name, path or name, level, left, width, branch.seconds))
    for child, below in sorted(branch.children.items(), key=lambda item: (-item[1].seconds, item[0])):
        _lay_out(below, child, f"{path} › {child}" if path else child, level + 1, left, whole_s, into)
        left += below.seconds / whole_s
