"""Two-batch overlap: half-batches take turns, one computes while the other's tokens are on the wire.

A layer of experts has two turns a half-batch on the compute stream: attention with what follows the exchange of the
layer before (``outside``), and the experts. Under each turn lies one exchange of the other half (the order of
DeepSeek's published prefill profile and of SGLang's operations):

    attention B | dispatch A,  experts A | dispatch B,  experts B | combine A,  attention A' | combine B

Each of the four lasts as long as the longer of the two: time that a long combine leaves over in one layer cannot be
used in another. Communication takes multiprocessors and memory from what runs beside it (``held``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.program.op import OpSpec
from windtunnel.serving.prices import OpPrices


@dataclass(frozen=True, slots=True)
class Turns:
    """Seconds of the layers with exchanges, all together; of one count of tokens."""

    outside: float = 0.0
    experts: float = 0.0
    dispatch: float = 0.0
    combine: float = 0.0
    dispatch_held: float = 0.0
    combine_held: float = 0.0

    def plus(self, other: Turns, times: float = 1.0) -> Turns:
        """This and ``times`` the other."""
        return Turns(
            self.outside + times * other.outside,
            self.experts + times * other.experts,
            self.dispatch + times * other.dispatch,
            self.combine + times * other.combine,
            self.dispatch_held + times * other.dispatch_held,
            self.combine_held + times * other.combine_held,
        )

    @property
    def computed(self) -> float:
        """Seconds of computing of one half-batch."""
        return self.outside + self.experts

    def both(self, core_s: float) -> float:
        """Two half-batches of these in turn; ``core_s``: attention cores of both."""
        outside = self.outside + core_s / 2
        return (
            max(outside + self.dispatch_held, self.dispatch)
            + max(self.experts + self.dispatch_held, self.dispatch)
            + max(self.experts + self.combine_held, self.combine)
            + max(outside + self.combine_held, self.combine)
        )


def turns(layer: Sequence[OpSpec], around_s: float, prices: OpPrices) -> Turns:
    """The turns of one layer's operations; nothing where tokens are not exchanged.

    Args:
        around_s: seconds of operations in ``layer`` that are no part of it.
    """
    places = {spec.name.rpartition(".")[2]: place for place, spec in enumerate(layer)}
    first, last = places.get("dispatch"), places.get("combine")
    if first is None or last is None:
        return Turns()
    sent, summed = prices.total([layer[first]]), prices.total([layer[last]])
    experts = prices.total(layer[first + 1 : last])
    whole = prices.total(layer)
    outside = whole.device - sent.device - summed.device - experts.device - around_s
    return Turns(outside, experts.device, sent.network, summed.network, sent.held, summed.held)
