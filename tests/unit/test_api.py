"""The public names: light to import, and one call each."""

from __future__ import annotations

import subprocess
import sys

import pytest

import windtunnel
from windtunnel import api


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
