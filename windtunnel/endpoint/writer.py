"""From a request to what is answered, for every engine: the policy's words, as long as the client or a law says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import cycle, islice

from windtunnel.endpoint import policy
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.text import drawn, pieces, words

VARIED = 2048
"""Tokens of an answer of a length that was asked for, after which its words come again."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Answers; ``lengths`` draws those that clients leave open, ``speaker`` writes plain text where there is one."""

    lengths: AnswerLengths
    speaker: Speaker | None = None

    async def write(self, wanted: Asked, index: int = 0) -> Answer:
        """The ``index``-th answer, before it is cut to ``wanted.max_tokens``. Exactly asked lengths are words only.

        Raises:
            WindtunnelError: E666, the speaker failed.
        """
        if self.speaker is None:
            return self._written(wanted, wanted.draw(index), None)
        draw = wanted.draw(index)
        return await asyncio.to_thread(self._written, wanted, draw, self._spoken(wanted, draw))

    def _written(self, wanted: Asked, draw: int, say: policy.Say | None) -> Answer:
        if wanted.exact:
            length = min(wanted.max_tokens, VARIED)
            return Answer(say(length) if say else words(length, drawn(wanted.prompt[-256:], draw)))
        if wanted.options:
            return Answer(wanted.options[draw % len(wanted.options)])
        length = max(wanted.min_tokens, self.lengths.draw(wanted.prompt, draw))
        return policy.answer(
            wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, length, say, draw
        )

    def _spoken(self, wanted: Asked, draw: int) -> policy.Say:
        speaker = self.speaker
        assert speaker is not None
        return lambda tokens: speaker.say(
            wanted.messages, min(tokens, wanted.max_tokens or tokens), chat=wanted.chat, draw=draw
        )


def cut_to(wanted: Asked, tokens: list[str], room: int) -> tuple[list[str], bool]:
    """The tokens of an answer within the client's limits and ``room``, and whether its length was cut."""
    if wanted.silent:
        return [""], True
    most = min(wanted.max_tokens or room, room)
    if wanted.exact:
        tokens = list(islice(cycle(tokens), most))
    text = "".join(tokens)
    ends = [
        (place, place + len(stop) if wanted.keeps_stop else place)
        for stop in wanted.stop
        if (place := text.find(stop)) >= 0
    ]
    if ends:
        tokens = pieces(text[: min(ends)[1]])
    cut = len(tokens) > most or (bool(wanted.max_tokens) and len(tokens) == most)
    return tokens[:most], cut
