"""How far each request of vLLM is, from what its scheduler says; and which tokens come out. Knows no vLLM types."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

FORCED, END, PICTURES = "windtunnel_tokens", "windtunnel_end", "windtunnel_pictures"
"""Names under which an answer's token ids, and the tokens of the prompt's pictures, travel with a request."""
EACH = "windtunnel_each"
"""How many of a body's answers belong to each of its prompts, where there are several."""
FETCH, HOLD = "do_remote_prefill", "do_remote_decode"
"""What vLLM's connectors call fetching a prompt's cache from another engine, and keeping it for one."""
FIRST_FILLER, FILLERS = 1000, 4000
"""Ids that stand for words in every vocabulary: what comes out where nobody said what to answer."""


@dataclass(slots=True)
class Batch:
    """One step: what it computes and what it yields. ``pictures``: tokens and the part that is not cached."""

    decodes: int = 0
    contexts: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    pictures: list[tuple[int, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    sampled: list[list[int]] = field(default_factory=list)


@dataclass(slots=True)
class _Request:
    prompt: int
    known: int  # tokens that must be computed before the next one comes out
    computed: int
    generated: int
    answer: tuple[int, ...]
    end: int
    pictures: tuple[int, ...]

    def tokens(self, count: int) -> list[int]:
        """The next ``count`` tokens of the answer, then its end again and again; without one, the answer again."""
        first = self.generated
        self.generated += count
        told = list(self.answer[first : first + count])
        if self.end >= 0:
            return told + [self.end] * (count - len(told))
        places = range(first + len(told), first + count)
        if self.answer:
            return told + [self.answer[place % len(self.answer)] for place in places]
        return told + [FIRST_FILLER + (7919 * place) % FILLERS for place in places]


class Progress:
    """All requests of one engine. ``drafted`` tokens a step are tried, each taken with ``acceptance``."""

    def __init__(self, drafted: int, acceptance: float, draw: random.Random) -> None:
        self.drafted = drafted
        self._acceptance, self._draw = acceptance, draw
        self._requests: dict[str, _Request] = {}

    def take(self, output: Any) -> Batch:
        """One scheduler output: requests move on, and the step that computes it comes back."""
        for name in output.finished_req_ids:
            self._requests.pop(name, None)
        for new in output.scheduled_new_reqs:
            self._requests[new.req_id] = _fresh(new)
        again = output.scheduled_cached_reqs
        for place, name in enumerate(again.req_ids):
            request = self._requests[name]
            request.computed = again.num_computed_tokens[place]
            if name in again.resumed_req_ids:
                request.generated = again.num_output_tokens[place]
                request.known = request.prompt + request.generated
        batch = Batch()
        for name, count in output.num_scheduled_tokens.items():
            drafts = output.scheduled_spec_decode_tokens.get(name) or ()
            self._add(batch, name, count, len(drafts))
        return batch

    def _add(self, batch: Batch, name: str, count: int, drafts: int) -> None:
        request = self._requests[name]
        decoding = request.computed >= request.known
        if decoding:
            batch.decodes += 1
            batch.contexts += request.computed
        else:
            batch.chunks.append((count, request.computed))
            new = 1 - request.computed / request.known
            batch.pictures += [(tokens, new) for tokens in request.pictures]
            request.pictures = ()
        batch.names.append(name)
        if not decoding and request.computed + count < request.known:
            batch.sampled.append([])
            return
        taken = 1
        while taken <= drafts and self._draw.random() < self._acceptance:
            taken += 1
        batch.sampled.append(request.tokens(taken))


def _fresh(new: Any) -> _Request:
    extra = (new.sampling_params.extra_args or {}) if new.sampling_params else {}
    told = str(extra.get(FORCED, ""))
    prompt = len(new.prompt_token_ids or ())
    answer = tuple(int(word) for word in told.split(",")) if told else ()
    pictures = tuple(int(word) for word in str(extra.get(PICTURES, "")).split(",") if word)
    return _Request(prompt, prompt, new.num_computed_tokens, 0, answer, int(extra.get(END, -1)), pictures)
