"""Small deployments and traffic for tests, with step times that can be worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

from windtunnel.serving.engine import Replica
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.request import Request
from windtunnel.serving.scheduler_options import SchedulerOptions


class Linear:
    """fixed + token × tokens + context × contexts."""

    def __init__(self, fixed_s: float = 0.02, token_s: float = 1e-4, context_s: float = 0.0) -> None:
        self.fixed_s, self.token_s, self.context_s = fixed_s, token_s, context_s

    def decode_s(self, decodes: int, contexts: int) -> float:
        return self.fixed_s + self.token_s * decodes + self.context_s * contexts

    def decode_line(self, decodes: int, contexts: int) -> tuple[float, float, int]:
        return self.decode_s(decodes, contexts), self.context_s * decodes, 1 << 40

    def mixed_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        return self.decode_s(decodes, contexts) + self.token_s * sum(new for new, _ in chunks)

    def whole_s(self, decodes: int, contexts: int, chunks: Sequence[tuple[int, int]]) -> float:
        return self.mixed_s(decodes, contexts, chunks)

    def images_s(self, request: Request, first: int, end: int) -> float:
        return 1e-6 * sum(request.images_between(first, end, 4))

    def experts_s(self, tokens: float) -> float:
        return 0.0


def replica(ranks: int = 1, number: int = 0, step: Linear | None = None, **options: object) -> Replica:
    """A fresh replica; options are the scheduler's."""
    chosen = SchedulerOptions(**{"num_gpu_blocks": 400, "max_num_seqs": 16, **options})  # type: ignore[arg-type]
    return Replica([scheduler_for(chosen) for _ in range(ranks)], step or Linear(), number)


def traffic(count: int, seed: int = 0, rate: float = 5.0, shared: bool = True) -> list[Request]:
    """Poisson arrivals of mixed lengths; half of the prompts begin alike."""
    draw = random.Random(seed)
    now, requests = 0.0, []
    for number in range(count):
        now += draw.expovariate(rate)
        prompt = draw.randint(1, 400)
        keys = (
            tuple(range(25))
            if shared and draw.random() < 0.5
            else tuple(range(-50 * number - 50, -50 * number))
        )
        requests.append(Request(number, now, prompt, draw.randint(1, 80), keys[: -(-prompt // 16)], 16))
    return requests
