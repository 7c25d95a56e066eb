"""The text that `windtunnel run` and `windtunnel report` print on stdout: exact at any width, piped or not.

Only the width and whether to style are asked for; nothing here looks at the terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from windtunnel.report import comparison, long_run_table, notices, ranks_table, terminal_tables, words
from windtunnel.report.text_table import TextColumn, plain, render
from windtunnel.results.run_result import RunResult

BOLD, DIM, RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"
PIPED_WIDTH = 100
"""Width to use where there is no terminal to ask."""


def summary(
    results: Sequence[RunResult],
    width: int = PIPED_WIDTH,
    styled: bool = False,
    fold: bool = True,
    names: Sequence[str] = (),
) -> str:
    """The text for one result, or the comparison of several. Ends with a line break.

    ``fold`` shortens long lists of notices to their first few; ``names`` head the columns of a comparison
    (the chips when not given).
    """
    blocks = _one(results[0], width, fold) if len(results) == 1 else _several(results, names, width)
    shown = [_styled(block) if styled else block for block in blocks if block]
    return "\n".join(chain.from_iterable([*block, ""] for block in shown)).rstrip("\n") + "\n"


def _one(result: RunResult, width: int, fold: bool) -> list[list[str]]:
    timed = result.step_time_s.value > 0
    return [
        [plain(words.title(result)), *notices.wrapped(plain(words.verdict(result)), width)],
        terminal_tables.metrics(result, width),
        terminal_tables.steps(result, width),
        terminal_tables.where_the_step_goes(result, width) if timed else [],
        terminal_tables.slowest_places(result, width),
        terminal_tables.communication(result, width),
        ranks_table.lines(result, width),
        long_run_table.lines(result, width),
        terminal_tables.memory(result.memory, width),
        terminal_tables.largest_storages(result.memory, width),
        notices.lines(result.notices, width, fold),
        notices.paragraphs("Assumed facts of the chip that this rests on", result.assumptions, width),
        notices.paragraphs("Warnings", result.warnings, width),
    ]


def _several(results: Sequence[RunResult], given: Sequence[str], width: int) -> list[list[str]]:
    chips = len({result.chip for result in results})
    of = f"on {chips} chips" if chips > 1 else f"on {plain(results[0].chip_title)}"
    blocks = [[f"{words.STEP_NAMES[results[0].step_kind]} {of}"]]
    rows = comparison.rows(results)
    names = [plain(name) for name in given or comparison.names(results)]
    for begin, end in _columns_that_fit(names, rows, width):
        headers = (
            TextColumn("Compared"),
            TextColumn("unit"),
            *(TextColumn(name, right=True) for name in names[begin:end]),
        )
        cells = [(("  " if row.indent else "") + row.label, row.unit, *row.cells[begin:end]) for row in rows]
        blocks.append(render(headers, cells, width))
    verdicts = [f"{name}: {plain(words.verdict(result))}" for name, result in zip(names, results)]
    blocks.append(["Verdicts", *(line for text in verdicts for line in notices.wrapped(text, width, " "))])
    return blocks


def _columns_that_fit(
    names: Sequence[str], rows: Sequence[comparison.ComparedRow], width: int
) -> list[tuple[int, int]]:
    """Ranges of results, each narrow enough for one table; chips are never dropped."""
    sizes = [3 + max(len(name), *(len(row.cells[index]) for row in rows)) for index, name in enumerate(names)]
    labels = max(len(row.label) + 2 * row.indent for row in rows) + max(len(row.unit) for row in rows) + 4
    ranges, begin, used = [], 0, labels
    for index, size in enumerate(sizes):
        if index > begin and used + size > width:
            ranges.append((begin, index))
            begin, used = index, labels
        used += size
    return [*ranges, (begin, len(names))]


def _styled(block: list[str]) -> list[str]:
    """Bold headings and faint rules."""
    if len(block) > 1 and block[1].startswith(" ─"):
        return [f"{BOLD}{block[0]}{RESET}", f"{DIM}{block[1]}{RESET}", *block[2:]]
    return [f"{BOLD}{block[0]}{RESET}", *block[1:]]
