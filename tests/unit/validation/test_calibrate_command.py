"""`windtunnel calibrate`: what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from windtunnel.errors import WindtunnelError
from windtunnel.validation.calibrate.command import calibrate_kernels


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as refusal:
        list(calibrate_kernels(tmp_path))
    assert refusal.value.code == "E953"


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as refusal:
        list(calibrate_kernels(tmp_path, ["gem"]))
    assert refusal.value.code == "E954"
    assert "gemm" in refusal.value.hint
