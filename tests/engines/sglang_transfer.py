"""Caches between SGLang's prompt and decode servers in virtual time: manager, sender and receiver of one connection.

SGLang's own queues decide (``disaggregation/prefill.py``, ``decode.py``); this stands where its fake transfer backend
stands, but a handshake is seen when the other side has made it, and pages take their time on one wire, in the order in
which they were handed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from sglang.srt.disaggregation import decode, prefill
from sglang.srt.disaggregation.base.conn import KVPoll
from sglang.srt.disaggregation.fake.conn import FakeKVReceiver, FakeKVSender
from sglang.srt.disaggregation.utils import KVClassType

NEVER = float("inf")


@dataclass
class Room:
    """One request's handover. ``asked_s``: the decode side has pages for it; ``done_s``: its cache is there."""

    asked_s: float = NEVER
    done_s: float = NEVER
    place: int = -1  # of its first token on the decode side
    sends: list[list[float]] = field(default_factory=list)


class Wire:
    """What both sides share: rooms, and one wire from prompts to outputs."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.page = options["page_size"]
        self.fixed_s, self.token_s = options["wire_fixed_s"], options["wire_token_s"]
        self.rooms: dict[int, Room] = {}
        self.free_s = 0.0
        self.buffers: Any = None  # the decode side's first tokens

    def room(self, number: int) -> Room:
        return self.rooms.setdefault(number, Room())

    def send(self, room: Room, at_s: float, pages: int) -> float:
        self.free_s = max(self.free_s, at_s) + self.fixed_s + self.token_s * pages * self.page
        room.sends.append([at_s, pages])
        return self.free_s


class Manager(SimpleNamespace):
    """One side's: the ``wire``, and the ``clock`` of its engine."""

    enable_deferred_decode_kv_release = False
    enable_all_cp_ranks_for_transfer = False


class Sender(FakeKVSender):
    """The prompt side's end of a room."""

    _early_send_wait_event: Any = None

    def poll(self) -> KVPoll:
        room, now = self.kv_mgr.wire.room(self.bootstrap_room), self.kv_mgr.clock.now
        if room.done_s <= now:
            return KVPoll.Success
        if self.has_sent:
            return KVPoll.Transferring
        return KVPoll.WaitingForInput if room.asked_s <= now else KVPoll.Bootstrapping

    def init(self, num_kv_indices: int, aux_index: int | None = None) -> None:
        self.pages, self.aux_index = num_kv_indices, aux_index

    def send(self, kv_indices: Any, state_indices: Any = None, num_kv_tokens: int | None = None) -> None:
        self.has_sent = True
        wire, at_s = self.kv_mgr.wire, self.kv_mgr.clock.now
        if self._early_send_wait_event is not None:
            at_s = max(at_s, self._early_send_wait_event.at_s)
            self._early_send_wait_event = None
        room = wire.room(self.bootstrap_room)
        self.pages -= len(kv_indices)
        done_s = wire.send(room, at_s, len(kv_indices))
        if self.pages == 0:
            room.done_s = done_s
            for name in ("output_ids", "cached_tokens", "bootstrap_room"):
                mine = getattr(self.kv_mgr.buffers, name)[self.aux_index]
                getattr(wire.buffers, name)[room.place] = mine


class Receiver(FakeKVReceiver):
    """The decode side's end of a room."""

    def __init__(self, mgr: Manager, bootstrap_addr: str, bootstrap_room: int | None = None) -> None:
        super().__init__(mgr, bootstrap_addr, bootstrap_room)
        self.room = mgr.wire.room(bootstrap_room)

    def poll(self) -> KVPoll:
        if not self.has_sent_metadata:
            return KVPoll.WaitingForInput if self.bootstrap_done else KVPoll.Bootstrapping
        return KVPoll.Success if self.room.done_s <= self.kv_mgr.clock.now else KVPoll.Transferring

    def send_metadata(self, kv_indices: Any, aux_index: int | None = None, *_: Any, **__: Any) -> None:
        self.has_sent_metadata = True
        self.room.asked_s, self.room.place = self.kv_mgr.clock.now, aux_index


class Prealloc(decode.DecodePreallocQueue):
    """SGLang's own, with our manager."""

    def _init_kv_manager(self) -> Manager:
        table = {"prompts:1": SimpleNamespace(dp_size=1)}
        return Manager(
            wire=self.scheduler.wire, clock=self.scheduler.clock, buffers=self.metadata_buffers,
            prefill_info_table=table, kv_args=SimpleNamespace(state_types=[]),
        )  # fmt: skip


class Bootstrap(prefill.PrefillBootstrapQueue):
    """SGLang's own, with our manager."""

    def _init_kv_manager(self) -> Manager:
        return Manager(
            wire=self.scheduler.wire, clock=self.scheduler.clock, buffers=self.metadata_buffers,
            kv_args=SimpleNamespace(state_types=[]),
        )  # fmt: skip


class Event:
    """When what a stream has been given is computed."""

    at_s = 0.0

    def record(self, stream: Any) -> None:
        self.at_s = stream.free_s


def installed() -> None:
    """SGLang finds these classes and one process where it looks for a cluster."""
    kinds = {KVClassType.SENDER: Sender, KVClassType.RECEIVER: Receiver}
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    group = torch.distributed.group.WORLD
    alone = SimpleNamespace(
        attn_tp_group=SimpleNamespace(cpu_group=group), tp_rank=0, pp_rank=0, pp_size=1, attn_tp_rank=0, dp_rank=0,
        enable_dsa_cache_layer_split=False,
    )  # fmt: skip
    for module in (decode, prefill):
        module.get_kv_class = lambda backend, kind: kinds[kind]
        module.get_parallel = lambda: alone
    torch.cuda.Event = Event
