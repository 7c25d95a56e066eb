"""The 80 % interval of what users see: the same load again, with steps as fast and as slow as theirs allows."""

from __future__ import annotations

from dataclasses import replace

from windtunnel.estimate import Estimate
from windtunnel.results.serving_result import End, ServingResult
from windtunnel.serving import metrics
from windtunnel.serving.deployment import Deployment
from windtunnel.serving.predict import Load, fitting_of
from windtunnel.serving.progress import Say
from windtunnel.serving.request import with_spans
from windtunnel.serving.router import Policy
from windtunnel.serving.run_load import Ran, at_client, run
from windtunnel.serving.uncertainty import width_at

INTERVAL_STEPS_MAX = 400_000
"""Loads of more steps are not run three times."""


def with_interval(
    result: ServingResult, deployment: Deployment, load: Load, *, policy: Policy = Policy.LEAST_LOAD,
    prefill: Deployment | None = None, say: Say | None = None,
) -> ServingResult:  # fmt: skip
    """``result`` with the same load at both ends of a step's 80 % interval: queues make more of it than it is."""
    if result.steps > INTERVAL_STEPS_MAX:
        said = (
            f"latencies have no interval: {result.steps:,} steps are run once (fewer --requests: three times)"
        )
        return replace(result, assumptions=(*result.assumptions, said))
    context = (result.prompt_tokens + result.output_tokens / 2) / result.requests
    width = width_at(deployment, result.mean_batch, context)
    fitting = with_spans(fitting_of(load, deployment, prefill))
    fast, slow = (
        _end(
            run(
                _scaled(deployment, factor), _scaled(prefill, factor) if prefill else None, fitting,
                load.concurrency, policy, say,
            )
        )
        for factor in (width.low, width.high)
    )  # fmt: skip

    def between(value: Estimate, at_slow: float, at_fast: float) -> Estimate:
        return Estimate(value.value, min(value.value, at_slow), max(value.value, at_fast), value.shares)

    decode, prompt = result.decode_tokens_per_s_per_gpu, result.prefill_tokens_per_s_per_gpu
    shorter, longer = result.duration_s / fast.duration_s, result.duration_s / slow.duration_s
    user = result.tokens_per_s_per_user
    return replace(
        result,
        fast=fast,
        slow=slow,
        decode_tokens_per_s_per_gpu=between(decode, decode.value * longer, decode.value * shorter),
        prefill_tokens_per_s_per_gpu=between(prompt, prompt.value * longer, prompt.value * shorter),
        tokens_per_s_per_user=between(user, _each(slow.tpot_s.mean), _each(fast.tpot_s.mean)),
    )


def _scaled(deployment: Deployment, factor: float) -> Deployment:
    return replace(deployment, slower=deployment.slower * factor)


def _end(ran: Ran) -> End:
    start_s = min(one.request.arrival_s for one in ran.served)
    duration_s = max(one.finished_s for one in ran.served) - start_s
    found = metrics.latencies([at_client(one) for one in ran.served], ran.replicas)
    return End(
        duration_s=duration_s,
        ttft_s=found["ttft"],
        tpot_s=found["tpot"],
        itl_s=found["itl"],
        e2e_s=found["e2e"],
    )


def _each(seconds: float) -> float:
    return 1 / seconds if seconds else 0.0
