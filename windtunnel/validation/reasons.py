"""Codes of why a file or row was not predicted; each is explained in ``docs/errors/9xx-validation.md``."""

from __future__ import annotations

UNKNOWN_FILE = "E931"
MISSING_COLUMNS = "E932"
UNREADABLE = "E933"
UNKNOWN_NAME = "E934"
NOT_MODELLED = "E935"
INCOMPLETE = "E936"


class Incomplete(Exception):
    """A row that cannot be rebuilt; the text is the reason."""
