"""Saved results: what is written is what is read, and a foreign or damaged file gets a coded error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import sample_results
from windtunnel.errors import WindtunnelError
from windtunnel.results import file

SAMPLE = (sample_results.decode(), sample_results.out_of_memory())
DATA = file.dumps(SAMPLE)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "two.wtr"
    file.save(SAMPLE, path)
    assert file.load(path) == SAMPLE
    assert file.is_result_file(path)
    assert not file.is_result_file(tmp_path / "absent")


def test_same_results_same_bytes() -> None:
    assert file.dumps(SAMPLE) == DATA


def test_fields_an_older_version_did_not_know_take_their_defaults() -> None:
    tables = msgspec.msgpack.decode(msgspec.msgpack.encode(list(SAMPLE)))
    for table in tables:
        for key in ("ceilings", "nearest_measured", "versions", "assumptions"):
            del table[key]
    loaded = file.loads(_packed(msgspec.msgpack.encode(tables)))
    assert loaded[0].ceilings == ()


def _packed(plain: bytes, claimed: int | None = None) -> bytes:
    import hashlib

    body = zlib.compress(plain)
    size = len(plain) if claimed is None else claimed
    return struct.pack("<8sH32sQ", file.MAGIC, 1, hashlib.sha256(body).digest(), size) + body


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E921"),
        (b"hello", "E921"),
        (DATA[:20], "E922"),
        (DATA[:-1], "E922"),
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), "E922"),
        (DATA[:8] + b"\xff\x00" + DATA[10:], "E923"),
        (_packed(b"\x93"), "E924"),
        (_packed(msgspec.msgpack.encode([{"chip": 3}])), "E924"),
        (_packed(b"\x91" * 100_000), "E924"),
        (_packed(bytes(10**6), claimed=10), "E922"),
        (_packed(bytes(10), claimed=10**12), "E922"),
    ],
)
def test_bad_files(data: bytes, code: str) -> None:
    with pytest.raises(WindtunnelError) as caught:
        file.loads(data, "bad.wtr")
    assert caught.value.code == code
    assert caught.value.hint


def test_an_interval_that_does_not_hold_its_value_is_refused() -> None:
    tables = msgspec.msgpack.decode(msgspec.msgpack.encode(list(SAMPLE)))
    tables[0]["step_time_s"]["low"] = 1e9
    with pytest.raises(WindtunnelError, match="not a valid result"):
        file.loads(_packed(msgspec.msgpack.encode(tables)))


def test_unreadable_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as caught:
        file.load(tmp_path / "absent.wtr")
    assert caught.value.code == "E920"
    with pytest.raises(WindtunnelError) as caught:
        file.save(SAMPLE, tmp_path / "absent" / "x.wtr")
    assert caught.value.code == "E925"


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200))
def test_noise_never_crashes(noise: bytes) -> None:
    for data in (noise, file.MAGIC + noise, DATA[:50] + noise):
        with pytest.raises(WindtunnelError):
            file.loads(data)
