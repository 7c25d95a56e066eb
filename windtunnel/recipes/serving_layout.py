"""How one replica of a serving engine is spread over cards, and its process groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windtunnel.errors import WindtunnelError
from windtunnel.program.program import ProcessGroup
from windtunnel.recipes.layout import Precision

TENSOR, EXPERT = 1, 2
"""Places of their groups among ``groups_of``."""


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Busiest over mean, at least 1: tokens of expert ranks in prompts and in decoding, and tokens of prompts that
    nodes take in, each by its own network cards.
    """

    prompts: float = 1.0
    decode: float = 1.0
    nodes: float = 1.0

    def times(self, factor: float) -> Imbalance:
        """All of it more uneven by a factor."""
        return Imbalance(self.prompts * factor, self.decode * factor, self.nodes * factor)

    @classmethod
    def mean(cls, of: Sequence[Imbalance]) -> Imbalance:
        """Of several layers."""
        return cls(
            sum(one.prompts for one in of) / len(of),
            sum(one.decode for one in of) / len(of),
            sum(one.nodes for one in of) / len(of),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingLayout:
    """How one replica is spread over cards.

    Attributes:
        tensor: ranks that share the heads. data: attention replicas with their own sequences.
        expert: ranks that share the experts, of tensor x data; 1: experts split by width over ``tensor``.
        cache: dtype of keys and values. graphs: the step is one captured graph.
        imbalance: of the busiest expert rank, by what experts are popular; ``parts``: of equal parts of the layers
            with experts, where these differ, of which ``imbalance`` is the mean.
        redundant: expert slots beyond one for each expert. drawn: tokens choose by chance, so that the busiest
            rank of a step carries more than its mean; otherwise routing is forced to be even.
        deepep: date of the exchange library's release (``ExpertTraffic.as_of``); empty: today's.
        exchange_sms: multiprocessors that exchanges of prompts are given; 0: the library's default.
        wide_inputs: products in front of attention stay in 16 bit, whatever the precision, as some checkpoints have
            them.
        narrow_experts: experts have weights of four bits (MXFP4), whatever the precision; ``eight_bit_rows``: which
            meet rows cast to eight (MXFP8), else to 16.
        fused_sums: products send their results while they compute the rest (TensorRT-LLM's
            ``gemm_allreduce_plugin``), so that the longer of the two counts.
    """

    tensor: int = 1
    data: int = 1
    expert: int = 1
    precision: Precision = Precision.BF16
    cache: str = "bfloat16"
    graphs: bool = True
    imbalance: Imbalance = Imbalance()
    parts: tuple[Imbalance, ...] = ()
    redundant: int = 0
    drawn: bool = True
    deepep: str = ""
    exchange_sms: int = 0
    wide_inputs: bool = False
    narrow_experts: bool = False
    eight_bit_rows: bool = False
    fused_sums: bool = False

    def __post_init__(self) -> None:
        if min(self.tensor, self.data, self.expert) < 1 or self.cards % self.expert:
            raise WindtunnelError(
                "E207",
                f"expert parallel {self.expert} does not divide {self.cards} ranks of tensor x data",
                hint="experts are shared by all ranks of a replica or by an even part of them",
                values={"tensor": self.tensor, "data": self.data, "expert": self.expert},
            )

    def of_parts(self) -> list[ServingLayout]:
        """Of each part of the layers, itself where they are alike."""
        return [replace(self, imbalance=part, parts=()) for part in self.parts] or [self]

    @property
    def cards(self) -> int:
        """Cards of one replica."""
        return self.tensor * self.data


def groups_of(layout: ServingLayout) -> list[ProcessGroup]:
    """All ranks, those that share heads, those that share experts."""
    return [
        ProcessGroup(tuple(range(layout.cards)), "nccl", "world"),
        ProcessGroup(tuple(range(layout.tensor)), "nccl", "tensor"),
        ProcessGroup(tuple(range(layout.expert)), "nccl", "expert"),
    ]
