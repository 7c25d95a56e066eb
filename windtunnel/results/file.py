"""A saved result (``.wtr``): one or several predictions on disk, safe to open from strangers.

    magic (8) | schema version (2) | SHA-256 of the body (32) | plain length (8) | body

The body is a MessagePack list of ``RunResult``, compressed with zlib. Nothing in it is executed. Fields that
an older version did not write take their defaults, so old files open.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from windtunnel.errors import WindtunnelError
from windtunnel.results.run_result import RunResult

MAGIC = b"\x89WTRES\r\n"  # a byte above 127, then a line end: catches transfers that change text
SCHEMA_VERSION = 1
MAX_PLAIN_BYTES = 1 << 29
_HEAD = struct.Struct("<8sH32sQ")
_COPY_AGAIN = "copy it again, or save it again with `windtunnel report PROGRAM --save PATH`"


def save(results: Sequence[RunResult], path: str | Path) -> None:
    """Write results to a file. The same results give the same bytes.

    Raises:
        WindtunnelError: E925, the file cannot be written.
    """
    try:
        Path(path).write_bytes(dumps(results))
    except OSError as error:
        raise WindtunnelError(
            "E925",
            f"cannot write `{path}`: {error.strerror}",
            hint="choose a folder that exists and that you may write to",
            values={"path": path},
        ) from None


def dumps(results: Sequence[RunResult]) -> bytes:
    """The bytes of a saved result."""
    plain = msgspec.msgpack.encode(list(results))
    body = zlib.compress(plain, 6)
    return _HEAD.pack(MAGIC, SCHEMA_VERSION, hashlib.sha256(body).digest(), len(plain)) + body


def is_result_file(path: str | Path) -> bool:
    """Whether the file begins as a saved result does. False where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load(path: str | Path) -> tuple[RunResult, ...]:
    """Read a saved result.

    Raises:
        WindtunnelError: E920 cannot be read, E921 no saved result, E922 damaged or cut short,
            E923 written by a newer version, E924 contradicts itself.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WindtunnelError(
            "E920",
            f"cannot read `{path}`: {error.strerror}",
            hint="check the path; `windtunnel run SCRIPT` saves a program that `windtunnel report` reads",
            values={"path": path},
        ) from None
    return loads(data, str(path))


def loads(data: bytes, name: str = "<bytes>") -> tuple[RunResult, ...]:
    """Results from the bytes of a file; ``name`` is used in errors. Raises as ``load`` does."""
    plain = _plain_body(data, name)
    try:
        return tuple(msgspec.msgpack.decode(plain, type=list[RunResult]))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _refusal("E924", f"`{name}` is not a valid result inside: {error}", name) from None


def _plain_body(data: bytes, name: str) -> bytes:
    if data[: len(MAGIC)] != MAGIC:
        raise WindtunnelError(
            "E921",
            f"`{name}` is neither a saved result nor a program",
            hint="`windtunnel run SCRIPT` writes a program file (.wt); `windtunnel report FILE` reads it",
            values={"path": name},
        )
    if len(data) < _HEAD.size:
        raise _refusal("E922", f"`{name}` is cut short", name)
    _, version, digest, length = _HEAD.unpack_from(data)
    if version > SCHEMA_VERSION:
        raise WindtunnelError(
            "E923",
            f"`{name}` has schema version {version}; this Windtunnel reads up to {SCHEMA_VERSION}",
            hint="pip install --upgrade windtunnel",
            values={"path": name, "version": version},
        )
    body = data[_HEAD.size :]
    if hashlib.sha256(body).digest() != digest or length > MAX_PLAIN_BYTES:
        raise _refusal("E922", f"`{name}` is damaged: its content does not have the hash written in it", name)
    return _inflate(body, length, name)


def _inflate(body: bytes, length: int, name: str) -> bytes:
    """The plain body; never more memory than the header says it needs."""
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(body, length + 1)
    except zlib.error:
        raise _refusal("E922", f"`{name}` is damaged: it does not decompress", name) from None
    if len(plain) != length or not inflater.eof:
        raise _refusal("E922", f"`{name}` is damaged: it does not have the size written in it", name)
    return plain


def _refusal(code: str, what: str, name: str) -> WindtunnelError:
    return WindtunnelError(code, what, hint=_COPY_AGAIN, values={"path": name})
