"""DeepSeek's H800 training trace against the simulated pair; nothing is fitted on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from windtunnel.validation.dualpipe_trace import EXCHANGES, FILE, PARTS, Pair, measured, page, simulated

ROOT = Path(__file__).parents[3]
TRACE = ROOT.parent / "shared/measurements/validation" / FILE


@pytest.fixture(scope="module")
def ours() -> Pair:
    return simulated()


@pytest.fixture(scope="module")
def real() -> Pair:
    if not TRACE.exists():
        pytest.skip(f"{TRACE} is not there")
    return measured(TRACE)


def test_exchange_hides_behind_compute(ours: Pair) -> None:
    assert set(ours.busy_s) == {*PARTS, *EXCHANGES}
    assert ours.both_s > 0.95 * ours.exchange_s
    assert ours.span_s < 0.75 * (ours.compute_s + ours.exchange_s)


def test_multiprocessors_that_the_exchange_holds_lengthen_the_pair(
    ours: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windtunnel.network.tiers.sm_share", lambda *a, **k: 0.0)
    free = simulated()
    assert ours.span_s > 1.03 * free.span_s


def test_the_whole_is_as_long_as_measured(real: Pair, ours: Pair) -> None:
    """One after the other would be 50 % longer, overlap without loss of multiprocessors 20 % shorter."""
    assert ours.span_s == pytest.approx(real.span_s, rel=0.18)
    assert ours.exchange_s == pytest.approx(real.exchange_s, rel=0.15)
    assert ours.both_s == pytest.approx(real.both_s, rel=0.15)


def test_every_part_is_of_the_right_size(real: Pair, ours: Pair) -> None:
    for name in (*PARTS, *EXCHANGES):
        assert 0.5 < ours.busy_s[name] / real.busy_s[name] < 2.0, name
    for name in EXCHANGES:
        assert ours.busy_s[name] == pytest.approx(real.busy_s[name], rel=0.35), name


def test_the_page_is_up_to_date(real: Pair, ours: Pair) -> None:
    def span_ms(text: str) -> tuple[float, float]:
        found = re.search(r"\| whole pair[^|]*\| ([\d.]+) \| ([\d.]+) \|", text)
        assert found is not None
        return float(found[1]), float(found[2])

    text = (ROOT / "docs/deepseek-h800-trace.md").read_text(encoding="utf-8")
    assert span_ms(text) == pytest.approx(span_ms(page(real, ours)), rel=0.03), (
        "write it again: python -m windtunnel.validation.dualpipe_trace TRACE.csv > docs/deepseek-h800-trace.md"
    )
