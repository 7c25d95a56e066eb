"""One offline page: everything inline, no network, readable without JavaScript, printable.

Text is escaped by Jinja; what the script draws travels as compressed, base64-coded JSON and reaches the page
as text nodes only. A content security policy allows the page's own script and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import jinja2

from windtunnel import units
from windtunnel.report import comparison, difference, page, words
from windtunnel.report.files import write_bytes
from windtunnel.results import columns
from windtunnel.results.columns import Unit
from windtunnel.results.run_result import RunResult


def render(results: Sequence[RunResult], names: Sequence[str] = ()) -> str:
    """The page for one result, or the comparison of several under their names (their chips if not given)."""
    if len(results) == 1:
        view = page.view(results[0])
        return fill("report.html.j2", view=view, result=results[0], data=_packed(view.timeline))
    named = list(names) or comparison.names(results)
    return fill(
        "compare.html.j2",
        results=results,
        names=named,
        rows=comparison.rows(results),
        verdicts=[words.verdict(result) for result in results],
        kinds=page.compared_kinds(results),
        memories=page.compared_memory(results, named),
        bars=page.compared_bars(results, named),
        differences=difference.rows(results[0], results[1]) if len(results) == 2 else [],
        data="",
    )


def write(results: Sequence[RunResult], path: str | Path, names: Sequence[str] = ()) -> None:
    """Write the page. Raises E925 where that cannot be done."""
    write_bytes(path, render(results, names).encode())


def fill(template: str, **names: object) -> str:
    """A page from one of the templates, with the script and style that all pages share."""
    script, style = _asset("page.js"), _asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template(template).render(style=style, script=script, script_hash=digest, **names)


def _packed(columns_: dict[str, object]) -> str:
    plain = json.dumps(columns_, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(plain, 9)).decode()


def _memory(size_bytes: float) -> str:
    """In GiB, or in MiB what would show as less than 0.10 GiB."""
    unit = (units.GIB, "GiB") if abs(size_bytes) >= 0.1 * units.GIB else (units.MIB, "MiB")
    return f"{size_bytes / unit[0]:,.2f} {unit[1]}"


@cache
def _asset(name: str) -> str:
    return resources.files("windtunnel.report").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("windtunnel.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        seconds=units.seconds,
        gib=units.gib,
        memory=_memory,
        brief=words.brief,
        percent=lambda fraction: f"{100 * fraction:.1f} %",
        exact_percent=lambda fraction: units.percent(fraction, 4 if fraction > 0.5 else 2),
        place=lambda fraction: f"{100 * fraction:.3f}%",
        count=units.count,
        rate=lambda value: columns.text(Unit.FLOP_PER_S, value) if value > 0 else "",
        volume=lambda value: units.decimal(value, "B"),
        bandwidth=lambda value: columns.text(Unit.BYTES_PER_S, value) if value > 0 else "",
        label=columns.label,
        definition=lambda key: columns.column(key).definition,
        category=lambda name: name.replace("_", " "),
    )
    return environment.get_template(name)
