"""`--fail-if 'step_time>3%'`: a limit on the change of one figure from one result to the next."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.results.run_result import RunResult

FIGURES: dict[str, Callable[[RunResult], Estimate | None]] = {
    "step_time": lambda result: result.step_time_s,
    "tokens_per_s_per_gpu": lambda result: result.tokens_per_s_per_gpu,
    "mfu": lambda result: result.mfu,
    "peak_reserved": lambda result: result.memory.peak_reserved_bytes,
    "peak_active": lambda result: result.memory.peak_active_bytes,
}
_FORM = re.compile(r"\s*([a-z_]+?)(?:_s|_bytes)?\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*", re.ASCII)
_HINT = (
    f"write a figure, < or >, and a percentage, as in --fail-if 'step_time>3%'; figures: {', '.join(FIGURES)}"
)


@dataclass(frozen=True, slots=True)
class Threshold:
    """Fails when the relative change of ``figure`` is above (or below) ``limit``, a fraction."""

    text: str
    figure: str
    above: bool
    limit: float

    def change(self, before: RunResult, after: RunResult) -> float | None:
        """Relative change of the figure; None where either result lacks it."""
        old, new = FIGURES[self.figure](before), FIGURES[self.figure](after)
        if old is None or new is None or old.value <= 0:
            return None
        return new.value / old.value - 1

    def failed(self, before: RunResult, after: RunResult) -> bool:
        """Whether the change is past the limit. A figure that is missing is past every limit."""
        change = self.change(before, after)
        if change is None:
            return True
        return change > self.limit if self.above else change < self.limit


def parse(text: str) -> Threshold:
    """A threshold from its text.

    Raises:
        WindtunnelError: E926, it has another form or names another figure.
    """
    match = _FORM.fullmatch(text)
    if match is None or match[1] not in FIGURES:
        raise WindtunnelError(
            "E926", f"`{text}` is not a limit on a change", hint=_HINT, values={"text": text}
        )
    return Threshold(text.strip(), match[1], match[2] == ">", float(match[3]) / 100)
