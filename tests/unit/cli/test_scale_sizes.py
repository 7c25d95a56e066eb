"""How ``--scale`` reads its sizes."""

from __future__ import annotations

import pytest

from windtunnel.cli.run_scale import sizes
from windtunnel.errors import WindtunnelError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", [8]),
        ("64, 8", [8, 64]),
        ("8,16,...,128", [8, 16, 32, 64, 128]),
        ("8,…,32", [8, 16, 32]),
        ("8,32,...,512", [8, 32, 128, 512]),
        ("8,16,...,100", [8, 16, 32, 64, 100]),
    ],
)
def test_sizes(text: str, expected: list[int]) -> None:
    assert sizes(text) == expected


@pytest.mark.parametrize("text", ["8,many", "...", "...,8", "8,...", "0", "16,...,8", "-4"])
def test_refused(text: str) -> None:
    with pytest.raises(WindtunnelError) as raised:
        sizes(text)
    assert raised.value.code == "E240"
