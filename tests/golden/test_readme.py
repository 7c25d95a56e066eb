"""The README's commands are run as they stand, in order, and print what the README shows.

Lines that tell how long recording took differ from run to run; `…` stands for any lines. With
``UPDATE_GOLDEN=1`` the README's transcripts are written anew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)
SHOWN_LINES = 24
VARIES = re.compile(r"^(recorded|saved|wrote|step \d+:|\{)")


def run(command: list[str], folder: Path) -> str:
    environment = {**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def transcript(block: str, folder: Path) -> str:
    lines: list[str] = []
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        words = shlex.split(line[2:])
        assert words[0] == "windtunnel"
        out = run([sys.executable, "-m", "windtunnel", *words[1:]], folder).splitlines()
        kept = [text.rstrip() for text in out if not VARIES.match(text)]
        lines.append(line)
        lines += kept[:SHOWN_LINES] + (["…"] if len(kept) > SHOWN_LINES or len(kept) < len(out) else [])
    return "\n".join(lines) + "\n"


CLAIM_ROW = re.compile(r"^\| ([^|\[]+?) \|[^|]*\|[^|]*\|[^|]*\|[^|]*\|$", re.MULTILINE)


def with_claims(text: str) -> str:
    """The README with its rows of claims as docs/claims.md has them today."""
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[([^\]]+)\]\(#[^)]*\) (\|.*\|)$", page, re.MULTILINE))
    return CLAIM_ROW.sub(
        lambda found: f"| {found[1]} {rows[found[1]]}" if found[1] in rows else found[0], text
    )


def test_readme_shows_claims_as_their_page_does() -> None:
    text = README.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN") == "1":
        README.write_text(with_claims(text), encoding="utf-8")
        return
    assert text.count(") |") >= 3
    assert with_claims(text) == text


def test_readme_commands_print_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = README.read_text(encoding="utf-8")
    fresh = text
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            run([sys.executable, "-c", block], tmp_path)
            continue
        fresh = fresh.replace(block, transcript(block, tmp_path))
    assert (tmp_path / "gpt.html").stat().st_size < 3_000_000
    assert (tmp_path / "gpt.pftrace").exists()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        README.write_text(fresh, encoding="utf-8")
        return
    assert fresh == text
