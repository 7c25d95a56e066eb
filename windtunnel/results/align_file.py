"""A saved comparison (``align.json``): one JSON object that holds the result and the hash of its content.

    {"schema": "windtunnel.align/1", "status": "ok" | "no", "sha256": …, …the fields of AlignResult}

Infinite z-scores are stored as null.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from windtunnel.errors import WindtunnelError
from windtunnel.results.align_result import AlignResult

SCHEMA = "windtunnel.align/1"


def to_json(result: AlignResult) -> dict[str, Any]:
    """The object, with its hash."""
    body = _finite(asdict(result))
    status = "ok" if result.aligned else "no"
    return {"schema": SCHEMA, "status": status, "sha256": _digest(body), **body}


def save(result: AlignResult, path: str | Path) -> str:
    """Write the object and answer its hash. Raises E925 where that cannot be done."""
    data = to_json(result)
    try:
        Path(path).write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise WindtunnelError(
            "E925",
            f"cannot write `{path}`: {error.strerror}",
            hint="choose a folder that exists and that you may write to",
            values={"path": path},
        ) from None
    return str(data["sha256"])


def load(path: str | Path) -> AlignResult:
    """Read a saved comparison.

    Raises:
        WindtunnelError: E920 cannot be read, E921 something else, E922 its content does not have its hash.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _refusal("E920", f"cannot read `{path}`: {error.strerror}", path) from None
    except ValueError:
        raise _refusal("E921", f"`{path}` is not a saved comparison", path) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise _refusal("E921", f"`{path}` is not a saved comparison", path)
    body = {key: value for key, value in data.items() if key not in ("schema", "status", "sha256")}
    if data.get("sha256") != _digest(body):
        raise _refusal("E922", f"`{path}` was changed: its content does not have the hash in it", path)
    for judged in (*body["deviations"], *body["norm_deviations"]):
        judged["z"] = math.inf if judged["z"] is None else judged["z"]
    try:
        return msgspec.convert(body, AlignResult)
    except msgspec.ValidationError as error:
        raise _refusal("E921", f"`{path}` is not a saved comparison: {error}", path) from None


def _digest(body: dict[str, Any]) -> str:
    plain = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(plain.encode()).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _refusal(code: str, what: str, path: str | Path) -> WindtunnelError:
    return WindtunnelError(
        code, what, hint="`windtunnel align SCRIPT` writes align.json; make it again", values={"path": path}
    )
