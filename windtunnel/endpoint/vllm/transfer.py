"""Prefill and decode on engines of their own: vLLM's KV connector, with transfers that take the network's time.

The protocol is the one of vLLM's own connectors: a prompt sent with ``do_remote_decode`` is computed and its blocks
are held until they are sent; the answer carries ``kv_transfer_params``, with which the decoding engine fetches them.
Nothing travels here: both sides know how long it takes, and the executor says when it is over (``wire``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    SupportsHMA,
)
from vllm.v1.request import RequestStatus

from windtunnel.endpoint.vllm.progress import FETCH, HOLD


@dataclass
class Moves(KVConnectorMetadata):
    """Tokens of each request whose cache begins to move with this step."""

    sending: dict[str, int] = field(default_factory=dict)
    receiving: dict[str, int] = field(default_factory=dict)


class VirtualTransfer(KVConnectorBase_V1, SupportsHMA):
    """The scheduler's half of the connector; the executor plays the other."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._moves = Moves()

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        missing = request.num_prompt_tokens - num_computed_tokens
        return (missing, True) if _asks(request, FETCH) and missing > 0 else (0, False)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if not _asks(request, FETCH):
            return
        if num_external_tokens:
            self._moves.receiving[request.request_id] = num_external_tokens
        request.kv_transfer_params[FETCH] = False  # a request that is preempted later is computed anew here

    def build_connector_meta(self, scheduler_output: Any) -> Moves:
        moves, self._moves = self._moves, Moves()
        return moves

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        if not _asks(request, HOLD) or request.status != RequestStatus.FINISHED_LENGTH_CAPPED:
            return False, None
        self._moves.sending[request.request_id] = request.num_prompt_tokens
        return True, {FETCH: True, HOLD: False, "remote_engine_id": self._kv_transfer_config.engine_id}

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids)

    # What a worker would do

    def start_load_kv(self, *args: Any, **named: Any) -> None:
        return None

    def wait_for_layer_load(self, *args: Any, **named: Any) -> None:
        return None

    def save_kv_layer(self, *args: Any, **named: Any) -> None:
        return None

    def wait_for_save(self) -> None:
        return None


def _asks(request: Any, what: str) -> bool:
    return bool((request.kv_transfer_params or {}).get(what))
