"""From a request to what is answered, for every engine: the policy's words, as long as the client or a law says."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.endpoint import policy
from windtunnel.endpoint.asked import Asked
from windtunnel.endpoint.lengths import AnswerLengths
from windtunnel.endpoint.policy import Answer
from windtunnel.endpoint.text import pieces, words


@dataclass(frozen=True, slots=True)
class Writer:
    """Answers; ``lengths`` draws those that clients leave open."""

    lengths: AnswerLengths

    def write(self, wanted: Asked) -> Answer:
        """The answer, before it is cut to ``wanted.max_tokens``. Exactly asked lengths are words only."""
        most = wanted.max_tokens
        if most and wanted.exact:
            return Answer(words(most, wanted.prompt[-256:]))
        length = self.lengths.draw(wanted.prompt)
        length = min(length, most) if most else length
        return policy.answer(wanted.messages, wanted.tools, wanted.tool_choice, wanted.schema, length)


def cut_to(wanted: Asked, tokens: list[str]) -> tuple[list[str], bool]:
    """The tokens of an answer as the client limits them, and whether its length was cut."""
    most = wanted.max_tokens
    text = "".join(tokens)
    ends = [place for stop in wanted.stop if (place := text.find(stop)) >= 0]
    if ends:
        tokens = pieces(text[: min(ends)])
    if not most:
        return tokens, False
    if wanted.exact:
        tokens = tokens + [" ok."] * (most - len(tokens))
    return tokens[:most], len(tokens) >= most
