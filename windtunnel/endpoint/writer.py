"""From a request to what is answered, for every engine: the policy's words, as long as the client or a law says."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.endpoint import policy
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.lengths import LONGEST, AnswerLengths
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.text import pieces, words


@dataclass(frozen=True, slots=True)
class Writer:
    """Answers; ``lengths`` draws those that clients leave open."""

    lengths: AnswerLengths

    def write(self, wanted: Asked) -> Answer:
        """The answer, before it is cut to ``wanted.max_tokens``. Exactly asked lengths are words only."""
        if wanted.exact:
            return Answer(words(min(wanted.max_tokens, LONGEST), wanted.prompt[-256:]))
        length = self.lengths.draw(wanted.prompt)
        return policy.answer(wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, length)


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
