"""The choices of one body: each prompt ``n`` times, every choice a request of its own in the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.live import LiveEngine, Overloaded, Stream
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.told import Usage


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and its answer, to be submitted. ``keys`` and ``pictures``: see ``LiveEngine.submit``."""

    wanted: Asked
    answer: Answer
    tokens: list[str]
    cut: bool
    prompt_tokens: int
    keys: tuple[int, ...]
    pictures: Sequence[int]


@dataclass(frozen=True, slots=True)
class Choice:
    """A request in the engine; ``first`` of those with the same prompt."""

    written: Written
    stream: Stream
    first: bool


def submit(engine: LiveEngine, written: Sequence[Written]) -> list[Choice]:
    """Put all choices into the engine, prompt by prompt, or none of them. Raises Overloaded."""
    choices: list[Choice] = []
    try:
        for one in written:
            for number in range(one.wanted.n):
                stream = engine.submit(one.prompt_tokens, len(one.tokens), one.keys, one.pictures)
                choices.append(Choice(one, stream, number == 0))
    except Overloaded:
        for choice in choices:
            engine.drop(choice.stream)
        raise
    return choices


def usage(choices: Sequence[Choice]) -> Usage:
    """Tokens of the whole body: prompts count once, whatever ``n`` is, as vLLM counts them."""
    sequences = [choice.stream.sequence for choice in choices if choice.first]
    return Usage(
        sum(sequence.request.prompt_tokens for sequence in sequences),
        sum(sequence.cached_tokens for sequence in sequences),
        sum(len(choice.written.tokens) for choice in choices),
    )
