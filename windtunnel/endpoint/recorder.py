"""One line a call, as it happened: what ``--record`` writes and ``--agents`` replays.

The task and the agent that a call belongs to come in its headers (``x-task``, ``x-agent``), which clients set once.
Block keys are numbered in the order of their first appearance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.text import block_keys, tokens_in

BLOCK_TOKENS = 16
TASK, AGENT = "x-task", "x-agent"


class Recorder:
    """Appends to ``path``; the answers' own times are the caller's."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._numbers: dict[int, int] = {}

    def note(
        self, wanted: Asked, answer: Answer, headers: Mapping[str, str], tokens: int, began_s: float,
        ended_s: float,
    ) -> None:  # fmt: skip
        """A call that was answered, with the tokens that came out."""
        keys = [self._numbers.setdefault(key, len(self._numbers)) for key in self.keys(wanted)]
        kind = "tool" if answer.calls else "json" if wanted.schema else "text"
        row = {
            "task": headers.get(TASK, ""),
            "agent": headers.get(AGENT, ""),
            "began_s": round(began_s, 4),
            "ended_s": round(ended_s, 4),
            "kind": kind,
            "calls": [call.name for call in answer.calls],
            "prompt_tokens": wanted.prompt_tokens or tokens_in(wanted.prompt),
            "output_tokens": tokens,
            "keys": keys,
        }
        self._file.write(json.dumps(row, separators=(",", ":")) + "\n")

    @staticmethod
    def keys(wanted: Asked) -> tuple[int, ...]:
        """Chained keys of the prompt."""
        return block_keys(wanted.prompt, BLOCK_TOKENS)

    def close(self) -> None:
        """Write what is left."""
        self._file.close()
