"""Traffic of agents that navigate screens: every turn sends all turns before it and a new screenshot.

A session starts with a system prompt that all sessions share and a task of its own; a turn adds a screenshot and,
after the answer, the action taken. The next turn comes at its own time, or with the answer where that is later. So
prefixes are found again but for the newest screenshot, whose image alone goes through the vision tower.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from windtunnel.serving.request import Follows, Request

KEY_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GuiAgent:
    """One kind of agent.

    Attributes:
        system_tokens, task_tokens: of the prompt. patches: of a screenshot; merge: patches of one token.
        answer_tokens: mean of an answer (thought and action). turns: mean of a session. pause_s: mean time from
            one request of a session to the next. Answers, turns and pauses are drawn between half and one and a
            half times the mean.
    """

    system_tokens: int = 1600
    task_tokens: int = 160
    patches: int = 8160  # 1,920 × 1,080 in patches of 16 × 16
    merge: int = 4
    answer_tokens: int = 160
    turns: int = 15
    pause_s: float = 12.0


def gui_sessions(kind: GuiAgent, sessions: int, rate: float, seed: int = 0) -> list[Request]:
    """``sessions`` sessions that begin at ``rate`` a second (Poisson), in the order of arrival."""
    draw = random.Random(f"gui {seed}")
    screenshot = kind.patches // kind.merge
    shared = -(-kind.system_tokens // KEY_TOKENS)
    found: list[Request] = []
    start = 0.0
    for number in range(sessions):
        start += draw.expovariate(rate)
        at, prompt = start, kind.system_tokens + kind.task_tokens
        own = (number + 1) << 24
        images: tuple[int, ...] = ()
        for _ in range(max(1, round(kind.turns * draw.uniform(0.5, 1.5)))):
            prompt += screenshot
            images += (kind.patches,)
            answer = max(1, round(kind.answer_tokens * draw.uniform(0.5, 1.5)))
            keys = (*range(-shared, 0), *range(own, own - (-prompt // KEY_TOKENS) - shared))
            found.append(Request(0, at, prompt, answer, keys, KEY_TOKENS, f"gui-{number}", images=images))
            prompt += answer
            at += kind.pause_s * draw.uniform(0.5, 1.5)
    found.sort(key=lambda request: request.arrival_s)
    before: dict[str, int] = {}
    turns = []
    for place, request in enumerate(found):
        last = before.get(request.session)
        follows = None if last is None else Follows((last,), None)
        turns.append(replace(request, number=place, follows=follows))
        before[request.session] = place
    return turns
