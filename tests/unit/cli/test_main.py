"""The frame around every command: exit status, interrupts, bugs, broken pipes, what is imported."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import windtunnel
from windtunnel.cli import main as cli
from windtunnel.cli import output
from windtunnel.errors import AnswerIsNo, InternalError, WindtunnelError

NAME = "windtunnel.cli.chips"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Puts a made-up command in the place of `chips`."""

    def put(answer: Callable[[], int]) -> None:
        module = types.ModuleType(NAME)
        module.add_parser = lambda subparsers: subparsers.add_parser("chips", help="")  # type: ignore[attr-defined]
        module.run = lambda args: answer()  # type: ignore[attr-defined]
        module.__spec__ = sys.modules[NAME].__spec__ if NAME in sys.modules else None
        real = cli.importlib.import_module
        monkeypatch.setattr(
            cli.importlib, "import_module", lambda name: module if name == NAME else real(name)
        )

    return put


def raising(error: BaseException) -> Callable[[], int]:
    def answer() -> int:
        raise error

    return answer


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_of_the_command(command: Callable[[Callable[[], int]], None], status: int) -> None:
    command(lambda: status)
    assert cli.main(["chips"]) == status


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (AnswerIsNo("E300", "does not fit", hint="use more cards"), 1, "no"),
        (WindtunnelError("E400", "bad", hint="mend it"), 2, "error"),
        (InternalError("E998", "we were wrong", hint="report it"), 3, "error"),
        (ZeroDivisionError("x"), 3, "error"),
        (RecursionError("deep"), 3, "error"),
    ],
)
def test_errors(
    command: Callable[[Callable[[], int]], None],
    error: Exception,
    status: int,
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(raising(error))
    assert cli.main(["chips", "--json"]) == status
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["status"] == word
    assert set(answer["error"]) == {"code", "what", "values", "hint"}
    assert "hint: " in captured.err
    assert ("Traceback" in captured.err) == (status == 3)


def test_without_json_nothing_is_on_stdout(
    command: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(WindtunnelError("E400", "bad", hint="mend it", values={"size": 3})))
    assert cli.main(["chips"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: bad [E400]\n  size: 3\nhint: mend it\n"


def test_an_interrupt_is_no_error(
    command: Callable[[Callable[[], int]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(raising(KeyboardInterrupt()))
    assert cli.main(["chips"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_json_that_belongs_to_the_users_script_is_not_ours() -> None:
    assert not cli._wants_json(["run", "train.py", "--json"], "run")
    assert not cli._wants_json(["run", "-m", "package.train", "--json"], "run")
    assert cli._wants_json(["run", "--json", "train.py"], "run")


def test_a_reader_that_goes_away() -> None:
    """As `windtunnel chips | head -1`: no traceback, however much is left to write."""
    line = (
        "import sys; from windtunnel.cli import chips; from windtunnel.cli.main import main;"
        "chips.run = lambda args: [print('x' * 1000) for _ in range(20_000)] and 0;"
        "sys.exit(main(['chips']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"windtunnel {windtunnel.__version__}\n"
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name, _, _ in cli.available())


@pytest.mark.parametrize("name", [name for name, _, _ in cli.available()])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_commands_without_a_module_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (("chips", NAME, ""), ("later", "windtunnel.cli.later", "")))
    assert [name for name, _, _ in cli.available()] == ["chips"]
    assert cli.main(["later"]) == 2


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": float("inf"), "b": [float("nan"), 1.5], "c": {"d": (1, 2)}})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": [1, 2]}}


def test_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    assert output.width() == output.PIPED_WIDTH
    monkeypatch.setenv("COLUMNS", "140")
    assert output.width() == 140
    monkeypatch.setenv("COLUMNS", "5")
    assert output.width() == 40


class Terminal:
    """A stderr that is a terminal and keeps what it gets."""

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_progress_waits_a_second_and_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    with output.Progress("recording") as progress:
        now = 0.9
        progress.update("10 ops")
        assert terminal.text == ""
        now = 1.1
        progress.update("20 ops")
        progress.update("21 ops")
        assert terminal.text == "\r\x1b[Krecording: 20 ops"
    assert terminal.text.endswith("\r\x1b[K")


@pytest.mark.parametrize("quiet", [False, True])
def test_interrupted_work_says_how_far_it_was(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    def work() -> None:
        with output.Progress("serving", quiet=quiet) as progress:
            progress.update("812 s, 3 of 10 requests answered")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert capsys.readouterr().err == ("" if quiet else "serving: 812 s, 3 of 10 requests answered\n")


def test_no_progress_in_a_pipe_or_when_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    with output.Progress("recording") as progress:
        now = 5.0
        progress.update("10 ops")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    now = 0.0
    with output.Progress("recording", quiet=True) as progress:
        now = 5.0
        progress.update("10 ops")
    assert terminal.text == ""
    assert capsys.readouterr().err == ""


def test_global_options_before_or_after_the_command(
    command: Callable[[Callable[[], int]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []
    command(lambda: 0)
    module = cli.importlib.import_module(NAME)
    monkeypatch.setattr(module, "run", lambda args: seen.append(args) or 0)
    for words in (["-q", "chips"], ["chips", "-q"], ["chips"]):
        cli.main(words)
    assert [args.quiet for args in seen] == [True, True, False]
    assert not any(args.json or args.verbose for args in seen)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full here")
def test_a_full_disk_is_no_bug_of_ours() -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "windtunnel", "chips"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr.startswith("error: cannot write the answer: No space left on device [E925]")
    assert "Traceback" not in process.stderr
