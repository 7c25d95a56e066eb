"""The program file (``.wt``): a recorded program on disk, safe to open from strangers.

    magic (8) | schema version (2) | SHA-256 of the body (32) | body length (8) | body

The body is a MessagePack table of everything but the arrays, then the arrays as columns of the narrowest
integers that hold them, each part compressed with zlib. Nothing in it is ever executed. Reading checks the
length and the SHA-256 before anything is decoded, bounds every size before memory is taken, and every index
before it is used (``checks.py``). The same program gives the same bytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from windtunnel.errors import WindtunnelError
from windtunnel.program.checks import Inconsistent, check_program
from windtunnel.program.op import OpSpec
from windtunnel.program.program import (
    SCHEMA_VERSION,
    Notice,
    Origin,
    ProcessGroup,
    Program,
    SourceLine,
    StepMark,
)
from windtunnel.program.work import Work

MAGIC = b"\x89WTUN\r\n\x1a"  # a byte above 127, then line ends: catches transfers that change text
_HEAD = struct.Struct("<8sH32sQ")
_SIZE = struct.Struct("<QQ")  # compressed and plain bytes of one part
_COMPRESSION = 6
MAX_TABLE_BYTES = 1 << 28
MAX_COLUMN_BYTES = 1 << 30
_WIDTHS = ("<i1", "<i2", "<i4", "<i8")
_DECODING_ERRORS = (
    msgspec.MsgspecError,
    zlib.error,
    struct.error,
    ValueError,
    ArithmeticError,
    RecursionError,
)
_COLUMNS = ("sites", "events", "storage_bytes", "storage_category")


class _Column(msgspec.Struct, array_like=True, frozen=True):
    """How one array was stored."""

    dtype: str
    rows: int


class _Tables(msgspec.Struct, frozen=True):
    """Everything but the arrays."""

    origin: Origin
    specs: list[OpSpec]
    works: list[Work]
    scopes: list[str]
    lines: list[SourceLine]
    streams: list[str]
    groups: list[ProcessGroup]
    steps: list[StepMark]
    notices: list[Notice]
    columns: list[_Column]


def dumps(program: Program) -> bytes:
    """The bytes of a program file. The same program gives the same bytes."""
    body = _body(program)
    digest = hashlib.sha256(body).digest()
    return _HEAD.pack(MAGIC, SCHEMA_VERSION, digest, len(body)) + body


def save(program: Program, path: str | Path) -> str:
    """Write a program file and answer its content hash.

    Raises:
        WindtunnelError: E905, the file cannot be written.
    """
    data = dumps(program)
    target = Path(path)
    try:
        target.write_bytes(data)
    except OSError as error:
        raise WindtunnelError(
            "E905",
            f"cannot write the program file `{target}`: {error.strerror}",
            hint="choose a folder that exists and that you may write to",
            values={"path": target},
        ) from None
    return content_hash(program)


def content_hash(program: Program) -> str:
    """SHA-256 of the content before compression, in hexadecimal: the identity of a program."""
    digest = hashlib.sha256()
    for part in _parts(program):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def load(path: str | Path) -> Program:
    """Read a program file.

    Raises:
        WindtunnelError: E900 cannot be read, E901 not a program file, E902 cut short, E903 damaged,
            E904 written by a newer version, E906 inconsistent inside.
    """
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise WindtunnelError(
            "E900",
            f"cannot read the program file `{source}`: {error.strerror}",
            hint="check the path; `windtunnel run SCRIPT` writes one",
            values={"path": source},
        ) from None
    return loads(data, str(source))


def loads(data: bytes, name: str = "<bytes>") -> Program:
    """A program from the bytes of a file; ``name`` is used in errors. Raises as ``load`` does."""
    body = _checked_body(data, name)
    try:
        program = _program(body)
        check_program(program)
    except Inconsistent as error:
        _refuse("E906", f"`{name}` contradicts itself: {error}", name)
    except (
        msgspec.MsgspecError,
        zlib.error,
        struct.error,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        _refuse("E906", f"`{name}` is not a valid program inside: {error}", name)
    return program


def _checked_body(data: bytes, name: str) -> bytes:
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        _refuse("E901", f"`{name}` is not a Windtunnel program file", name)
    if len(data) < _HEAD.size:
        _refuse("E902", f"`{name}` is cut short", name)
    _, version, digest, length = _HEAD.unpack_from(data)
    if version < 1:  # versions begin at 1, and the hash does not cover the head
        _refuse("E903", f"`{name}` is damaged: its head names no schema version", name)
    if version > SCHEMA_VERSION:
        raise WindtunnelError(
            "E904",
            f"`{name}` has schema version {version}; this Windtunnel reads up to {SCHEMA_VERSION}",
            hint="pip install --upgrade windtunnel",
            values={"path": name, "version": version},
        )
    body = data[_HEAD.size :]
    if len(body) < length:
        raise WindtunnelError(
            "E902",
            f"`{name}` is cut short",
            hint="copy it again, or record again with `windtunnel run SCRIPT`",
            values={"path": name, "bytes": len(body), "expected": length},
        )
    if len(body) != length or hashlib.sha256(body).digest() != digest:
        _refuse("E903", f"`{name}` is damaged: its content does not have the hash it was written with", name)
    return body


def _refuse(code: str, what: str, name: str) -> NoReturn:
    hint = "copy it again, or record again with `windtunnel run SCRIPT`"
    raise WindtunnelError(code, what, hint=hint, values={"path": name})


def _body(program: Program) -> bytes:
    return b"".join(_compressed(part) for part in _parts(program))


def _parts(program: Program) -> list[bytes]:
    """The tables, then the columns, uncompressed."""
    arrays = [_narrow(getattr(program, name)) for name in _COLUMNS]
    tables = _Tables(
        origin=program.origin,
        specs=program.specs,
        works=program.works,
        scopes=program.scopes,
        lines=program.lines,
        streams=program.streams,
        groups=program.groups,
        steps=program.steps,
        notices=program.notices,
        columns=[_Column(array.dtype.str.replace("|", "<"), array.shape[0]) for array in arrays],
    )
    # column by column: neighbours are alike, which is what compression finds
    return [
        msgspec.msgpack.encode(tables),
        *(np.ascontiguousarray(array.T).tobytes() for array in arrays),
    ]


def _compressed(data: bytes) -> bytes:
    compressed = zlib.compress(data, _COMPRESSION)
    return _SIZE.pack(len(compressed), len(data)) + compressed


def _narrow(array: npt.NDArray[np.int64]) -> npt.NDArray[np.signedinteger[npt.NBitBase]]:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for width in _WIDTHS:
        limits = np.iinfo(width)
        if limits.min <= low and high <= limits.max:
            return array.astype(width)
    return array.astype("<i8")


def _program(body: bytes) -> Program:
    data, offset = _unpack(body, 0, MAX_TABLE_BYTES)
    tables = msgspec.msgpack.decode(data, type=_Tables)
    if len(tables.columns) != len(_COLUMNS):
        raise Inconsistent("it does not have four columns")
    arrays: dict[str, npt.NDArray[np.int64]] = {}
    for name, column in zip(_COLUMNS, tables.columns):
        data, offset = _unpack(body, offset, MAX_COLUMN_BYTES)
        arrays[name] = _column(name, column, data)
    if offset != len(body):
        raise Inconsistent("there is something after the last column")
    return Program(
        origin=tables.origin,
        specs=tables.specs,
        works=tables.works,
        scopes=tables.scopes,
        lines=tables.lines,
        streams=tables.streams,
        groups=tables.groups,
        steps=tables.steps,
        notices=tables.notices,
        **arrays,
    )


def _column(name: str, column: _Column, data: bytes) -> npt.NDArray[np.int64]:
    width = 5 if name == "sites" else 1
    if column.dtype not in _WIDTHS:
        raise Inconsistent(f"column {name} has no known type")
    size = np.dtype(column.dtype).itemsize
    if column.rows < 0 or column.rows * width * size != len(data):
        raise Inconsistent(f"column {name} does not have {column.rows} rows")
    flat = np.frombuffer(data, dtype=column.dtype).astype(np.int64)
    return np.ascontiguousarray(flat.reshape(5, column.rows).T) if width == 5 else flat


def _unpack(body: bytes, offset: int, limit: int) -> tuple[bytes, int]:
    """One part and where the next begins; never takes more memory than the part says it needs."""
    compressed, plain = _SIZE.unpack_from(body, offset)
    begin = offset + _SIZE.size
    if plain > limit or compressed > len(body) - begin:
        raise Inconsistent("a part is larger than the file allows")
    inflater = zlib.decompressobj()
    data = inflater.decompress(body[begin : begin + compressed], plain + 1)
    if len(data) != plain or not inflater.eof:
        raise Inconsistent("a part does not have the size it says")
    return data, begin + compressed
