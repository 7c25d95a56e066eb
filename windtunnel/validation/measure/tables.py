"""Tables that grow row by row and can be taken up again: what is in the file already is not measured twice."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.validation.measure.cases import Row


class GrowingTable:
    """One CSV file of the folder. A last line that was cut off by an interruption is dropped and measured again."""

    def __init__(self, folder: Path, stem: str, keys: Sequence[str], measured: Sequence[str]) -> None:
        """Open or create ``folder/stem.csv``. Raises E965 for other columns, E964 if it cannot be written."""
        self.path = folder / f"{stem}.csv"
        self._keys = tuple(keys)
        self._columns = (*keys, *measured)
        self._done: set[tuple[str, ...]] = set()
        try:
            kept = self._kept() if self.path.exists() else []
            with self.path.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream).writerows([self._columns, *kept])
        except OSError as reason:
            raise WindtunnelError(
                "E964",
                f"cannot write `{self.path}`: {reason.strerror or reason}",
                hint="name a folder that can be written: --out measured",
            ) from None

    def _kept(self) -> list[list[str]]:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        rows = [row for row in csv.reader(io.StringIO(whole)) if row]
        if rows and tuple(rows[0]) != self._columns:
            raise WindtunnelError(
                "E965",
                f"`{self.path}` has other columns than this collector writes",
                hint="measure into another folder: --out measured-2",
                values={"there": ", ".join(rows[0][:8]), "expected": ", ".join(self._columns[:8])},
            )
        kept = [row for row in rows[1:] if len(row) == len(self._columns)]
        self._done = {tuple(row[: len(self._keys)]) for row in kept}
        return kept

    def has(self, row: Row) -> bool:
        """Whether the row was measured before."""
        return self._key(row) in self._done

    def add(self, row: Row, measured: Mapping[str, float | None]) -> None:
        """Append a row; it is on disk when this returns."""
        values = ["" if value is None else f"{value:.9g}" for value in measured.values()]
        with self.path.open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerow([*self._key(row), *values])
        self._done.add(self._key(row))

    def _key(self, row: Row) -> tuple[str, ...]:
        return tuple(row.get(name, "") for name in self._keys)
