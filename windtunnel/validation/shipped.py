"""The accuracy figures that come with the package: group results of one run of `validate`, by file.

The measurements themselves are not part of the package; the figures say from what data they came.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

from windtunnel.validation.groups import Group
from windtunnel.validation.left_out import left_out
from windtunnel.validation.page import Accuracy
from windtunnel.validation.peers import Peer

_NAME = "accuracy.json"


def path() -> Path:
    """Where the figures lie in a checkout."""
    return Path(str(resources.files("windtunnel.validation").joinpath(_NAME)))


def encode(accuracy: Accuracy) -> str:
    """The figures as JSON. Groups that nobody measured are left out."""
    data = {
        "data": accuracy.data,
        "date": accuracy.date,
        "rows": accuracy.rows,
        "files": [as_json(group) for group in accuracy.files],
        "groups": [as_json(group) for group in accuracy.groups if group.compared],
        "unused": [list(entry) for entry in accuracy.unused],
        "calibration": [as_json(group) for group in accuracy.calibration],
        "pooled": [as_json(group) for group in accuracy.pooled],
        "calibration_pooled": [as_json(group) for group in accuracy.calibration_pooled],
        "peers": [asdict(peer) for peer in accuracy.peers],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def decode(text: str) -> Accuracy:
    """The figures of `encode`."""
    data = json.loads(text)
    return Accuracy(
        rows=int(data["rows"]),
        files=tuple(_group(item) for item in data["files"]),
        groups=tuple(_group(item) for item in data["groups"]),
        unused=tuple((str(name), str(reason)) for name, reason in data["unused"]),
        data=str(data["data"]),
        date=str(data["date"]),
        calibration=tuple(_group(item) for item in data.get("calibration", ())),
        pooled=tuple(_group(item) for item in data.get("pooled", ())),
        calibration_pooled=tuple(_group(item) for item in data.get("calibration_pooled", ())),
        peers=tuple(Peer(**item) for item in data.get("peers", ())),
        left_out=left_out(),
    )


def shipped() -> Accuracy:
    """The figures of this version."""
    return decode(resources.files("windtunnel.validation").joinpath(_NAME).read_text("utf-8"))


def as_json(group: Group) -> dict[str, object]:
    """One group; figures to four digits, absent ones null."""
    found: dict[str, object] = {
        name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(group).items()
    }
    found["refused"] = group.refused
    found["reasons"] = [{"reason": reason, "rows": rows} for reason, rows in group.reasons]
    return found


def _group(item: dict[str, object]) -> Group:
    fields = {name: value for name, value in item.items() if name != "refused"}
    listed = item["reasons"]
    assert isinstance(listed, list)
    fields["reasons"] = tuple((str(entry["reason"]), int(entry["rows"])) for entry in listed)
    return Group(**fields)  # type: ignore[arg-type]
