"""Prompts of data-parallel attention ranks made to come together (TensorRT-LLM's ``attention_dp_config``).

Ranks step together, so a prompt on one of them makes the step of all as long as its own. With ``enable_balance``
prompts are put off while ranks have answers to go on with, until every rank has one to compute, and a little longer so
that ranks with one prompt get a second; after ``timeout_iters`` steps of waiting they are computed wherever they are.
The rules are those of ``PyExecutor._balance_adp_requests`` of TensorRT-LLM 1.0 and 1.1, what they are for is described
in its documentation (``tech_blog/blog10_ADP_Balance_Strategy.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.serving.scheduler import Scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionDpOptions:
    """``attention_dp_config`` by its names; the counts are steps.

    Attributes:
        timeout_iters: longest that prompts wait for a rank without one.
        batching_wait_iters: how long they wait once every rank has one.
    """

    enable_balance: bool = False
    timeout_iters: int = 50
    batching_wait_iters: int = 10

    def __post_init__(self) -> None:
        if min(self.timeout_iters, self.batching_wait_iters) < 0:
            raise ValueError("timeout_iters and batching_wait_iters count steps")


class AttentionDpBalance:
    """Decides step by step whether the prompts of a replica's ranks wait."""

    def __init__(self, options: AttentionDpOptions) -> None:
        self._options = options
        self._waited = 0
        self._batched = 0

    def puts_off(self, ranks: Sequence[Scheduler]) -> bool:
        """Whether no rank computes prompts in the step that is decided next; counts the step."""
        prompts = [rank.prompt_ready for rank in ranks]
        # a rank with nothing at all to do takes part with a made-up answer
        decodes = all(rank.decodes or not rank.busy for rank in ranks)
        places = all(rank.decodes < rank.options.max_num_seqs for rank in ranks)
        if places and all(prompts):
            self._waited = 0
            if not decodes:
                return False
            if self._batched < self._options.batching_wait_iters:
                self._batched += 1
                return True
            self._batched = 0
            return False
        self._waited += 1
        if self._waited >= self._options.timeout_iters or not decodes:
            self._waited = 0
            return False
        return True

    def passed(self, steps: int) -> None:
        """Count ``steps`` steps for which no rank had a prompt: the time to wait runs on in them, and starts over."""
        self._waited = (self._waited + steps) % max(1, self._options.timeout_iters)
