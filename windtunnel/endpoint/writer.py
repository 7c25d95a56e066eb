"""From a request to what is answered, for every engine: the policy's words, as long as the client or a law says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from windtunnel.endpoint import policy
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.lengths import LONGEST, AnswerLengths
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.speaker import Speaker
from windtunnel.endpoint.text import pieces, words


@dataclass(frozen=True, slots=True)
class Writer:
    """Answers; ``lengths`` draws those that clients leave open, ``speaker`` writes plain text where there is one."""

    lengths: AnswerLengths
    speaker: Speaker | None = None

    async def write(self, wanted: Asked) -> Answer:
        """The answer, before it is cut to ``wanted.max_tokens``. Exactly asked lengths are words only.

        Raises:
            WindtunnelError: E666, the speaker failed.
        """
        if self.speaker is None:
            return self._written(wanted, None)
        return await asyncio.to_thread(self._written, wanted, self._spoken(wanted))

    def _written(self, wanted: Asked, say: policy.Say | None) -> Answer:
        if wanted.exact:
            length = min(wanted.max_tokens, LONGEST)
            return Answer(say(length) if say else words(length, wanted.prompt[-256:]))
        length = self.lengths.draw(wanted.prompt)
        return policy.answer(wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, length, say)

    def _spoken(self, wanted: Asked) -> policy.Say:
        speaker = self.speaker
        assert speaker is not None
        return lambda tokens: speaker.say(
            wanted.messages, min(tokens, wanted.max_tokens or tokens), chat=wanted.chat
        )


def cut_to(wanted: Asked, tokens: list[str], room: int) -> tuple[list[str], bool]:
    """The tokens of an answer within the client's limits and ``room``, and whether its length was cut."""
    text = "".join(tokens)
    ends = [place for stop in wanted.stop if (place := text.find(stop)) >= 0]
    if ends:
        tokens = pieces(text[: min(ends)])
    most = min(wanted.max_tokens or room, room)
    if wanted.exact:
        tokens = tokens + [" ok."] * (most - len(tokens))
    cut = len(tokens) > most or (bool(wanted.max_tokens) and len(tokens) == most)
    return tokens[:most], cut
