"""Every error a user can meet: one line of what and where, the values that matter, a hint, a code.

    WindtunnelError            exit status 2: bad input
    ├── AnswerIsNo             exit status 1: the question was understood, and the answer is no
    └── InternalError          exit status 3: our bug

Codes: E1xx catalogue, E2xx layout and cluster, E3xx memory, E4xx capture, E5xx cost, E6xx planning and
serving, E7xx numerics, E8xx porting, E9xx files and science inputs. Each code has a section in
``docs/errors/<n>xx-*.md``, and a test compares the two lists.
"""

from __future__ import annotations

from collections.abc import Mapping


class WindtunnelError(Exception):
    """A coded error with a hint that can be pasted. Shown without a traceback.

    Args:
        code: ``E`` and three digits.
        what: one line saying what is wrong and where.
        hint: what to do, as text or a command that can be pasted.
        values: the values that matter, by name, in the order to show them.
    """

    exit_status = 2

    def __init__(
        self, code: str, what: str, *, hint: str, values: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.hint = hint
        self.values: dict[str, object] = dict(values or {})

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """The text for a terminal: what and code, the values, the hint."""
        lines = [f"error: {self.what} [{self.code}]"]
        lines += [f"  {name}: {value}" for name, value in self.values.items()]
        lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """The ``error`` object of ``--json``."""
        return {
            "code": self.code,
            "what": self.what,
            "values": {name: _plain(value) for name, value in self.values.items()},
            "hint": self.hint,
        }


class AnswerIsNo(WindtunnelError):
    """The input was good and the answer is no: does not fit, misses the SLA, diverges."""

    exit_status = 1


class InternalError(WindtunnelError):
    """Our bug. Shown with its traceback."""

    exit_status = 3


def _plain(value: object) -> object:
    return value if isinstance(value, (int, float, str, bool, type(None), list)) else str(value)
