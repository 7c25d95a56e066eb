"""Writing a report: one coded error for everything that can go wrong."""

from __future__ import annotations

from pathlib import Path

from windtunnel.errors import WindtunnelError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``.

    Raises:
        WindtunnelError: E925, the file cannot be written.
    """
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise WindtunnelError(
            "E925",
            f"cannot write `{path}`: {error.strerror}",
            hint="choose a folder that exists and that you may write to",
            values={"path": path},
        ) from None
