"""One deployment under one load → ``ServingResult``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate
from windtunnel.recipes.serving_layout import Imbalance
from windtunnel.results.serving_result import ServingResult
from windtunnel.serving import metrics, roofline
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.deployment_options import state_strategy
from windtunnel.serving.engine import Replica
from windtunnel.serving.expert_load import BALANCED
from windtunnel.serving.garbage import uncollected
from windtunnel.serving.host_link import WritePolicy
from windtunnel.serving.host_time import host_source
from windtunnel.serving.metrics import Sla
from windtunnel.serving.prefill_budget import StateStrategy
from windtunnel.serving.progress import Say
from windtunnel.serving.request import Request, with_spans
from windtunnel.serving.router import Policy
from windtunnel.serving.run_load import FRONT_END_S, Ran, at_client, fits, run
from windtunnel.serving.sessions import in_sessions, without
from windtunnel.serving.uncertainty import width_at
from windtunnel.units import GIB, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Traffic: requests in the order of arrival, or ``concurrency`` clients sending them one after another.

    ``said``: what about it the answer rests on.
    """

    requests: tuple[Request, ...]
    words: str
    concurrency: int = 0
    bad_lines: int = 0
    said: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it depends on answers when requests are sent."""
        return bool(self.concurrency) or in_sessions(self.requests)


def predict(
    deployment: Deployment, load: Load, *, policy: Policy = Policy.LEAST_LOAD, sla: Sequence[Sla] = (),
    prefill: Deployment | None = None, say: Say | None = None,
) -> ServingResult:  # fmt: skip
    """Run the load through the deployment; ``prefill``: a deployment of its own for prompts.

    Requests that no rank could ever hold are rejected and counted. Raises E655 when nothing is left.
    """
    fitting = fitting_of(load, deployment, prefill)
    if not fitting:
        raise WindtunnelError(
            "E655",
            "no request of this load fits into the cache of one rank",
            hint="shorter requests, more cards, or an 8-bit cache: --kv-precision fp8",
            values={"cache tokens of a rank": deployment.cache_tokens},
        )
    # what ran is let go of inside, so that the collector does not walk through it afterwards
    with uncollected():
        return _ran_and_told(deployment, prefill, load, fitting, policy, tuple(sla), say)


def _ran_and_told(
    deployment: Deployment, prefill: Deployment | None, load: Load, fitting: Sequence[Request], policy: Policy,
    sla: tuple[Sla, ...], say: Say | None,
) -> ServingResult:  # fmt: skip
    began = time.perf_counter()
    ran = run(deployment, prefill, with_spans(fitting), load.concurrency, policy, say)
    return _told(deployment, prefill, load, ran, sla, time.perf_counter() - began)


def fitting_of(load: Load, deployment: Deployment, prefill: Deployment | None = None) -> list[Request]:
    """Requests that a rank could hold."""
    return without(load.requests, {r.number for r in load.requests if not fits(deployment, prefill, r)})


def lived(
    deployment: Deployment, load: Load, replicas: Sequence[Replica], wall_s: float, sla: Sequence[Sla] = ()
) -> ServingResult:
    """What ``replicas`` that ran live have answered of ``load``, of which at least one request was."""
    served = sorted(
        (one for replica in replicas for one in replica.served), key=lambda one: one.request.number
    )
    return _told(deployment, None, load, Ran(served, replicas), tuple(sla), wall_s)


def _told(
    deployment: Deployment,
    prefill: Deployment | None,
    load: Load,
    ran: Ran,
    sla: tuple[Sla, ...],
    wall_s: float,
) -> ServingResult:
    served, replicas, first = ran.served, ran.replicas, ran.first
    both = [*replicas, *first]
    cluster, model = deployment.cluster, deployment.model
    cards = deployment.layout.cards * deployment.replicas
    cards += prefill.layout.cards * prefill.replicas if prefill else 0
    start_s = min(one.request.arrival_s for one in served)
    duration = max(one.finished_s for one in served) - start_s
    prompts = sum(one.request.prompt_tokens for one in served)
    outputs = sum(one.request.output_tokens for one in served)
    seen = metrics.seen(served, FRONT_END_S)
    good = sum(metrics.good(at_client(one), sla) for one in served) if sla else len(served)
    found = metrics.spreads(seen, replicas)
    decode_steps = sum(replica.decode_steps for replica in replicas)
    batch = sum(replica.gaps.count for replica in replicas) / max(1, decode_steps)
    batch /= deployment.layout.data
    context = prompts / len(served) + outputs / len(served) / 2
    width = width_at(deployment, batch, context)
    ranks = [rank for replica in both for rank in replica.ranks]
    queries = sum(rank.queries for rank in (r for replica in first or replicas for r in replica.ranks))
    hits = sum(rank.hits for rank in (r for replica in first or replicas for r in replica.ranks))

    last_s = max(request.arrival_s for request in load.requests) - start_s
    # a load that arrives at its own pace is served at that pace, whatever a step takes, until queues grow
    bound = bool(load.concurrency) or duration > SATURATED * last_s

    def rate(value: float, bound: bool) -> Estimate:
        return width.rate(value) if bound else Estimate(value, value, value, width.shares)

    words = (
        deployment.words() if prefill is None else f"prefill {prefill.words()}, decode {deployment.words()}"
    )
    return ServingResult(
        model=model.name,
        model_title=model.title or model.name,
        chip=cluster.chip.name,
        chip_title=cluster.chip.title,
        cards=cards,
        replicas=len(both),
        layout=words,
        load=load.words,
        requests=len(served),
        rejected=len(load.requests) - len(served),
        prompt_tokens=prompts,
        output_tokens=outputs,
        duration_s=duration,
        busy_fraction=sum(replica.busy_s for replica in both) / (len(both) * duration),
        ttft_s=found["ttft"],
        tpot_s=found["tpot"],
        itl_s=found["itl"],
        e2e_s=found["e2e"],
        requests_per_s=len(served) / duration,
        offered_rps=len(load.requests) / last_s if last_s and not load.waits else 0.0,
        peak_waiting=max((moment.waiting for moment in metrics.moments(first or replicas)), default=0),
        goodput_rps=good / duration,
        decode_tokens_per_s_per_gpu=rate(outputs / duration / cards, bound),
        prefill_tokens_per_s_per_gpu=rate(prompts / duration / cards, bound),
        tokens_per_s_per_user=rate(1 / found["tpot"].mean if found["tpot"].mean else 0.0, True),
        cache_hit_fraction=hits / queries if queries else 0.0,
        cache_tokens=deployment.cache_tokens,
        peak_cache_fraction=max(
            (max(sample[1] for sample in replica.used_blocks) / sum(rank.pool.capacity for rank in replica.ranks)
             for replica in replicas if replica.used_blocks), default=0.0,
        ),
        preemptions=sum(rank.preempted for rank in ranks),
        steps=sum(replica.steps for replica in both),
        mean_batch=batch,
        weights_bytes=deployment.memory.weights,
        cache_bytes=deployment.memory.cache,
        usable_bytes=deployment.memory.usable,
        roofline_decode=roofline.decode_tokens_per_s_per_card(deployment, batch, context),
        roofline_prefill=roofline.prefill_tokens_per_s_per_card(prefill or deployment, prompts / len(served)),
        limits=metrics.limits(sla, found),
        bad_lines=load.bad_lines,
        replayed_times_real=duration / wall_s if wall_s else 0.0,
        assumptions=(*load.said, *_beyond(deployment, ran), *assumptions(deployment)),
        ttft_quantiles_s=metrics.quantiles(seen.ttft_s),
        tpot_quantiles_s=metrics.quantiles(seen.tpot_s),
        e2e_quantiles_s=metrics.quantiles(seen.e2e_s),
        moments=metrics.moments(replicas),
        tiers=metrics.tier_uses(first or replicas),
    )  # fmt: skip


SATURATED = 1.1
"""A load that takes this much longer to serve than to arrive is bound by the deployment."""


def _beyond(deployment: Deployment, ran: Ran) -> tuple[str, ...]:
    """Said where sequences are longer than the model was made for, which engines refuse by default."""
    most = deployment.model.context
    longest = max(one.request.prompt_tokens + one.request.output_tokens for one in ran.served)
    if not most or longest <= most:
        return ()
    return (f"sequences have up to {longest:,} tokens, the model's configuration allows {most:,}",)


def assumptions(deployment: Deployment) -> tuple[str, ...]:
    """What this rests on that nobody measured here."""
    return (
        *engine_assumptions(deployment),
        f"tokens reach clients {1e3 * FRONT_END_S:g} ms after they leave the engine",
    )


def engine_assumptions(deployment: Deployment) -> tuple[str, ...]:
    """Those that do not concern clients."""
    said = ["activations of a step are estimated, engines measure them", "time between steps is hidden"]
    if deployment.layout.expert > 1:
        said.append(_imbalance(deployment.layout.imbalance, deployment.options.expert_load))
    step = deployment.step
    if step.prompt_graphs < deployment.options.max_num_batched_tokens:
        above = f" above {step.prompt_graphs:,.0f} tokens" if step.prompt_graphs else ""
        said.append(
            f"steps with prompts{above} are issued kernel by kernel: {seconds(step.issue_s)} at least, "
            f"{host_source(deployment.cluster.chip)}; intervals leave out how sure that is"
        )
    if deployment.layout.data > 1:
        said.append("ranks step together: a prompt on one of them holds up all")
    if deployment.memory.state_bytes:
        if deployment.memory.state_slots:
            where = "where chunks of prompts leave it and every 256 decoded tokens (extra_buffer)"
            if state_strategy(deployment.options) is StateStrategy.NO_BUFFER:
                where = "where chunks of prompts and outputs end (no_buffer)"
        else:
            where = f"at ends of {deployment.memory.block_tokens}-token blocks (align mode)"
        said.append(f"recurrent state is found again {where}")
    if deployment.options.offload.wanted:
        back = deployment.options.sglang.hicache_write_policy is WritePolicy.WRITE_BACK
        how = "back as it leaves the card" if back else "through"
        said.append(
            f"cache is written {how} to slower tiers, read at their full rate; storage is pooled over ranks"
        )
    if deployment.options.speculation.tokens:
        speculation = deployment.options.speculation
        how = "drawn step by step" if deployment.bursts else "spread evenly"
        said.append(f"drafted tokens are accepted with {speculation.acceptance:.0%} each, {how}")
        said.append(_drafting_layer(deployment))
    return tuple(said)


def _imbalance(of: Imbalance, loads: str) -> str:
    """How uneven expert ranks are, and by which loads."""
    apart = (
        f" in prompts and {of.decode:.3g} × in decoding" if f"{of.prompts:.3g}" != f"{of.decode:.3g}" else ""
    )
    source = "" if loads == BALANCED else f", loads: {loads}"
    return f"busiest expert rank carries {of.prompts:.3g} × the mean{apart}{source}"


def _drafting_layer(deployment: Deployment) -> str:
    """Where drafts come from, and what is counted of it."""
    memory, model = deployment.memory, deployment.model
    layers = model.prediction_layers
    where = "drafts come from the model's MTP layer, timed as the last one"
    if not layers:
        where = (
            "the model's configuration has no MTP layer: drafts come from an assumed one, shaped as the last"
        )
    return f"{where}; its weights ({memory.draft_weights / GIB:.2f} GiB a card) and cache are counted"
