"""vLLM's executor on virtual cards: no worker, no model runner; one process whatever the layout.

What a step would compute is known from the scheduler's output, so its end is known when it is issued. Steps follow
one another on one device: each begins when it is issued or when the step before ends, whichever is later. vLLM runs
ahead of it as it would of a real card, since results come through futures.
"""

from __future__ import annotations

import random
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from vllm.v1.executor.abstract import Executor
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

from windtunnel.endpoint.vllm import settings
from windtunnel.endpoint.vllm.cache_specs import layer_specs
from windtunnel.endpoint.vllm.pace import Pace, deployment_of
from windtunnel.endpoint.vllm.progress import Batch, Progress
from windtunnel.endpoint.vllm.ranks import Ranks


class Timed(Future):  # type: ignore[type-arg]
    """A result that is there at ``at`` on the monotonic clock."""

    def __init__(self, value: Any, at: float) -> None:
        super().__init__()
        self._value, self._at = value, at

    def done(self) -> bool:
        return time.monotonic() >= self._at

    def result(self, timeout: float | None = None) -> Any:
        wait = self._at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        return self._value


class VirtualExecutor(Executor):
    """Plays the cards of one engine core."""

    supports_pp = True

    def _init_executor(self) -> None:
        config = self.vllm_config
        told = settings.read()
        self.deployment = deployment_of(config, settings.cluster(), told)
        self.pace = Pace(self.deployment, told.speed)
        self.ranks = Ranks(config)
        drafted = config.speculative_config.num_speculative_tokens if config.speculative_config else 0
        self._progress = Progress(drafted, told.acceptance, random.Random(0))
        self._free_at = 0.0
        self._pending: deque[tuple[ModelRunnerOutput, float]] = deque()
        self._last: list[str] = []

    # What vLLM asks when it starts

    def get_kv_cache_specs(self) -> list[dict[str, Any]]:
        return [layer_specs(self.vllm_config)]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        return [["NHD"]]

    def set_kv_cache_layout(self, *layout: Any) -> None:
        return None  # one name in 0.31, two in 0.33

    def determine_available_memory(self) -> list[int]:
        return [max(0, self.deployment.memory.cache)]

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        return None

    def compile_or_warm_up_model(self) -> None:
        self.deployment.step.warm(self.vllm_config.scheduler_config.max_num_seqs)

    @property
    def supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        return True

    def collective_rpc(
        self, method: Any, timeout: float | None = None, args: tuple[Any, ...] = (), kwargs: Any = None,
        non_block: bool = False,
    ) -> Any:  # fmt: skip
        """Calls to workers: there are none, so every one of them agrees and has nothing to say."""
        if not non_block:
            return [None]
        answered: Future[Any] = Future()
        answered.set_result([None])
        return answered

    def check_health(self) -> None:
        return None

    def shutdown(self) -> None:
        self.ranks.close()

    # Steps

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        batch = self._progress.take(scheduler_output)
        if not scheduler_output.total_num_scheduled_tokens:
            output: Any = _output(batch)
        else:
            seconds = self.pace.seconds(batch.decodes, batch.contexts, batch.chunks)
            seconds += self.pace.tower_s(batch.pictures)
            self._pending.append((_output(batch), self._ends(seconds)))
            self._last = batch.names
            output = None  # the tokens come from sample_tokens
        if not non_block:
            return output
        future: Future[Any] = Future()
        future.set_result(output)
        return future

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        output, at = self._pending.popleft()
        future = Timed(output, at)
        return future if non_block else future.result()

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        drafted = self._progress.drafted
        if not drafted:
            return None
        return DraftTokenIds(self._last, [[0] * drafted for _ in self._last])

    def execute_dummy_batch(self) -> None:
        """An idle rank takes part in the exchange of the others' step."""
        self._ends(0.0)

    def _ends(self, seconds: float) -> float:
        start, longest = self.ranks.agree(max(time.monotonic(), self._free_at), seconds)
        self._free_at = start + longest
        return self._free_at


def _output(batch: Batch) -> ModelRunnerOutput:
    places = {name: place for place, name in enumerate(batch.names)}
    return ModelRunnerOutput(req_ids=batch.names, req_id_to_index=places, sampled_token_ids=batch.sampled)
