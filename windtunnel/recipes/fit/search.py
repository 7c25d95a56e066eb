"""What to change so that it fits: every suggestion was computed to fit, up to its upper bound.

Searches ask the formula, which takes a millisecond; what they find is then asked as the user would ask it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.fit.question import FitAnswer, FitQuestion, Mode
from windtunnel.recipes.layout import Recompute, Sharding
from windtunnel.specs.model_ffn import Moe

MOST_CARDS = 16384
MOST_BATCH = 1 << 20


def surely_fits(question: FitQuestion, *, counted: bool = False) -> bool:
    """Whether even the upper bound fits; a layout that does not multiply up does not."""
    try:
        answer = FitAnswer(question, counted)
        return answer.total.high <= answer.usable
    except WindtunnelError:
        return False


def smaller(question: FitQuestion) -> FitQuestion | None:
    """The least change on the same cards: a smaller batch, or re-computation and sharding when training."""
    cheaper = [] if question.mode is Mode.INFER else list(_cheaper_training(question))
    for change in cheaper:
        if surely_fits(change):
            return change
    for change in (question, *cheaper):
        batch = min(largest_batch(change), question.batch - 1)
        if batch > 0:
            return replace(change, batch=batch)
    return None


def more_cards(question: FitQuestion) -> FitQuestion | None:
    """The fewest cards (in powers of two times the asked) on which the same work fits."""
    cards = question.cards
    while cards <= MOST_CARDS:
        for candidate in _layouts(question, cards):
            if surely_fits(candidate, counted=True) and surely_fits(candidate):
                return candidate
        cards *= 2
    return None


def largest_batch(question: FitQuestion) -> int:
    """The largest batch that surely fits on the same cards; 0 if not even one does."""
    batch = _largest_counted(question)
    if question.mode is Mode.INFER:
        return batch
    while batch and not surely_fits(replace(question, batch=batch)):
        batch -= max(1, batch // 16)
    while batch < MOST_BATCH and surely_fits(replace(question, batch=batch + 1)):
        batch += 1
    return batch


def _largest_counted(question: FitQuestion) -> int:
    def fits(batch: int) -> bool:
        return surely_fits(replace(question, batch=batch), counted=True)

    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= MOST_BATCH and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _cheaper_training(question: FitQuestion) -> Iterator[FitQuestion]:
    shared = replace(question, sharding=Sharding.FSDP)
    yield shared
    yield replace(question, recompute=Recompute.FULL)
    yield replace(shared, recompute=Recompute.FULL)


def _layouts(question: FitQuestion, cards: int) -> Iterator[FitQuestion]:
    """Ways to spread over ``cards``: as asked first, then wider tensor, then more stages."""
    node = question.chip.cards_per_node
    has_experts = any(isinstance(layer.ffn, Moe) for layer in question.model.layers)
    tensors = [
        degree
        for degree in (1, 2, 4, 8, 16, 32, 64, 72)
        if question.tensor <= degree <= max(node, question.tensor)
    ]
    for pipeline in (question.pipeline, 2, 4, 8, 16):
        if pipeline < question.pipeline or pipeline > len(question.model.layers):
            continue
        for tensor in tensors:
            if cards % (tensor * pipeline * question.context_parallel):
                continue
            spread = replace(question, cards=cards, tensor=tensor, pipeline=pipeline)
            if question.mode is Mode.INFER:
                if tensor * pipeline == cards:
                    yield spread
                continue
            yield spread
            if has_experts:
                ranks = cards // pipeline
                experts = next(
                    layer.ffn.experts for layer in question.model.layers if isinstance(layer.ffn, Moe)
                )
                degree = next(
                    d for d in range(min(ranks, experts), 0, -1) if ranks % d == 0 and experts % d == 0
                )
                yield replace(spread, expert=degree)
