"""A small real model that says what the large virtual one would: it runs in a process of its own (``small_model``).

One answer at a time, whole, before the request meets the cards: its own time is not the deployment's, and is added to
what a client waits for the first token.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from windtunnel.errors import WindtunnelError


class Speaker:
    """The model of ``folder`` in values mode on the chip of ``on``; from several threads, one after another.

    Raises:
        WindtunnelError: E666 where the model cannot be loaded.
    """

    def __init__(
        self, folder: Path, on: str, overrides: Sequence[str] = (), chips: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        if not folder.is_dir():
            raise self._broken("there is no such folder")
        told = {"folder": str(folder), "on": on, "overrides": list(overrides), "chips": list(chips)}
        self._one_at_a_time = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "windtunnel.endpoint.small_model", json.dumps(told)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        try:
            self.about = str(self._heard()["ready"])
        except WindtunnelError:
            self.close()
            raise

    def say(
        self, messages: Sequence[Mapping[str, object]], tokens: int, *, chat: bool = True, draw: int = 0
    ) -> str:
        """The model's answer of at most ``tokens`` of its own tokens; ``chat``: by its chat template.

        ``draw``: which of several; they are one where the model's generation configuration samples nothing.

        Raises:
            WindtunnelError: E666 where the model went away or failed.
        """
        asked = json.dumps({"messages": list(messages), "tokens": tokens, "chat": chat, "draw": draw})
        with self._one_at_a_time:
            try:
                assert self._process.stdin is not None
                self._process.stdin.write(asked + "\n")
                self._process.stdin.flush()
            except (OSError, ValueError) as error:  # ValueError: the pipe is closed
                raise self._broken(str(error)) from None
            return str(self._heard()["text"])

    def close(self) -> None:
        """End the model's process."""
        self._process.terminate()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._broken("its process ended")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise self._broken(str(found["error"]))
        return found

    def _broken(self, why: str) -> WindtunnelError:
        return WindtunnelError(
            "E666",
            f"the model in {self._folder} cannot answer: {why}",
            hint="--answer-with takes a folder as transformers saves causal language models, with a tokenizer",
            values={"folder": str(self._folder)},
        )
