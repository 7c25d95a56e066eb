"""Pipeline parallelism: which layers a stage holds, what memory it has left, and when a batch comes out of the last.

A stage takes its layers' share of the step on its own tensor-parallel group; what it hands on crosses the network.
Batches follow one another through the stages, as many at once as vLLM keeps under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from windtunnel.network.collective import Collective
from windtunnel.network.model import NetworkModel
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.model import ModelSpec

ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True)
class Stages:
    """A pipeline of one engine.

    Attributes:
        one: the whole model on the cards of one stage. bounds: first layer of every stage, and the number of layers.
    """

    one: Deployment
    bounds: tuple[int, ...]
    network: NetworkModel

    @property
    def shares(self) -> list[float]:
        """Each stage's part of a step, by its layers."""
        return [(end - start) / self.bounds[-1] for start, end in pairwise(self.bounds)]

    def cache_bytes(self) -> list[int]:
        """Left for the cache on a card of each stage; the embedding is on the first, the head on the last."""
        one, last = self.one, self.bounds[-1]
        embedding, head = (
            int(count / one.layout.tensor * 2)
            for count in (one.model.embedding_parameters, one.model.head_parameters)
        )
        left = []
        for start, end in pairwise(self.bounds):
            part = replace(one.model, layers=one.model.layers[start:end])
            # the drafting layer is on the last
            options = one.options if end == last else replace(one.options, speculation=Speculation())
            found = deploy(part, one.cluster, options, 0).memory.cache
            needs_embedding = not start or (end == last and one.model.tied)
            left.append(max(0, found + (0 if needs_embedding else embedding) + (0 if end == last else head)))
        return left

    def hand_on_s(self, tokens: int) -> float:
        """One stage's output to the next, each card its own part; over the network where nodes end between them."""
        tensor = self.one.layout.tensor
        nbytes = tokens * self.one.model.hidden * ACTIVATION_BYTES // tensor
        return self.network.collective_time(Collective.SEND, nbytes, (0, tensor)).seconds


def staged(model: ModelSpec, cluster: Cluster, options: DeploymentOptions, bounds: Sequence[int]) -> Stages:
    """The pipeline of ``model`` over ``cluster``, whose cards are shared evenly by the stages; often one.

    Raises:
        WindtunnelError: E209, E303, E304, E501, E653: as ``deploy`` does.
    """
    count = len(bounds) - 1
    part = replace(cluster, cards=cluster.cards // count)
    # one stage must fit as it is; of several each holds only its part, which ``cache_bytes`` sees to
    one = deploy(model, part, options, 1 if count == 1 else 0)
    return Stages(one, tuple(bounds), NetworkModel(cluster))
