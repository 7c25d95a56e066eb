"""A fresh recording on an MTT S5000 for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windtunnel.capture.session import Session
from windtunnel.specs.catalogue import chip


@pytest.fixture
def shadow() -> Iterator[Session]:
    with Session(chip("mtt-s5000")) as session:
        yield session


@pytest.fixture
def values() -> Iterator[Session]:
    with Session(chip("mtt-s5000"), "values") as session:
        yield session
