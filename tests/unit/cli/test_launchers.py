"""Lines that start with `python` or `torchrun`: the script behind them, its arguments, and how many processes."""

from __future__ import annotations

import pytest

from windtunnel.cli.launchers import Line, check_size, unwrapped
from windtunnel.errors import WindtunnelError


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train.py --x 1", Line(("train.py", "--x", "1"))),
        ("python train.py -m y", Line(("train.py", "-m", "y"))),
        ("/usr/bin/python3.11 -u -W ignore train.py", Line(("train.py",))),
        ("python -m pkg.train --x", Line(("pkg.train", "--x"), is_module=True)),
        ("torchrun train.py", Line(("train.py",))),
        ("torchrun --standalone --nproc-per-node 8 train.py --x", Line(("train.py", "--x"), processes=8)),
        ("torchrun --nnodes=2 --nproc_per_node=4 --rdzv-id 3 -m pkg.t", Line(("pkg.t",), True, 8)),
        ("torchrun --nnodes 1:4 --nproc-per-node gpu train.py", Line(("train.py",))),
        ("python -m torch.distributed.run --nproc-per-node 2 t.py", Line(("t.py",), processes=2)),
        ("gpt.wt --on h100", Line(("gpt.wt", "--on", "h100"))),
    ],
)
def test_the_script_behind_a_launcher(line: str, expected: Line) -> None:
    assert unwrapped(line.split(), is_module=False) == expected


@pytest.mark.parametrize("line", ["python", "python -c 1", "torchrun --nproc-per-node 8", "srun python t.py"])
def test_a_line_that_starts_no_script_is_bad_input(line: str) -> None:
    with pytest.raises(WindtunnelError) as raised:
        unwrapped(line.split(), is_module=False)
    assert raised.value.code == "E436"


def test_as_many_processes_as_cards() -> None:
    check_size(Line(("t.py",), processes=8), 8, "h100:8")
    check_size(Line(("t.py",)), 8, "h100:8")
    with pytest.raises(WindtunnelError) as raised:
        check_size(Line(("t.py",), processes=8), 1, "h100,h20")
    assert raised.value.code == "E437"
    assert raised.value.hint == "--on h100:8"
