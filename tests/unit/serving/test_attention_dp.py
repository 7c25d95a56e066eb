"""Data-parallel attention ranks in lock-step: what a prompt on one of them costs all, and prompts put off."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from tests.unit.serving.traffic import Linear
from windtunnel.serving.arrivals import Lengths, drawn
from windtunnel.serving.attention_dp import AttentionDpBalance, AttentionDpOptions
from windtunnel.serving.deployment import deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.engine import Replica
from windtunnel.serving.hybrid import scheduler_for
from windtunnel.serving.kernel_library import Stack
from windtunnel.serving.request import Request
from windtunnel.serving.router import Router
from windtunnel.serving.scheduler_options import SchedulerOptions
from windtunnel.serving.simulate import open_loop
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.targets import cluster_of

OPTIONS = SchedulerOptions(
    max_num_seqs=64, max_num_batched_tokens=4096, num_gpu_blocks=20_000, enable_prefix_caching=False
)


class Shared(Linear):
    """A step with 2 µs of experts a token, beside what each rank does on its own."""

    def mixed_s(self, decodes: int, contexts: int, chunks: object) -> float:
        own = super().mixed_s(decodes, contexts, chunks)  # type: ignore[arg-type]
        return own + self.experts_s(decodes + sum(new for new, _ in chunks))  # type: ignore[attr-defined]

    def experts_s(self, tokens: float) -> float:
        return 2e-6 * tokens


@dataclass
class Rank:
    """What the balance looks at."""

    prompt_ready: bool = False
    decodes: int = 8
    busy: bool = True
    options: SchedulerOptions = OPTIONS


def balance(wait: int = 2, timeout: int = 5) -> AttentionDpBalance:
    return AttentionDpBalance(
        AttentionDpOptions(enable_balance=True, batching_wait_iters=wait, timeout_iters=timeout)
    )


def replica(ranks: int, options: AttentionDpOptions | None = None) -> Replica:
    asked = AttentionDpBalance(options) if options else None
    return Replica([scheduler_for(OPTIONS) for _ in range(ranks)], Shared(), 0, asked)


def test_prompts_wait_for_ranks_without_one_until_the_time_is_over() -> None:
    asked, ranks = balance(timeout=5), [Rank(prompt_ready=True), Rank()]
    assert [asked.puts_off(ranks) for _ in range(10)] == 2 * [True, True, True, True, False]  # type: ignore[arg-type]


def test_prompts_of_all_ranks_wait_a_little_for_more() -> None:
    asked, ranks = balance(wait=2), [Rank(prompt_ready=True), Rank(prompt_ready=True)]
    assert [asked.puts_off(ranks) for _ in range(6)] == 2 * [True, True, False]  # type: ignore[arg-type]


def test_nobody_waits_where_a_rank_has_no_answer_to_go_on_with() -> None:
    for asked in (balance(), balance(wait=0)):
        assert not asked.puts_off([Rank(prompt_ready=True, decodes=0), Rank()])  # type: ignore[list-item]
    # but one with nothing at all takes part with a made-up answer
    assert balance().puts_off([Rank(decodes=0, busy=False), Rank(prompt_ready=True)])  # type: ignore[list-item]


def test_the_time_to_wait_runs_while_there_are_no_prompts() -> None:
    asked, ranks = balance(timeout=5), [Rank(prompt_ready=True), Rank()]
    asked.passed(13)
    assert [asked.puts_off(ranks) for _ in range(3)] == [True, False, True]  # type: ignore[arg-type]


def test_a_prompt_on_one_rank_makes_the_step_of_all_longer() -> None:
    """The slowest rank's own part counts, and the experts for the mean of what all send."""
    one = replica(4)
    one.add(Request(0, 0.0, 1000, 4))
    plans = one.decide(0.0)
    alone = Linear().mixed_s(0, 0, [(1000, 0)])
    assert one.step_seconds(plans) == pytest.approx(alone + 2e-6 * (1000 + 3) / 4)
    full = replica(4)
    for number in range(4):
        full.add(Request(number, 0.0, 1000, 4))
    assert full.step_seconds(full.decide(0.0)) == pytest.approx(alone + 2e-6 * 1000)


def test_balance_makes_prompts_come_together() -> None:
    """As in TensorRT-LLM's own account of it: all there at once, answers of many lengths, places filled one by one."""
    source = random.Random(1)
    requests = [Request(number, 0.0, 800, source.randint(20, 400)) for number in range(1200)]
    found = {}
    for name, options in (
        ("as they come", None),
        ("balanced", AttentionDpOptions(enable_balance=True, timeout_iters=50, batching_wait_iters=10)),
    ):
        one = replica(8, options)
        served = open_loop(requests, Router([one]))
        assert [each.request.number for each in served] == list(range(1200))
        found[name] = one
    assert found["balanced"].prompt_tokens == found["as they come"].prompt_tokens
    assert found["balanced"].busy_s < 0.9 * found["as they come"].busy_s


def test_prompts_come_later_for_it() -> None:
    requests = drawn(200, Lengths(prompt=800, output=60), rate=20.0)
    waits = []
    for timeout in (1, 20, 80):
        options = AttentionDpOptions(enable_balance=True, timeout_iters=timeout, batching_wait_iters=0)
        served = open_loop(requests, Router([replica(8, options)]))
        waits.append(sum(one.first_token_s - one.request.arrival_s for one in served))
    assert waits == sorted(waits)


def test_it_is_tensorrt_llms_and_off_unless_asked_for() -> None:
    options = DeploymentOptions(
        data_parallel_size=8, tensor_parallel_size=1, stack=Stack.TRTLLM,
        attention_dp=AttentionDpOptions(enable_balance=True),
    )  # fmt: skip
    model, cluster = shipped_model("qwen3-30b-a3b"), cluster_of("h100-sxm", 8)
    assert deploy(model, cluster, options).start()[0].balance is not None
    assert deploy(model, cluster, replace(options, stack=Stack.VLLM)).start()[0].balance is None
    assert (
        deploy(model, cluster, replace(options, attention_dp=AttentionDpOptions())).start()[0].balance is None
    )
    with pytest.raises(ValueError, match="count steps"):
        AttentionDpOptions(timeout_iters=-1)


def test_experts_are_the_part_that_ranks_share() -> None:
    model, cluster = shipped_model("qwen3-30b-a3b"), cluster_of("h100-sxm", 8)
    apart = deploy(model, cluster, DeploymentOptions(data_parallel_size=8, tensor_parallel_size=1)).step
    whole = apart.mixed_s(0, 0, [(2048, 0)])
    assert 0.1 * whole < apart.experts_s(2048) < 0.9 * whole
    alone = deploy(model, cluster, DeploymentOptions(tensor_parallel_size=8)).step
    assert alone.experts_s(2048) == 0.0
