"""The accuracy page, as Markdown and as HTML: misses first, then every group, then what was refused and why."""

from __future__ import annotations

import importlib.resources
from collections import Counter
from dataclasses import dataclass

import jinja2

from windtunnel.validation.groups import Group, worst_first
from windtunnel.validation.left_out import LeftOut, share_met
from windtunnel.validation.peers import Peer

LISTED_ROWS_MIN = 10
"""Smaller groups are counted in their file's line only."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What one run of `validate` found.

    Attributes:
        rows: of all files, each counted once whatever its number of targets.
        files: groups by file and target. groups: by family, library and chip too.
        pooled: all training steps, peaks of memory and serving rows. calibration_pooled: of the calibration tables.
        unused: files of which nothing was read, and why. data: name of the folder.
        calibration: groups by file and target of the tables that the models were fitted to.
        peers: other simulators on the same rows.
        left_out: the kernel fits on shapes that were left out of them.
    """

    rows: int
    files: tuple[Group, ...]
    groups: tuple[Group, ...]
    unused: tuple[tuple[str, str], ...]
    data: str = ""
    date: str = ""
    calibration: tuple[Group, ...] = ()
    pooled: tuple[Group, ...] = ()
    calibration_pooled: tuple[Group, ...] = ()
    peers: tuple[Peer, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class _View:
    files: list[Group]
    calibration: list[Group]
    groups: list[Group]
    small: int
    met: float
    reasons: list[tuple[str, str, int]]
    accuracy: Accuracy


def markdown(accuracy: Accuracy) -> str:
    """The page as Markdown; the same figures give the same bytes."""
    return _rendered("accuracy.md.j2", accuracy, escape=False)


def html(accuracy: Accuracy) -> str:
    """The page as one file without scripts or outside resources."""
    return _rendered("accuracy.html.j2", accuracy, escape=True)


def _rendered(template: str, accuracy: Accuracy, *, escape: bool) -> str:
    source = (
        importlib.resources.files("windtunnel.validation").joinpath("templates", template).read_text("utf-8")
    )
    environment = jinja2.Environment(
        autoescape=escape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(share=_share, signed=_signed, ratio=_ratio, cell=_cell if not escape else str)
    return environment.from_string(source).render(view=_view(accuracy))


def _view(accuracy: Accuracy) -> _View:
    measured = [group for group in accuracy.groups if group.median_all is not None]
    large = [group for group in measured if group.compared >= LISTED_ROWS_MIN]
    reasons: Counter[tuple[str, str]] = Counter()
    for group in accuracy.files:
        for reason, count in group.reasons:
            reasons[group.file, reason] = max(count, reasons[group.file, reason])
    listed = sorted(((file, reason, count) for (file, reason), count in reasons.items()), key=_by_count)
    files = [group for group in worst_first(accuracy.files) if group.median_all is not None]
    fitted = [group for group in worst_first(accuracy.calibration) if group.median_all is not None]
    met = share_met(accuracy.left_out)
    return _View(files, fitted, worst_first(large), len(measured) - len(large), met, listed, accuracy)


def _by_count(entry: tuple[str, str, int]) -> tuple[int, str, str]:
    return -entry[2], entry[0], entry[1]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text that cannot end a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
