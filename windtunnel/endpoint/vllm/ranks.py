"""Data-parallel attention: ranks exchange tokens in every layer, so a step starts and ends for all of them at once.

Each rank is an engine core in a process of its own, as vLLM starts them; they agree over gloo. All processes of a
machine share the monotonic clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from vllm.distributed.utils import get_cached_tcp_store_client, init_gloo_process_group

PATIENCE = timedelta(minutes=30)
"""A rank that starts on a busy host, or stands in a debugger, is waited for."""


class Ranks:
    """The engine cores of one model. Alone, it agrees with itself."""

    def __init__(self, config: Any) -> None:
        parallel = config.parallel_config
        together = parallel.data_parallel_size > 1 and config.model_config.is_moe
        self._group: Any = _group(parallel) if together else None

    def agree(self, start_s: float, seconds: float) -> tuple[float, float]:
        """The latest start and the longest step among all ranks; waits for them to come here."""
        if self._group is None:
            return start_s, seconds
        both = torch.tensor([start_s, seconds], dtype=torch.float64)
        dist.all_reduce(both, op=dist.ReduceOp.MAX, group=self._group)
        return float(both[0]), float(both[1])

    def close(self) -> None:
        """Forget the group; processes end by themselves."""
        self._group = None


def _group(parallel: Any) -> Any:
    """A gloo group of all engine cores besides vLLM's own.

    They meet at the store that vLLM's launcher keeps for them: asking vLLM for a second group would have its ranks
    read the port of the first one where they are quick.
    """
    port = parallel._coord_store_port
    if not port:
        return parallel.stateless_init_dp_group()
    store = dist.PrefixStore(  # type: ignore[attr-defined]
        "windtunnel", get_cached_tcp_store_client(parallel.data_parallel_master_ip, port)
    )
    return init_gloo_process_group(store, parallel.data_parallel_rank, parallel.data_parallel_size, PATIENCE)
