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
        raise _unwritable(path, error) from None


def check_writable(path: str | Path) -> None:
    """Find out before hours of work that their page could not be written; what is there already stays.

    Raises:
        WindtunnelError: E925, the file cannot be written.
    """
    file = Path(path).resolve()  # of a link that leads nowhere yet, what it leads to
    try:
        new = not file.exists()
        with file.open("ab"):
            pass
        if new:
            file.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str | Path, error: OSError) -> WindtunnelError:
    return WindtunnelError(
        "E925",
        f"cannot write `{path}`: {error.strerror}",
        hint="choose a folder that exists and that you may write to",
        values={"path": path},
    )
