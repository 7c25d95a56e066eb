"""The public names: light to import, and one call each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import windtunnel
from tests.unit.timeline.timeline_programs import make_program, mm
from windtunnel import api
from windtunnel.program.program import Phase


def test_importing_windtunnel_imports_nothing_heavy() -> None:
    heavy = "import windtunnel, sys; print([m for m in ('torch', 'numpy', 'msgspec') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_api_needs_no_pytorch() -> None:
    code = "import windtunnel.api, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", api.__all__)
def test_public_names_are_those_of_the_api(name: str) -> None:
    assert getattr(windtunnel, name) is getattr(api, name)
    assert name in dir(windtunnel)
    assert getattr(api, name).__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute `fly`"):
        windtunnel.fly  # type: ignore[attr-defined]  # noqa: B018


def test_a_file_is_predicted_on_a_chip_by_name(tmp_path: Path) -> None:
    program = make_program([(mm(4096, 4096, 4096), 0, Phase.FORWARD)], tokens=4096)
    path = tmp_path / "step.wt"
    digest = windtunnel.save(program, path)
    slow, fast = (
        windtunnel.predict(path, on="a100-80g"),
        windtunnel.predict(windtunnel.load(path), on="h100-sxm"),
    )
    assert slow.program_hash == fast.program_hash == digest
    assert slow.chip == "a100-80g"
    assert slow.step_time_s.value > fast.step_time_s.value > 0
    assert slow.memory.fits
    assert windtunnel.predict(program, on=windtunnel.chip("h100-sxm")).step_time_s == fast.step_time_s
