"""What every site of a program costs on one card: host time, device time, and what kind of thing it does.

A site is priced once; the replay then only adds. Collectives get their time from a function of the caller
(the network part); on groups of one card they cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from windtunnel.errors import WindtunnelError
from windtunnel.estimate import Estimate, Source
from windtunnel.program import marks
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup
from windtunnel.program.work import Family, Work


class KernelPrice(Protocol):
    """What ``cost.kernel_time.KernelTime`` offers."""

    @property
    def seconds(self) -> float: ...
    @property
    def low_s(self) -> float: ...
    @property
    def high_s(self) -> float: ...
    @property
    def source(self) -> Source: ...
    @property
    def limit(self) -> str: ...
    @property
    def formula(self) -> str: ...


class PriceModel(Protocol):
    """What the timeline needs of ``cost.model.CostModel``."""

    def kernel_times(self, works: Sequence[Work]) -> Sequence[KernelPrice]: ...
    def host_time_s(self, work: Work) -> float: ...


CollectiveTime = Callable[[OpSpec, Work, ProcessGroup], Estimate]
"""Seconds of one collective on its group, alone on the wire."""


class Act(IntEnum):
    """What happens when an operation is issued."""

    KERNEL = 0  # device work that fills the card
    SMALL_KERNEL = 1  # device work that leaves room beside it: bound by latency, or a copy engine
    HOST = 2  # host time only
    EVENT_RECORD = 3
    EVENT_WAIT = 4
    EVENT_SYNCHRONIZE = 5
    STREAM_SYNCHRONIZE = 6
    SYNCHRONIZE = 7
    ITEM = 8
    HOST_DELAY = 9
    GRAPH_LAUNCH = 10
    GRAPH_END = 11
    COLLECTIVE = 12
    WAIT_COLLECTIVE = 13


_MARK_ACTS = {
    marks.EVENT_RECORD: Act.EVENT_RECORD,
    marks.EVENT_WAIT: Act.EVENT_WAIT,
    marks.EVENT_SYNCHRONIZE: Act.EVENT_SYNCHRONIZE,
    marks.STREAM_SYNCHRONIZE: Act.STREAM_SYNCHRONIZE,
    marks.SYNCHRONIZE: Act.SYNCHRONIZE,
    marks.ITEM: Act.ITEM,
    marks.HOST_DELAY: Act.HOST_DELAY,
    marks.GRAPH_LAUNCH: Act.GRAPH_LAUNCH,
    marks.GRAPH_END: Act.GRAPH_END,
    marks.WAIT_COLLECTIVE: Act.WAIT_COLLECTIVE,
}
_ITEM_BYTES = 8.0
_MARK_ARGUMENT = {
    Act.EVENT_RECORD: "event",
    Act.EVENT_WAIT: "event",
    Act.EVENT_SYNCHRONIZE: "event",
    Act.HOST_DELAY: "seconds",
    Act.WAIT_COLLECTIVE: "work",
}


@dataclass(frozen=True, slots=True)
class OpPrice:
    """One distinct operation, priced.

    Attributes:
        host_s: host time until it is issued. seconds, low_s, high_s: device time with its 80 % interval.
        argument: number of the event or collective, or seconds of a delay; -1 without one.
        group: number of the process group of a collective. blocks: whether the stream waits for it.
    """

    act: Act
    host_s: float
    seconds: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    source: Source = Source.ANALYTIC
    limit: str = ""
    formula: str = ""
    argument: float = -1.0
    group: int = -1
    blocks: bool = False


def price_ops(
    specs: Sequence[OpSpec],
    works: Sequence[Work],
    model: PriceModel,
    groups: Sequence[ProcessGroup] = (),
    collective_time: CollectiveTime | None = None,
) -> list[OpPrice]:
    """Prices of distinct operations, in order.

    Raises:
        WindtunnelError: E510, a collective over several cards without a network; and what the model raises.
    """
    priced_works = [
        _item_work(work) if spec.base_name == marks.ITEM else work for spec, work in zip(specs, works)
    ]
    times = model.kernel_times(priced_works)
    prices = []
    for spec, work, time in zip(specs, priced_works, times):
        if spec.base_name in _MARK_ACTS:
            prices.append(_mark(spec, work, time, model))
        elif work.family is Family.COLLECTIVE:
            prices.append(_collective(spec, work, model, groups, collective_time))
        else:
            prices.append(_kernel(work, time, model))
    return prices


def _kernel(work: Work, time: KernelPrice, model: PriceModel) -> OpPrice:
    host_s = model.host_time_s(work)
    if work.kernels == 0:
        return OpPrice(Act.HOST, host_s)
    small = work.family is Family.HOST_COPY or time.limit == "latency"
    act = Act.SMALL_KERNEL if small else Act.KERNEL
    return OpPrice(act, host_s, time.seconds, time.low_s, time.high_s, time.source, time.limit, time.formula)


def _item_work(work: Work) -> Work:
    size = work.bytes_read or _ITEM_BYTES
    return Work(family=Family.HOST_COPY, bytes_read=size, bytes_written=size, variant="pageable")


def _mark(spec: OpSpec, work: Work, time: KernelPrice, model: PriceModel) -> OpPrice:
    act = _MARK_ACTS[spec.base_name]
    if act is Act.ITEM:
        return OpPrice(
            act,
            model.host_time_s(work),
            time.seconds,
            time.low_s,
            time.high_s,
            time.source,
            time.limit,
            time.formula,
        )
    argument = spec.attribute(_MARK_ARGUMENT.get(act, ""), -1)
    number = float(argument) if isinstance(argument, (int, float)) and math.isfinite(argument) else -1.0
    return OpPrice(act, model.host_time_s(work), argument=number)


def _collective(
    spec: OpSpec,
    work: Work,
    model: PriceModel,
    groups: Sequence[ProcessGroup],
    collective_time: CollectiveTime | None,
) -> OpPrice:
    number = spec.attribute("work", -1)
    argument = float(number) if isinstance(number, int) else -1.0
    host_s = model.host_time_s(work)
    if work.kernels == 0:  # functional collectives are waited for by an operation of their own
        return OpPrice(Act.WAIT_COLLECTIVE, host_s, argument=argument)
    index = spec.attribute("group", 0)
    group_number = index if isinstance(index, int) else 0
    group = groups[group_number] if 0 <= group_number < len(groups) else ProcessGroup((0,))
    blocks = spec.attribute("async_op") is False
    if len(group.ranks) <= 1:
        return OpPrice(Act.COLLECTIVE, host_s, argument=argument, group=group_number, blocks=blocks)
    if collective_time is None:
        raise WindtunnelError(
            "E510",
            f"the program runs {spec.base_name} over {len(group.ranks)} cards, and one card has no network",
            hint="predict it on a cluster, for example --on mtt-s5000:8",
            values={"collective": spec.base_name, "ranks": len(group.ranks)},
        )
    time = collective_time(spec, work, group)
    return OpPrice(
        Act.COLLECTIVE,
        host_s,
        time.value,
        time.low,
        time.high,
        time.source,
        "network",
        "",
        argument,
        group_number,
        blocks,
    )
