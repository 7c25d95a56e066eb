"""The choices of one body: each prompt ``n`` times, every choice a request of its own in the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.live import LiveEngine, Overloaded, Stream
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.told import Usage


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and one answer to it, to be submitted; ``first`` of its answers, of at most ``most`` tokens.

    ``keys`` and ``pictures``: see ``LiveEngine.submit``.
    """

    wanted: Asked
    answer: Answer
    tokens: list[str]
    cut: bool
    prompt_tokens: int
    keys: tuple[int, ...]
    pictures: Sequence[int]
    first: bool
    most: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A request in the engine."""

    written: Written
    stream: Stream


def check(engine: LiveEngine, wanted: Sequence[Asked]) -> None:
    """Raise BadBody for more choices than the engine can hold at once, however long one waits."""
    count, most = sum(one.n for one in wanted), engine.places + engine.max_queue
    if count > most:
        raise BadBody(
            f"{count} answers in one body are more than this endpoint ever holds, {most}: {engine.places} run "
            f"(--max-num-seqs) and {engine.max_queue} wait (--max-queue); ask for them in several bodies",
            "n" if wanted[0].n > 1 else "prompt",
        )


def submit(engine: LiveEngine, written: Sequence[Written]) -> list[Choice]:
    """Put all choices into the engine, or none of them. Raises Overloaded."""
    choices: list[Choice] = []
    try:
        for one in written:
            stream = engine.submit(one.prompt_tokens, len(one.tokens), one.keys, one.pictures)
            choices.append(Choice(one, stream))
    except Overloaded:
        for choice in choices:
            engine.drop(choice.stream)
        raise
    return choices


def count(engine: LiveEngine, choices: Sequence[Choice]) -> None:
    """All choices are complete: note them prompt by prompt."""
    starts = [place for place, choice in enumerate(choices) if choice.written.first]
    for start, end in pairwise([*starts, len(choices)]):
        first, answers = choices[start].written, choices[start:end]
        engine.counters.answered([len(one.written.tokens) for one in answers], first.most)


def alone(choice: Choice) -> Usage:
    """Tokens of one choice and its prompt."""
    sequence = choice.stream.sequence
    return Usage(sequence.request.prompt_tokens, sequence.cached_tokens, len(choice.written.tokens))


def usage(choices: Sequence[Choice]) -> Usage:
    """Tokens of the whole body: prompts count once, whatever ``n`` is, as vLLM counts them."""
    sequences = [choice.stream.sequence for choice in choices if choice.written.first]
    return Usage(
        sum(sequence.request.prompt_tokens for sequence in sequences),
        sum(sequence.cached_tokens for sequence in sequences),
        sum(len(choice.written.tokens) for choice in choices),
    )
