"""Two-batch overlap: half-batches take turns, one computes while the other's tokens are on the wire.

A layer of experts has two turns a half-batch on the compute stream: attention with what follows the exchange of the
layer before (``outside``), and the experts. Under each turn lies one exchange of the other half (the order of
DeepSeek's published prefill profile and of SGLang's operations):

    attention B | dispatch A,  experts A | dispatch B,  experts B | combine A,  attention A' | combine B

Each of the four lasts as long as the longer of the two: time that a long combine leaves over in one layer cannot be
used in another. SGLang decodes as DeepSeek does, in five stages with one half two stages ahead (SGLang 0.5.23,
``operations_strategy.py``; deepseek-ai/open-infra-index, day 6), so that a dispatch lies beside the shared expert and
what the other half does before its attention, a combine beside the other's attention, and nothing beside experts.

Communication takes multiprocessors and memory from what runs beside it (``held``); products that the
engine keeps off those multiprocessors all the while (``given``) are priced without them and lose no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.program.op import OpSpec
from windtunnel.serving.prices import OpPrices


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds of the layers with exchanges, or of one part of them, all together; of one count of tokens.

    ``outside`` is everything but experts: ``before`` the attention core, behind it, and ``after`` the experts (shared
    expert, sum).
    """

    outside: float = 0.0
    experts: float = 0.0
    dispatch: float = 0.0
    combine: float = 0.0
    dispatch_held: float = 0.0
    combine_held: float = 0.0
    dispatch_units: float = 0.0
    combine_units: float = 0.0
    outside_given: float = 0.0
    experts_given: float = 0.0
    before: float = 0.0
    after: float = 0.0

    def plus(self, other: Turns, times: float = 1.0) -> Turns:
        """This and ``times`` the other."""
        return Turns(
            self.outside + times * other.outside,
            self.experts + times * other.experts,
            self.dispatch + times * other.dispatch,
            self.combine + times * other.combine,
            self.dispatch_held + times * other.dispatch_held,
            self.combine_held + times * other.combine_held,
            self.dispatch_units + times * other.dispatch_units,
            self.combine_units + times * other.combine_units,
            self.outside_given + times * other.outside_given,
            self.experts_given + times * other.experts_given,
            self.before + times * other.before,
            self.after + times * other.after,
        )

    @property
    def computed(self) -> float:
        """Seconds of computing of one half-batch."""
        return self.outside + self.experts

    def both(self, core_s: float) -> float:
        """Two half-batches of these in turn; ``core_s``: attention cores of both."""
        outside = self.outside + core_s / 2
        apart = self.outside_given / outside if outside else 0.0
        within = self.experts_given / self.experts if self.experts else 0.0
        return (
            max(outside + self.dispatch_held - apart * self.dispatch_units, self.dispatch)
            + max(self.experts + self.dispatch_held - within * self.dispatch_units, self.dispatch)
            + max(self.experts + self.combine_held - within * self.combine_units, self.combine)
            + max(outside + self.combine_held - apart * self.combine_units, self.combine)
        )

    def staged(self, core_s: float) -> float:
        """The same in five stages."""
        middle = self.outside - self.before - self.after + core_s / 2
        return 2 * (
            max(self.before + self.after + self.dispatch_held, self.dispatch)
            + self.experts
            + max(middle + self.combine_held, self.combine)
        )


def turns(
    layer: Sequence[OpSpec], core: Sequence[OpSpec], around: Sequence[OpSpec], prices: OpPrices
) -> Turns:
    """The turns of one layer's operations, its attention ``core`` apart; nothing where tokens are not exchanged.

    Args:
        around: operations in ``layer`` that are no part of it: an embedding in front, the output head behind.
    """
    places = {spec.name.rpartition(".")[2]: place for place, spec in enumerate(layer)}
    first, last = places.get("dispatch"), places.get("combine")
    if first is None or last is None:
        return Turns()
    sent, summed = prices.total([layer[first]]), prices.total([layer[last]])
    experts = prices.total(layer[first + 1 : last])
    whole = prices.total(layer)
    apart = prices.total(core).device
    outside = (
        whole.device - sent.device - summed.device - experts.device - apart - prices.total(around).device
    )
    start = layer.index(core[0]) if core else first
    before = prices.total(layer[1:start]).device
    after = prices.total(layer[last + 1 :]).device - prices.total(around[1:]).device
    return Turns(
        outside, experts.device, sent.network, summed.network, sent.held, summed.held, sent.units, summed.units,
        whole.given - experts.given, experts.given, before, after,
    )  # fmt: skip
