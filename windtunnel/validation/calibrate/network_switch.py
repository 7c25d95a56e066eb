"""Fits of collectives over NVLink switches: NCCL's rings and exchanges, and the inference engines' own all-reduce.

Intervals of cards that were not timed come from leaving a generation out: fitted without its rows, but for what is
known of Blackwell, too (eight cards and large messages), then predicted as Blackwell is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from windtunnel.network.engine import Engine, EngineParameters, engine_s
from windtunnel.network.nccl import Way
from windtunnel.network.parameters import (
    EngineFit,
    Interval,
    PairParameters,
    Protocol,
    Regime,
    SwitchParameters,
)
from windtunnel.network.switch import switch_s
from windtunnel.validation.calibrate.network_fit import NO_INTERVAL, Vector, fit, quantiles
from windtunnel.validation.calibrate.network_points import (
    SETTLED_BYTES,
    EnginePoint,
    Point,
    engine_call_s,
    engine_points,
    other_switch_points,
    switch_points,
)

TIMED = (8, 9)
"""Major compute capabilities whose cards were timed at every size: A100 and H100."""
_LATENCIES = (8, 10)  # 9 is the unit
_PAIRS = [0.9e-6, 0.35, 1.5e-6, 0.9, 1.2]
_START = [
    9e-6, 5e-6, 1.5, 1.5,  # launches, latency factors
    0.7e-6, 0.34, 0.4,  # LL
    7e-6, 0.8e-6, 0.65, 0.6,  # LL128
    8e-6, 3.6e-6, 0.8, 0.8, 1.5,  # Simple, local
    9e-6, 0.64, 0.56,  # in the switch
    *_PAIRS, *_PAIRS,
]  # fmt: skip


def _switch(x: Vector, without: int = 0) -> SwitchParameters:
    v = [float(value) for value in x]
    exchange, send = (
        PairParameters(Regime(p[0], p[1]), Regime(p[2], p[3]), p[4]) for p in (v[19:24], v[24:29])
    )
    launch_s, latency = (
        dict(zip(TIMED, v[:2], strict=True)),
        {9: 1.0} | dict(zip(_LATENCIES, v[2:4], strict=True)),
    )
    for known in (launch_s, latency):
        known.pop(without, None)
    return SwitchParameters(
        launch_s=launch_s,
        latency=dict(sorted(latency.items())),
        protocols={
            Way.LL: Protocol(0.0, v[4], v[5], v[6]),
            Way.LL128: Protocol(v[7], v[8], v[9], v[10]),
            Way.SIMPLE: Protocol(v[11], v[12], v[13], v[14]),
        },
        local_efficiency=v[15],
        exchange=exchange,
        send=send,
        in_switch={9: Regime(v[16], v[17]), 10: Regime(v[16], v[18])},
        interval=NO_INTERVAL,
        interval_transfer=NO_INTERVAL,
        fitted=tuple(launch_s),
    )


def switch_times(parameters: SwitchParameters, points: Sequence[Point]) -> Vector:
    """Predicted seconds."""
    return np.array(
        [
            switch_s(p.kind, p.bytes, p.ranks, p.link, p.capability[0], p.in_switch, parameters).seconds
            for p in points
        ]
    )


def _as_line(point: Point) -> bool:
    """Whether a line through nccl-tests of eight cards would tell it."""
    return point.ranks == 8 and point.bytes >= SETTLED_BYTES


def _fitted(points: Sequence[Point], without: int = 0) -> SwitchParameters:
    """``without``: a generation whose cards are known by their large messages only."""
    kept = [point for point in points if point.capability[0] != without or _as_line(point)]
    measured = np.array([point.seconds for point in kept])
    weights = np.array([point.weight * (1.5 if point.bytes >= 1 << 20 else 0.7) for point in kept])
    x = fit(_START, lambda v: switch_times(_switch(v), kept), measured, weights)
    return _switch(x, without)


def fit_switch(folder: Path) -> tuple[SwitchParameters, Interval, Interval]:
    """Constants, the interval on generations that were timed, and that on others.

    The first also holds rows of other releases and benchmarks, which are not fitted.
    """
    points = switch_points(folder)
    parameters = _fitted(points)
    known = [p for p in points if p.capability[0] in TIMED] + other_switch_points(folder)
    far: list[Vector] = []
    left_out: list[Point] = []
    for generation in TIMED:
        others = [p for p in points if p.capability[0] == generation]
        far.append(switch_times(_fitted(points, generation), others))
        left_out += others
    return (
        parameters,
        quantiles(switch_times(parameters, known), known),
        quantiles(np.concatenate(far), left_out),
    )


Calls = tuple[Mapping[Engine, Mapping[int, float]], float]
_ENGINES = (Engine.VLLM, Engine.SGLANG, Engine.TRTLLM)
_ENGINE_START = [3e-6] * (len(_ENGINES) * len(TIMED)) + [0.2e-6, 0.6, 5e-6, 0.7, 0.5, 5e-6, 0.45]


def _engines(x: Vector, latency: Mapping[int, float], calls: Calls, without: int = 0) -> EngineParameters:
    launches = np.asarray(x[: len(_ENGINES) * len(TIMED)]).reshape(len(_ENGINES), len(TIMED))
    launch_s = {
        engine: {g: float(value) for g, value in zip(TIMED, row, strict=True) if g != without}
        for engine, row in zip(_ENGINES, launches, strict=True)
    }
    peer_s, one_shot, two_shot_s, two_shot, written, symmetric_s, symmetric = (
        float(value) for value in x[launches.size :]
    )
    call_s, symmetric_call_s = calls
    return EngineParameters(
        launch_s=launch_s,
        latency=latency,
        peer_s=peer_s,
        one_shot_efficiency=one_shot,
        two_shot_s=two_shot_s,
        two_shot_efficiency=two_shot,
        written_efficiency=written,
        symmetric_s=symmetric_s,
        symmetric_efficiency=symmetric,
        call_s=call_s,
        symmetric_call_s=symmetric_call_s,
    )


def _engine_times(parameters: EngineParameters, points: Sequence[EnginePoint]) -> Vector:
    found = (engine_s(p.engine, p.bytes, p.ranks, p.link, p.capability, parameters) for p in points)
    return np.array([time.seconds for time in found if time is not None])


def fit_engines(folder: Path, latency: Mapping[int, float]) -> EngineFit:
    """The engines' own all-reduce in CUDA graphs, where it is theirs; calls without graphs are medians.

    ``latency``: of the links, by generation, from NCCL's fit.
    """
    points, calls = engine_points(folder), engine_call_s(folder)

    def fitted(without: int = 0) -> EngineParameters:
        kept = [point for point in points if point.capability[0] != without]
        measured = np.array([point.seconds for point in kept])
        x = fit(
            _ENGINE_START,
            lambda v: _engine_times(_engines(v, latency, calls), kept),
            measured,
            np.ones(len(kept)),
        )
        return _engines(x, latency, calls, without)

    parameters = fitted()
    far: list[Vector] = []
    left_out: list[EnginePoint] = []
    for generation in TIMED:
        others = [p for p in points if p.capability[0] == generation]
        far.append(_engine_times(fitted(generation), others))
        left_out += others
    return EngineFit(
        parameters,
        quantiles(_engine_times(parameters, points), points),
        quantiles(np.concatenate(far), left_out),
        TIMED,
    )
