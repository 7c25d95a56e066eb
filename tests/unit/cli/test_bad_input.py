"""Bad command lines: a code, a hint, exit status 2 and no traceback; in JSON, one object and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from windtunnel.cli.main import main

GOOD = '{ value = 1, unit = "W", source = "page", date = "2026", trust = "vendor" }'

LINES = {
    "unknown command": (["chps"], "E990", "did you mean `chips`?"),
    "nonsense command": (["zzzzzz"], "E990", "commands:"),
    "unknown option": (["chips", "--jsno"], "E991", "did you mean `--json`?"),
    "unknown option with a value": (["chips", "--chip=x"], "E991", "did you mean `--chips`?"),
    "unknown short option": (["chips", "-z"], "E991", "--help"),
    "option before the command": (["--jsno", "chips"], "E991", "--help"),
    "abbreviated option": (["chips", "--js"], "E991", "--json"),
    "option without its value": (["chips", "--set"], "E991", "expected one argument"),
    "unknown action": (["chips", "shwo"], "E991", "did you mean `show`?"),
    "a chip without show": (["chips", "h20x"], "E991", "windtunnel chips show h20x"),
    "show without a name": (["chips", "show"], "E991", "windtunnel chips show mtt-s5000"),
    "show with two names": (["chips", "show", "h20", "h100"], "E991", "one chip, not 2"),
    "unknown chip": (["chips", "show", "mtt-s500"], "E101", "did you mean `mtt-s5000`?"),
    "override without a value": (["chips", "--set", "tdp_w"], "E107", "--set memory_bytes_per_s=1.4e12"),
    "override of nothing known": (["chips", "--set", "tpd_w=3"], "E107", "did you mean `tdp_w`?"),
    "override in another unit": (["chips", "--set", "memory_bytes_per_s=3TB/s"], "E107", "B/s"),
    "negative override": (["chips", "show", "h20", "--set", "tdp_w=-1"], "E106", "above zero"),
    "no such folder": (["chips", "--chips", "/nonexistent/cards"], "E108", "chip.toml"),
}

FILES = {
    "malformed": ("title = ", "E102", "is not TOML"),
    "number without source": (
        f'based_on = "h20"\ntdp_w = {GOOD.replace(chr(34) + "page" + chr(34), chr(34) * 2)}',
        "E104",
        "`tdp_w.source`",
    ),
    "number without any origin": (
        'based_on = "h20"\ntdp_w = { value = 1, unit = "W" }',
        "E103",
        "`tdp_w.trust` is missing",
    ),
    "wrong unit": (f'based_on = "h20"\ntdp_w = {GOOD.replace("W", "kW")}', "E105", "`tdp_w.unit` is `kW`"),
    "negative value": (
        f'based_on = "h20"\ntdp_w = {GOOD.replace("= 1", "= -1")}',
        "E106",
        "`tdp_w.value` is -1",
    ),
    "unknown base": ('based_on = "h30"', "E101", "did you mean `h20`?"),
}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The text of the error. The line must fail with status 2, without a traceback and without data."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert captured.err.startswith("error: ")
    assert "\nhint: " in captured.err
    return captured.err


@pytest.mark.parametrize("case", LINES)
def test_bad_lines(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, code, what = LINES[case]
    text = refused(words, capsys)
    assert f"[{code}]" in text
    assert what in text


@pytest.mark.parametrize("case", FILES)
def test_bad_chip_files(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, code, what = FILES[case]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "chip.toml").write_text(text, encoding="utf-8")
    message = refused(["chips", "show", "mine", "--chips", str(tmp_path)], capsys)
    assert f"[{code}]" in message
    assert what in message


@pytest.mark.parametrize("case", LINES)
def test_bad_lines_in_json(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, code, _ = LINES[case]
    assert main(["--json", *words]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["status"] == "error"
    assert answer["error"]["code"] == code
    assert answer["error"]["hint"]
    assert answer["schema"].startswith("windtunnel.")
    assert f"[{code}]" in captured.err


@given(words=st.lists(st.text(max_size=8), max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_words_after_chips_end_in_an_answer_or_a_code(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if any(word in ("-h", "--help") for word in words):
        return
    status = main(["chips", *words])
    captured = capsys.readouterr()
    assert status in (0, 2)
    assert "Traceback" not in captured.err
    assert (status == 2) == captured.err.startswith("error: ")
