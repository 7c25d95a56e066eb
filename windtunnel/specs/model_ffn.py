"""Feed-forward parts of a layer: dense, and mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """Two products with an activation between, or three with a gate."""

    width: int
    gated: bool = True
    bias: bool = False

    @property
    def products(self) -> int:
        """How many products of hidden × width."""
        return 3 if self.gated else 2

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        bias = (self.products - 1) * self.width + hidden if self.bias else 0
        return self.products * hidden * self.width + bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Moe:
    """Routed experts of ``width``, ``top_k`` a token, and a shared part of ``shared_width`` for every token.

    Attributes:
        shared_gate: whether a learned gate scales the shared part.
        router_bias: whether the router's product has a bias.
        router_fp32: whether the router works on an FP32 copy of the tokens.
        weights_fp32: whether results are weighed and summed in FP32 where model code does it (transformers).
        latent: width that tokens are projected to before the routed experts; 0: their own.
        groups, groups_chosen: a token's experts all lie in ``groups_chosen`` of so many groups (``n_group`` and
            ``topk_group`` of DeepSeek's configurations); 0: anywhere.
    """

    experts: int
    top_k: int
    width: int
    gated: bool = True
    bias: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    router_bias: bool = False
    router_fp32: bool = False
    weights_fp32: bool = False
    latent: int = 0
    groups: int = 0
    groups_chosen: int = 0

    @property
    def products(self) -> int:
        """How many products an expert has."""
        return 3 if self.gated else 2

    def expert_parameters(self, hidden: int) -> int:
        """Learned numbers of one routed expert."""
        inner = self.latent or hidden
        bias = (self.products - 1) * self.width + inner if self.bias else 0
        return self.products * inner * self.width + bias

    def routed_parameters(self, hidden: int) -> int:
        """Learned numbers of all routed experts."""
        return self.experts * self.expert_parameters(hidden)

    def idle_parameters(self, hidden: int) -> int:
        """Learned numbers of the experts that a token does not meet."""
        return (self.experts - self.top_k) * self.expert_parameters(hidden)

    def common_parameters(self, hidden: int) -> int:
        """Router, shared part and projections: what every token meets beside its experts."""
        router = self.experts * hidden + (self.experts if self.router_bias else 0)
        shared = self.products * hidden * self.shared_width + (hidden if self.shared_gate else 0)
        return router + shared + 2 * hidden * self.latent

    def parameters(self, hidden: int) -> int:
        """Learned numbers."""
        return self.routed_parameters(hidden) + self.common_parameters(hidden)
