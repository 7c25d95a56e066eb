"""vLLM's executor on virtual cards: no worker, no model runner; one process whatever the layout.

What a step would compute is known from the scheduler's output, so its end is known when it is issued. Steps follow
one another on one device: each begins when it is issued or when the step before ends, whichever is later; a pipeline
is several such devices. vLLM runs ahead of it as it would of a real card, since results come through futures.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vllm.v1.executor.abstract import Executor
from vllm.v1.outputs import DraftTokenIds, KVConnectorOutput, ModelRunnerOutput

from windtunnel.endpoint.vllm import settings
from windtunnel.endpoint.vllm.cache_specs import layer_specs, stage_bounds
from windtunnel.endpoint.vllm.pace import Pace, stages_of
from windtunnel.endpoint.vllm.progress import Batch, Progress
from windtunnel.endpoint.vllm.ranks import Ranks
from windtunnel.endpoint.vllm.wire import Wire
from windtunnel.serving.run_load import Shipping

LOOK_S = 0.001


class Timed(Future):  # type: ignore[type-arg]
    """A result that is there at ``at`` on the monotonic clock, with what ``made`` makes of it then."""

    def __init__(self, value: Any, at: float, made: Callable[[Any], Any]) -> None:
        super().__init__()
        self._value, self._at, self._made = value, at, made

    def done(self) -> bool:
        return time.monotonic() >= self._at

    def result(self, timeout: float | None = None) -> Any:
        wait = self._at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        return self._made(self._value)


class VirtualExecutor(Executor):
    """Plays the cards of one engine core."""

    supports_pp = True

    def _init_executor(self) -> None:
        config = self.vllm_config
        told = settings.read()
        self.stages = stages_of(config, settings.cluster(), told, stage_bounds(config))
        self.pace = Pace(self.stages.one, told.speed)
        self.ranks = Ranks(config)
        drafted = config.speculative_config.num_speculative_tokens if config.speculative_config else 0
        self._progress = Progress(drafted, told.acceptance, random.Random(0))
        self._free_at = [0.0] * len(self.stages.shares)
        self._wire = Wire(self._shipping(told.speed)) if config.kv_transfer_config else None
        self._pending: deque[tuple[ModelRunnerOutput, float]] = deque()
        self._last: list[str] = []

    # What vLLM asks when it starts

    def get_kv_cache_specs(self) -> list[dict[str, Any]]:
        return layer_specs(self.vllm_config)

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        return [["NHD"]] * len(self._free_at)

    def set_kv_cache_layout(self, *layout: Any) -> None:
        return None  # one name in 0.31, two in 0.33

    def determine_available_memory(self) -> list[int]:
        return self.stages.cache_bytes()

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        return None

    def compile_or_warm_up_model(self) -> None:
        self.stages.one.step.warm(self.vllm_config.scheduler_config.max_num_seqs)

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
        if self._wire is not None:
            moves = scheduler_output.kv_connector_metadata
            self._wire.start(moves.sending, moves.receiving, time.monotonic())
        if not scheduler_output.total_num_scheduled_tokens:
            future = Timed(_output(batch), self._next_arrival(), self._with_moves)
        else:
            seconds = self.pace.seconds(batch.decodes, batch.contexts, batch.chunks)
            seconds += self.pace.tower_s(batch.pictures)
            tokens = batch.decodes + sum(new for new, _ in batch.chunks)
            self._pending.append((_output(batch), self._ends(seconds, tokens)))
            self._last = batch.names
            future = Timed(None, 0.0, _same)  # the tokens come from sample_tokens
        return future if non_block else future.result()

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        output, at = self._pending.popleft()
        future = Timed(output, at, self._with_moves)
        return future if non_block else future.result()

    def _with_moves(self, output: ModelRunnerOutput) -> ModelRunnerOutput:
        """The output with the caches that have come and gone by now."""
        if self._wire is not None:
            sent, received = self._wire.finished(time.monotonic())
            output.kv_connector_output = KVConnectorOutput(finished_sending=sent, finished_recving=received)
        return output

    def _next_arrival(self) -> float:
        """Until when an engine that only waits for caches may sleep; it must also look for requests."""
        now_s = time.monotonic()
        at = self._wire.next_at if self._wire is not None else None
        return now_s if at is None else min(at, now_s + LOOK_S)

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        drafted = self._progress.drafted
        if not drafted:
            return None
        return DraftTokenIds(self._last, [[0] * drafted for _ in self._last])

    def execute_dummy_batch(self) -> None:
        """An idle rank takes part in the exchange of the others' step."""
        self._ends(0.0, 0)

    def _ends(self, seconds: float, tokens: int) -> float:
        """When the last stage is through with a batch that takes ``seconds`` in all."""
        free = self._free_at
        start, longest = self.ranks.agree(max(time.monotonic(), free[0]), seconds)
        handing_on = self.stages.hand_on_s(tokens) / self.pace.speed if len(free) > 1 and tokens else 0.0
        for stage, share in enumerate(self.stages.shares):
            start = max(start, free[stage])
            free[stage] = start + longest * share
            start = free[stage] + handing_on
        return free[-1]

    def _shipping(self, speed: float) -> Callable[[int], float]:
        """Seconds to move the cache of so many tokens to a peer with the same layout."""
        shipping = Shipping(self.stages.one, self.stages.one)
        return lambda tokens: shipping.seconds(tokens) / speed


def _same(value: Any) -> Any:
    return value


def _output(batch: Batch) -> ModelRunnerOutput:
    places = {name: place for place, name in enumerate(batch.names)}
    return ModelRunnerOutput(req_ids=batch.names, req_id_to_index=places, sampled_token_ids=batch.sampled)
