"""`windtunnel run` on scripts that are well: what is printed, saved, returned; and the script's surroundings."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from windtunnel import api
from windtunnel.cli.main import main
from windtunnel.program.program import Outcome, StepKind

CORPUS = Path(__file__).parent / "corpus"
TRAINS = str(CORPUS / "trains.py")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_script_runs_as_python_would_run_it(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    assert main(["run", TRAINS, "--steps", "9", "-v"]) == 0
    out, err = capsys.readouterr()
    assert "arguments ['--steps', '9', '-v'] main __main__" in out
    assert out.count("step ") >= 4
    assert "Step time" in out
    assert "saved trains.wt · next: windtunnel report trains.wt" in err
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before


def test_steps_stops_the_script_cleanly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--steps", "2", "-q", TRAINS]) == 0
    out, err = capsys.readouterr()
    assert "step 1 " in out
    assert "step 2 " not in out
    assert err == ""
    program = api.load("trains.wt")
    assert [step.kind for step in program.steps] == [StepKind.TRAIN] * 2
    assert program.origin.outcome is Outcome.COMPLETE


def test_forwards_before_training_are_no_steps(folder: Path) -> None:
    (folder / "evaluates.py").write_text(
        "import torch\n"
        "model = torch.nn.Linear(8, 8).cuda()\n"
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "x = torch.randn(4, 8).cuda()\n"
        "for _ in range(5):\n    model(x)\n"
        "for _ in range(3):\n    model(x).sum().backward()\n    optimizer.step()\n"
    )
    assert main(["run", "-q", "--steps", "1", "evaluates.py"]) == 0
    assert [step.kind for step in api.load("evaluates.wt").steps] == [StepKind.TRAIN]


def test_a_step_without_an_optimizer_ends_after_its_backward(folder: Path) -> None:
    (folder / "by_hand.py").write_text(
        "import torch\n"
        "model, loss = torch.nn.Linear(8, 8).cuda(), torch.nn.MSELoss()\n"
        "x = torch.randn(4, 8).cuda()\n"
        "for _ in range(4):\n    loss(model(x), x).backward()\n"
    )
    assert main(["run", "-q", "--steps", "2", "by_hand.py"]) == 0
    assert [step.kind for step in api.load("by_hand.wt").steps] == [StepKind.TRAIN] * 2


def test_json_is_one_object_and_the_script_prints_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "--on", "mtt-s5000", TRAINS]) == 0
    out, err = capfd.readouterr()
    answer = json.loads(out)
    assert answer["status"] == "ok"
    assert answer["chip"] == "mtt-s5000"
    assert answer["fits"] is True
    assert answer["saved"] == "trains.wt"
    assert answer["step_time_s"]["low"] <= answer["step_time_s"]["value"] <= answer["step_time_s"]["high"]
    assert {notice["what"] for notice in answer["notices"] if notice["kind"] == "pretended"} >= {"`.cuda()`"}
    assert "step 3" in err


def test_several_chips_and_a_recording(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "--on", "mtt-s5000,h100-sxm", "--out", "x.wt", TRAINS]) == 0
    runs = json.loads(capfd.readouterr().out)["runs"]
    assert [run["chip"] for run in runs] == ["mtt-s5000", "h100-sxm"]
    assert main(["run", "--json", "--on", "h100-sxm", "x.wt"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["step_time_s"] == runs[1]["step_time_s"]
    assert main(["run", "--json", "x.wt"]) == 0
    assert json.loads(capfd.readouterr().out)["chip"] == "mtt-s5000"


def test_a_module_runs_as_python_m_does(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "tinypackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text(
        "import sys, torch\nfrom tinypackage import __name__ as package\n"
        "print(package, __name__, sys.argv[1:])\ntorch.ones(4, device='cuda').sum()\n"
    )
    assert main(["run", "-m", "tinypackage.train", "--json"]) == 0
    assert "tinypackage __main__ ['--json']" in capsys.readouterr().out
    assert (folder / "train.wt").is_file()


@pytest.mark.parametrize(
    ("script", "status"), [("exits_three", 3), ("exits_with_words", 1), ("exits_well", 0)]
)
def test_the_scripts_own_exit_status_is_kept(
    script: str, status: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(CORPUS / f"{script}.py")]) == status
    assert (folder / f"{script}.wt").is_file()
    assert ("no data folder" in capsys.readouterr().err) == (script == "exits_with_words")


def test_a_traceback_is_the_scripts_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(CORPUS / "raises.py")]) == 2
    out, err = capsys.readouterr()
    traceback = err[err.index("Traceback") : err.index("error: ")]
    assert traceback.count("  File ") == 3  # module, outer, inner: none of ours, none of PyTorch's
    assert "in inner" in traceback
    assert "size mismatch" in traceback or "cannot be multiplied" in traceback
    assert "Step time" in out
    assert api.load("raises.wt").origin.outcome is Outcome.SCRIPT_ERROR


def test_an_interrupt_keeps_what_was_recorded(folder: Path) -> None:
    assert main(["run", "-q", str(CORPUS / "interrupted.py")]) == 130
    program = api.load("interrupted.wt")
    assert program.origin.outcome is Outcome.INTERRUPTED
    assert program.num_ops > 0


def test_out_of_memory_is_pytorchs_own_error_at_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(CORPUS / "too_big.py")]) == 1
    err = capsys.readouterr().err
    assert "torch.OutOfMemoryError" in err
    assert "too_big.py" in err
    assert api.load("too_big.wt").origin.outcome is Outcome.OUT_OF_MEMORY


def test_out_of_memory_can_be_passed_over(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "--oom", "continue", str(CORPUS / "too_big.py")]) == 1
    answer = json.loads(capfd.readouterr().out)
    assert answer["fits"] is False
    assert answer["outcome"] == "complete"


def test_a_script_can_catch_running_out_of_memory(folder: Path) -> None:
    (folder / "catches.py").write_text(
        "import torch\n"
        "try:\n    x = torch.empty(1 << 40, device='cuda')\n"
        "except torch.cuda.OutOfMemoryError:\n    x = torch.ones(4, device='cuda')\n"
        "x.sum()\n"
    )
    assert main(["run", "-q", "catches.py"]) == 0


def test_values_trains_with_real_numbers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "learns.py").write_text(
        "import torch\n"
        "torch.manual_seed(0)\n"
        "w = torch.zeros(4, device='cuda', requires_grad=True)\n"
        "optimizer = torch.optim.SGD([w], 0.5)\n"
        "target = torch.arange(4.0).cuda()\n"
        "for _ in range(40):\n"
        "    loss = (w - target).square().mean()\n"
        "    optimizer.zero_grad(); loss.backward(); optimizer.step()\n"
        "print('loss', loss.item() < 1e-4)\n"
    )
    assert main(["run", "-q", "--values", "learns.py"]) == 0
    assert "loss True" in capsys.readouterr().out


def test_the_virtual_clock_is_the_chips(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "times.py").write_text(
        "import time, torch\n"
        "a = torch.ones(8192, 8192, device='cuda', dtype=torch.bfloat16)\n"
        "torch.cuda.synchronize()\n"
        "begin, wall = time.perf_counter(), time.time()\n"
        "for _ in range(10):\n    a @ a\n"
        "torch.cuda.synchronize()\n"
        "print('measured', time.perf_counter() - begin)\n"
        "time.sleep(1000)\n"
        "print('wall', time.time() - wall)\n"
    )
    assert main(["run", "-q", "--virtual-clock", "--on", "h100-sxm", "times.py"]) == 0
    out = capsys.readouterr().out
    measured = float(out.split("measured ")[1].split()[0])
    wall = float(out.split("wall ")[1].split()[0])
    least = 10 * 2 * 8192**3 / 989.4e12
    assert least < measured < 3 * least
    assert wall == pytest.approx(1000 + measured, abs=0.01)


def test_classes_of_the_script_can_be_saved(folder: Path) -> None:
    (folder / "saves.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear): pass\n"
        "torch.save(Net(4, 4).cuda(), 'net.pt')\n"
        "assert type(torch.load('net.pt', weights_only=False)) is Net\n"
    )
    assert main(["run", "-q", "saves.py"]) == 0


def test_a_script_imports_from_its_own_folder(folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "helper_beside.py").write_text("SIZE = 4\n")
    (folder / "code" / "main.py").write_text(
        "import torch\nfrom helper_beside import SIZE\ntorch.ones(SIZE, device='cuda').sum()\n"
    )
    assert main(["run", "-q", "code/main.py"]) == 0
    assert (folder / "main.wt").is_file()
    assert {str(line) for line in api.load("main.wt").lines} >= {"code/main.py:3"}
