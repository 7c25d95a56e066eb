"""Requests through the replicas of a deployment, once, and what their clients see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windtunnel.network.collective import Collective
from windtunnel.network.model import NetworkModel
from windtunnel.serving.deployment import Deployment, Side
from windtunnel.serving.engine import Replica
from windtunnel.serving.garbage import uncollected
from windtunnel.serving.handover import Handover
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.progress import Say, Watch
from windtunnel.serving.request import Request, Served
from windtunnel.serving.router import Policy, Router
from windtunnel.serving.sessions import Sessions, in_sessions
from windtunnel.serving.simulate import (
    closed_disaggregated,
    closed_loop,
    disaggregated,
    open_loop,
    session_loop,
    sessions_apart,
)
from windtunnel.specs.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Ran:
    """Answers in the order of requests; ``first``: replicas that only computed prompts."""

    served: Sequence[Served]
    replicas: Sequence[Replica]
    first: Sequence[Replica] = ()


def run(
    deployment: Deployment, prefill: Deployment | None, requests: Sequence[Request], concurrency: int, policy: Policy,
    say: Say | None = None,
) -> Ran:  # fmt: skip
    """Send the requests; ``concurrency``: so many clients, each waiting for its answer; ``prefill``: for prompts.

    Where requests follow others, they come as their sessions go on, and a client is one who goes through a session.
    """
    first: Sequence[Replica] = ()
    if prefill is not None and deployment.hands_over:
        replicas = deployment.start(side=Side.OUTPUTS)
        first = prefill.start(len(replicas), side=Side.PROMPTS)
    else:
        together = in_sessions(requests) or not concurrency
        replicas = deployment.start(together=together)
        if prefill is not None:
            first = prefill.start(len(replicas), together=together)
    with Watch(len(requests), replicas, first, say), uncollected():
        served = _sent(deployment, prefill, requests, concurrency, policy, replicas, first)
    return Ran(served, replicas, first)


def _sent(
    deployment: Deployment, prefill: Deployment | None, requests: Sequence[Request], concurrency: int, policy: Policy,
    replicas: Sequence[Replica], first: Sequence[Replica],
) -> Sequence[Served]:  # fmt: skip
    sessions = Sessions(requests, concurrency) if in_sessions(requests) else None
    if prefill is None:
        if sessions:
            return session_loop(sessions, Router(replicas, policy))
        if concurrency:
            return closed_loop(requests, replicas, concurrency)
        return open_loop(requests, Router(replicas, policy))
    shipping = Shipping(deployment, prefill)
    routers = Router(first, policy), Router(replicas, policy)
    if deployment.hands_over:
        pair = Handover(*routers, shipping.seconds, shipping.part_s)
        return pair.serve(Sessions(requests, concurrency))
    part_s = shipping.part_s if prefill.options.stack is Stack.SGLANG else None
    if sessions:
        return sessions_apart(sessions, *routers, shipping.seconds, part_s)
    if concurrency:
        return closed_disaggregated(requests, *routers, shipping.seconds, concurrency, part_s)
    return disaggregated(requests, *routers, shipping.seconds, part_s)


def fits(deployment: Deployment, prefill: Deployment | None, request: Request) -> bool:
    """Whether a rank could ever hold the request; ``prefill``: ranks for prompts, which hold them by SGLang's rules."""
    if prefill is None or not deployment.hands_over:
        return deployment.fits(request)
    prompt = replace(request, output_tokens=1)
    return deployment.fits(request, Side.OUTPUTS) and prefill.fits(prompt, Side.PROMPTS)


class Shipping:
    """Seconds to move a prompt's cache from a prefill card to a decode card of another node."""

    def __init__(self, decode: Deployment, prefill: Deployment) -> None:
        cards = prefill.cluster.node.cards
        both = Cluster(
            name="both", title="both", node=prefill.cluster.node, cards=2 * cards,
            fabric=prefill.cluster.fabric,
        )  # fmt: skip
        self._network = NetworkModel(both)
        self._pair = (0, cards)
        self._token_bytes = prefill.memory.token_bytes
        self._state_bytes = prefill.memory.state_bytes

    def seconds(self, tokens: int) -> float:
        """Every card ships its own part over its own network port, all at once."""
        return self._sent_s(tokens * self._token_bytes + self._state_bytes)

    def part_s(self, tokens: int) -> float:
        """A part of a cache that is not the last: recurrent states come with that one."""
        return self._sent_s(tokens * self._token_bytes)

    def _sent_s(self, nbytes: float) -> float:
        return self._network.collective_time(Collective.SEND, nbytes, self._pair).seconds


FRONT_END_S = 8e-3
"""From a client to the scheduler and back: HTTP, tokenising, detokenising, streaming. Clients saw first tokens 8 to
12 ms after the server's own count in vllm-project/vllm pull request 54628 (`vllm bench serve`, 8 clients, a laptop):
the low end is taken, for every engine."""


def at_client(one: Served) -> Served:
    """The request as its client sees it: every token comes a little later than it leaves the engine."""
    return Served(
        one.request, one.admitted_s, one.first_token_s + FRONT_END_S, one.finished_s + FRONT_END_S,
        one.cached_tokens, one.preemptions, one.replica,
    )  # fmt: skip
