"""The program file: round trip, same bytes for the same program, and a coded error for everything else."""

from __future__ import annotations

import hashlib
import pickle
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windtunnel.errors import WindtunnelError
from windtunnel.program import file
from windtunnel.program.count import work_of
from windtunnel.program.op import OpSpec, TensorSpec
from windtunnel.program.program import (
    Category,
    Notice,
    NoticeKind,
    Origin,
    Outcome,
    ProcessGroup,
    Program,
    SourceLine,
    StepKind,
    StepMark,
    allocation_event,
    free_event,
)

HEAD = 8 + 2 + 32 + 8


def program(**changes: object) -> Program:
    x = TensorSpec("bfloat16", (4, 8), (8, 1))
    specs = [
        OpSpec("aten.mm.default", (x, x), (x,)),
        OpSpec("aten.sum.dim_IntList", (x,), (x,), (("dim", (0, -1)), ("keepdim", True), ("dtype", None))),
        OpSpec("windtunnel.host_delay", attributes=(("seconds", 0.25), ("label", "größer"))),
    ]
    base = Program(
        origin=Origin(script="train.py", argv=("--lr", "1e-3"), outcome=Outcome.INTERRUPTED, parameters=7),
        specs=specs,
        works=[work_of(spec) for spec in specs],
        sites=np.array([[0, 0, 0, 0, 1], [1, 1, 1, 1, 2], [2, 0, 0, 0, 0]], np.int64),
        events=np.array([allocation_event(0), 0, 1, allocation_event(1), 2, free_event(0)], np.int64),
        storage_bytes=np.array([512, 1 << 40], np.int64),
        storage_category=np.array([Category.PARAMETER, Category.ACTIVATION], np.int64),
        scopes=["", "layers.0"],
        lines=[SourceLine("train.py", 3, "step"), SourceLine("<outside>", 0)],
        streams=["default", "side"],
        groups=[ProcessGroup((0, 1), "nccl", "dp")],
        steps=[StepMark(StepKind.TRAIN, 0, 6, tokens=4, samples=1, model="Net")],
        notices=[Notice(NoticeKind.PRETENDED, "torch.cuda.is_available", "train.py:1", 3)],
    )
    return replace(base, **changes)


def assert_same(a: Program, b: Program) -> None:
    for name in ("origin", "specs", "works", "scopes", "lines", "streams", "groups", "steps", "notices"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("sites", "events", "storage_bytes", "storage_category"):
        ours, theirs = getattr(a, name), getattr(b, name)
        assert ours.dtype == theirs.dtype == np.int64
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()


def code_of(data: bytes) -> str:
    with pytest.raises(WindtunnelError) as refused:
        file.loads(data, "some.wt")
    assert refused.value.hint
    assert "some.wt" in refused.value.what
    return refused.value.code


def loads_or_code(data: bytes) -> str:
    """The code of the error, or nothing where the change left a sound program."""
    try:
        file.loads(data)
    except WindtunnelError as refused:
        return refused.code
    return ""


def sealed(body: bytes) -> bytes:
    """A body with a right head: what a hostile writer would make."""
    return struct.pack("<8sH32sQ", file.MAGIC, 1, hashlib.sha256(body).digest(), len(body)) + body


def part(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return struct.pack("<QQ", len(packed), len(data)) + packed


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "train.wt"
    digest = file.save(program(), path)
    assert_same(file.load(path), program())
    assert digest == file.content_hash(program())
    assert path.read_bytes() == file.dumps(program())


def test_types_of_attributes_survive() -> None:
    attributes = (
        ("a", 1),
        ("b", 1.0),
        ("c", True),
        ("d", None),
        ("e", (1, 2.5, "x", None)),
        ("f", float("inf")),
    )
    spec = OpSpec("aten.add.Tensor", attributes=attributes)
    loaded = file.loads(file.dumps(program(specs=[spec] * 3)))
    assert [(name, type(value)) for name, value in loaded.specs[0].attributes] == [
        (name, type(value)) for name, value in attributes
    ]


def test_the_hash_tells_programs_apart() -> None:
    assert file.content_hash(program()) != file.content_hash(program(scopes=["", "layers.1"]))


def test_every_cut_is_refused() -> None:
    data = file.dumps(program())
    for length in [*range(0, len(data), 97), len(data) - 1]:
        assert code_of(data[:length]) in ("E901", "E902")


def test_something_after_the_end_is_refused() -> None:
    assert code_of(file.dumps(program()) + b"more") == "E903"


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_is_always_a_coded_error(place: int, bit: int) -> None:
    data = bytearray(file.dumps(program()))
    data[place % len(data)] ^= 1 << bit
    assert code_of(bytes(data)) in ("E901", "E902", "E903", "E904")


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_under_a_right_hash_never_crashes(place: int, bit: int) -> None:
    body = bytearray(file.dumps(program())[HEAD:])
    body[place % len(body)] ^= 1 << bit
    assert loads_or_code(sealed(bytes(body))) in ("", "E906")


@settings(max_examples=200)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_changed_table_under_a_right_hash_never_crashes(place: int, value: int) -> None:
    body = file.dumps(program())[HEAD:]
    packed, _ = struct.unpack_from("<QQ", body)
    table = bytearray(zlib.decompress(body[16 : 16 + packed]))
    table[place % len(table)] = value
    assert loads_or_code(sealed(part(bytes(table)) + body[16 + packed :])) in ("", "E906")


@given(data=st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    assert code_of(data) in ("E901", "E902")
    assert code_of(sealed(data)) == "E906"


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\x89WTUN\n\x1a", pickle.dumps({"a": 1}), b"import os\n" * 50, bytes(4096)]
)
def test_foreign_files_are_refused(data: bytes) -> None:
    assert code_of(data) == "E901"


def test_a_newer_version_says_so() -> None:
    data = bytearray(file.dumps(program()))
    data[8:10] = (99).to_bytes(2, "little")
    assert code_of(bytes(data)) == "E904"


def test_a_bomb_is_refused_before_it_grows() -> None:
    bomb = zlib.compress(bytes(1 << 26))
    claimed_small = struct.pack("<QQ", len(bomb), 100) + bomb
    claimed_large = struct.pack("<QQ", len(bomb), 1 << 40) + bomb
    assert code_of(sealed(claimed_small)) == "E906"
    assert code_of(sealed(claimed_large)) == "E906"


def test_deep_nesting_is_refused() -> None:
    assert code_of(sealed(part(b"\x91" * 100_000))) == "E906"


BAD = {
    "event": {"events": np.array([9], np.int64)},
    "storage": {"events": np.array([allocation_event(2)], np.int64)},
    "site": {"sites": np.array([[7, 0, 0, 0, 0]] * 3, np.int64)},
    "phase": {"sites": np.array([[0, 0, 0, 0, 9]] * 3, np.int64)},
    "negative": {"storage_bytes": np.array([-1, 0], np.int64)},
    "category": {"storage_category": np.array([0, 99], np.int64)},
    "categories": {"storage_category": np.array([0], np.int64)},
    "step": {"steps": [StepMark(StepKind.TRAIN, 0, 7)]},
    "order": {"steps": [StepMark(StepKind.TRAIN, 3, 2)]},
    "tokens": {"steps": [StepMark(StepKind.TRAIN, 0, 2, tokens=-1)]},
    "works": {"works": []},
    "stride": {"specs": [OpSpec("aten.mm.default", (TensorSpec("float32", (2,), (1, 1)),))] * 3},
    "size": {"specs": [OpSpec("aten.mm.default", (TensorSpec("float32", (-2,)),))] * 3},
    "name": {"specs": [OpSpec("")] * 3},
    "flops": {"works": [replace(work_of(OpSpec("aten.view.default")), flops=float("nan"))] * 3},
    "huge": {"works": [replace(work_of(OpSpec("aten.view.default")), bytes_read=1e300)] * 3},
    "group": {"groups": [ProcessGroup(())]},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_contradictions_are_refused(changes: dict[str, object]) -> None:
    assert code_of(file.dumps(program(**changes))) == "E906"


def test_unreadable_and_unwritable_paths(tmp_path: Path) -> None:
    with pytest.raises(WindtunnelError) as missing:
        file.load(tmp_path / "none.wt")
    assert missing.value.code == "E900"
    with pytest.raises(WindtunnelError) as folder:
        file.load(tmp_path)
    assert folder.value.code == "E900"
    with pytest.raises(WindtunnelError) as refused:
        file.save(program(), tmp_path / "no" / "folder.wt")
    assert refused.value.code == "E905"


SPECS = st.builds(
    OpSpec,
    st.text(min_size=1, max_size=12),
    st.lists(
        st.builds(TensorSpec, st.just("float32"), st.lists(st.integers(0, 9), max_size=3).map(tuple))
    ).map(tuple),
    st.just(()),
    st.lists(
        st.tuples(
            st.text(max_size=4), st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=3))
        )
    ).map(tuple),
)


@settings(max_examples=50)
@given(
    specs=st.lists(SPECS, min_size=1, max_size=4),
    events=st.lists(st.integers(-6, 0), max_size=50),
    sizes=st.lists(st.integers(0, 1 << 50), min_size=3, max_size=3),
)
def test_round_trip_of_any_program(specs: list[OpSpec], events: list[int], sizes: list[int]) -> None:
    original = Program(
        origin=Origin(script="s"),
        specs=specs,
        works=[work_of(OpSpec("aten.view.default"))] * len(specs),
        sites=np.array([[len(specs) - 1, 0, 0, 0, 0]], np.int64),
        events=np.array(events, np.int64),
        storage_bytes=np.array(sizes, np.int64),
        storage_category=np.zeros(3, np.int64),
        scopes=[""],
        lines=[SourceLine("s", 0)],
    )
    data = file.dumps(original)
    assert_same(file.loads(data), original)
    assert file.dumps(file.loads(data)) == data


def test_tables_hold_no_code() -> None:
    """The table is MessagePack of plain values: it decodes without any of our types."""
    body = file.dumps(program())[HEAD:]
    packed, _ = struct.unpack_from("<QQ", body)
    plain = msgspec.msgpack.decode(zlib.decompress(body[16 : 16 + packed]))
    assert plain["origin"]["script"] == "train.py"
