"""The inference engines' own all-reduce inside a node of NVLink switches, and when they call the library instead.

One shot: every rank reads all of its peers' messages. Two shots: each reduces its share, then all gather. Where
memory is symmetric and switches reduce (vLLM on Hopper and Blackwell), the switch does it in one pass. TensorRT-LLM
writes to its peers, who watch for the data (Lamport), at a lower rate.
Sizes at which an engine goes from one to the next are its own code's: vLLM ``custom_all_reduce.cuh`` and
``all_reduce_utils.py`` SGLang's kernel follows up to limits seen as steps in the calibration tables;
TensorRT-LLM ``customAllReduceUtils.h`` (1.3), rows of 4,096 elements, and on Ampere the steps of 1.0.
Not here: NCCL (``switch.py``), cards behind PCIe (``pcie.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import exp, fsum, log

from windtunnel.network.transfer import Transfer

KIB, MIB = 1 << 10, 1 << 20

_ONE_SHOT_BELOW = {4: 512 * KIB, 8: 256 * KIB}
"""By group size up to which it holds; two ranks always take one shot."""
_VLLM_OWN_BELOW = {
    (9, 0): (8 * MIB, 8 * MIB, 256 * KIB),
    (10, 0): (2 * MIB, 2 * MIB, MIB),
    (10, 3): (4 * MIB,) * 3,
}
"""By compute capability, for groups of two, four and eight; 8 MiB elsewhere. Beyond: symmetric memory."""
_VLLM_SYMMETRIC_TO = {
    (9, 0): (64 * MIB, 32 * MIB, 64 * MIB),
    (10, 0): (8 * MIB, 32 * MIB, 128 * MIB),
    (10, 3): (4 * MIB, 32 * MIB, 64 * MIB),
}
_SGLANG_TO = {8: 8 * MIB, 9: 16 * MIB}
_TRTLLM_ONE_TO = {8: (MIB, MIB, 512 * KIB), 9: (16 * MIB, MIB, 512 * KIB), 10: (16 * MIB, 4 * MIB, 2 * MIB)}
_TRTLLM_TWO_TO = {8: (0, 0, 0), 9: (0, 8 * MIB, 4 * MIB), 10: (0, 16 * MIB, 32 * MIB)}


class Engine(StrEnum):
    """Engines whose all-reduce is known."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRTLLM = "trtllm"


class Shot(StrEnum):
    """How an engine's own all-reduce moves data."""

    ONE = "one-shot"
    TWO = "two-shot"
    SYMMETRIC = "symmetric memory"
    LIBRARY = "library"


@dataclass(frozen=True, slots=True)
class EngineParameters:
    """Fitted constants, shared by the engines but for the launch.

    Attributes:
        launch_s: launch and first barrier in a graph, by engine and major compute capability.
        latency: of the links, by capability, as NCCL's fit has it: launches of generations not timed follow it.
        peer_s: barrier, for each peer. two_shot_s: second barrier. ``*_efficiency``: share of the card's links.
        written_efficiency: of TensorRT-LLM's writes.
        symmetric_s, symmetric_efficiency: one pass through the switch, message over link rate.
        call_s: host time of a call without a graph, by engine and capability; symmetric_call_s: of vLLM's other path.
    """

    launch_s: Mapping[Engine, Mapping[int, float]]
    latency: Mapping[int, float]
    peer_s: float
    one_shot_efficiency: float
    two_shot_s: float
    two_shot_efficiency: float
    written_efficiency: float
    symmetric_s: float
    symmetric_efficiency: float
    call_s: Mapping[Engine, Mapping[int, float]]
    symmetric_call_s: float


def by_generation(
    known: Mapping[int, float], capability: int, scale: Mapping[int, float] | None = None
) -> float:
    """A figure of cards of one major compute capability; of others: what is typical of those known.

    ``scale``: what the figure is proportional to, by capability, where that is known.
    """
    if capability in known:
        return known[capability]
    per = (
        {g: by_generation(scale, g) for g in (*known, capability)}
        if scale
        else dict.fromkeys((*known, capability), 1.0)
    )
    typical = exp(fsum(log(value / per[g]) for g, value in known.items()) / len(known))
    return typical * per[capability]


def _of_group(limits: tuple[int, ...], ranks: int) -> int:
    return limits[0 if ranks <= 2 else 1 if ranks <= 4 else 2]


def shots(engine: Engine, ranks: int, capability: tuple[int, int]) -> tuple[tuple[Shot, int], ...]:
    """What ``engine`` takes as messages grow, each with its last size in bytes; beyond, it calls the library."""
    if ranks > max(_ONE_SHOT_BELOW):
        return ()
    generation, symmetric = max(8, min(10, capability[0])), 0
    one = _ONE_SHOT_BELOW[4 if ranks <= 4 else 8] - 1 if ranks > 2 else 1 << 62
    if engine is Engine.TRTLLM:
        one, two = _of_group(_TRTLLM_ONE_TO[generation], ranks), _of_group(_TRTLLM_TWO_TO[generation], ranks)
    elif engine is Engine.SGLANG:
        two = _SGLANG_TO[min(9, generation)]
        one = min(one, two)
    else:
        two = _of_group(_VLLM_OWN_BELOW.get(capability, (8 * MIB,) * 3), ranks) - 1
        one = min(one, two)
        symmetric = _of_group(_VLLM_SYMMETRIC_TO.get(capability, (0, 0, 0)), ranks)
    found, end = [(Shot.ONE, one)], one
    for shot, last in ((Shot.TWO, two), (Shot.SYMMETRIC, symmetric)):
        if last > end:
            found.append((shot, last))
            end = last
    return tuple(found)


def shot_of(engine: Engine, message_bytes: float, ranks: int, capability: tuple[int, int]) -> Shot:
    """What ``engine`` takes for a message on cards of ``capability``."""
    taken = shots(engine, ranks, capability)
    return next((shot for shot, last in taken if message_bytes <= last), Shot.LIBRARY)


def engine_s(
    engine: Engine,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    capability: tuple[int, int],
    parameters: EngineParameters,
) -> Transfer | None:
    """Seconds in a CUDA graph; None where the engine calls the library."""
    launch_s = by_generation(parameters.launch_s[engine], capability[0], parameters.latency)

    def at(shot: Shot, size: float) -> Transfer:
        return _shot_s(shot, engine, size, ranks, link_bytes_per_s, launch_s, parameters)

    before = 0.0
    for shot, last in shots(engine, ranks, capability):
        if message_bytes <= last:
            time = at(shot, message_bytes)
            # a step down at the engine's own threshold is not followed: more bytes are never faster here
            return time._replace(seconds=max(time.seconds, before))
        before = max(before, at(shot, last).seconds)
    return None


def _shot_s(
    shot: Shot,
    engine: Engine,
    message_bytes: float,
    ranks: int,
    link_bytes_per_s: float,
    launch_s: float,
    parameters: EngineParameters,
) -> Transfer:
    if shot is Shot.SYMMETRIC:
        wire_s = message_bytes / (link_bytes_per_s * parameters.symmetric_efficiency)
        return Transfer(launch_s + parameters.symmetric_s + wire_s, wire_s, shot.value)
    shares = (parameters.one_shot_efficiency, parameters.two_shot_efficiency)
    one_share, two_share = (parameters.written_efficiency,) * 2 if engine is Engine.TRTLLM else shares
    barrier_s = launch_s + (ranks - 1) * parameters.peer_s
    if shot is Shot.ONE:
        wire_s = (ranks - 1) * message_bytes / (link_bytes_per_s * one_share)
        return Transfer(barrier_s + wire_s, wire_s, shot.value)
    wire_s = 2 * (ranks - 1) / ranks * message_bytes / (link_bytes_per_s * two_share)
    return Transfer(barrier_s + parameters.two_shot_s + wire_s, wire_s, shot.value)


def call_s(
    engine: Engine,
    message_bytes: float,
    ranks: int,
    capability: tuple[int, int],
    parameters: EngineParameters,
) -> float:
    """Host seconds of a call from Python without a graph."""
    if shot_of(engine, message_bytes, ranks, capability) is Shot.SYMMETRIC:
        return parameters.symmetric_call_s
    known = parameters.call_s.get(engine) or parameters.call_s[Engine.VLLM]
    # hosts and releases of Hopper's time and later are alike: Ampere's tables are of older ones
    return known[min(max(capability[0], min(known)), max(known))]
