"""What holds memory on the fullest card, and how sure its sum is."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate, Source

FRAGMENTATION = 0.048
"""Reserved over allocated memory, less 1: the median of 16 measured training runs of Megatron-LM on B200
(MooreThreads/SimuMax, B200 release summary v1.2), which range from 0.027 to 0.081."""

FRAGMENTATION_SPREAD = 0.03

ACTIVATION_SPREAD = 0.15
"""80 % interval of what is not a count: activations, working memory. Relative error of formulas of this kind;
checked by the comparison with measured peaks in the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryParts:
    """Bytes on one card. Zero where it does not apply.

    Attributes:
        weights, gradients, optimizer: counts of parameters times bytes, exact for the layout.
        activations: kept from forward to backward.
        working: on top while the fullest moment lasts: logits and loss, gradients of activations, gathered
            parameters.
        cache: keys and values. state: of recurrent layers.
        workspace: of the math libraries, inside the allocator.
        pools: held by the allocator for other streams, and not in use at the peak, by count.
        cached: all that the allocator holds beside live memory, where its events were replayed; None: counted.
        communication: buffers of the collective library, outside the allocator.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    working: int = 0
    cache: int = 0
    state: int = 0
    workspace: int = 0
    pools: int = 0
    communication: int = 0
    cached: int | None = None

    @property
    def counted(self) -> int:
        """What follows from counting alone."""
        return self.weights + self.gradients + self.optimizer + self.cache + self.state

    @property
    def modelled(self) -> int:
        """What rests on a formula."""
        return self.activations + self.working

    @property
    def allocated(self) -> int:
        """Bytes that PyTorch would call allocated, at the peak."""
        return self.counted + self.modelled + self.workspace

    @property
    def fragmentation(self) -> int:
        """Reserved but not allocated at the peak; engines allocate weights and caches once."""
        if self.cached is not None:
            return 0
        return int(FRAGMENTATION * (self.allocated if self.modelled_is_churn else self.modelled))

    @property
    def modelled_is_churn(self) -> bool:
        """Whether the allocator is stirred by a training step."""
        return self.gradients > 0

    @property
    def reserved(self) -> int:
        """What the allocator holds, and buffers of the collective library."""
        return self.allocated + self.held + self.fragmentation + self.communication

    @property
    def held(self) -> int:
        """Held by the allocator without being in use, as far as that is more than a factor."""
        return self.pools if self.cached is None else self.cached

    def estimate(self) -> Estimate:
        """The total on the card, context excluded, with its 80 % interval."""
        width = ACTIVATION_SPREAD * (self.modelled + self.communication)
        spread = FRAGMENTATION_SPREAD * (self.allocated if self.modelled_is_churn else self.modelled)
        total = float(self.reserved)
        counted = self.counted / total if total else 1.0
        shares = ((Source.CALIBRATED, self.fragmentation / total if total else 0.0),)
        modelled = self.modelled + self.workspace + self.held
        analytic = ((Source.ANALYTIC, counted + modelled / total if total else 1.0),)
        assumed = ((Source.ASSUMED, self.communication / total if total else 0.0),)
        low = max(float(self.counted), total - width - spread)
        return Estimate(total, min(low, total), total + width + spread, (*shares, *analytic, *assumed))

    def rows(self) -> list[tuple[str, int]]:
        """Name and bytes of each part that is not zero, in the order to show them."""
        named = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer state", self.optimizer),
            ("activations", self.activations),
            ("working memory", self.working),
            ("KV cache", self.cache),
            ("recurrent state", self.state),
            ("library workspace", self.workspace),
            ("pools of other streams", self.pools),
            ("cached by the allocator", self.cached or 0),
            ("communication buffers", self.communication),
            ("fragmentation", self.fragmentation),
        ]
        return [(name, nbytes) for name, nbytes in named if nbytes]
