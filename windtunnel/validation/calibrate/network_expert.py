"""Fits of dispatch and combine: DeepEP's normal and low-latency kernels, TensorRT-LLM's one-sided exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from windtunnel.network.engine import by_generation
from windtunnel.network.expert import ExpertCard, expert_s
from windtunnel.network.parameters import (
    EarlyExchange,
    ExpertKernel,
    ExpertParameters,
    Interval,
    LowLatency,
    switch_parameters,
)
from windtunnel.specs.catalogue import chip
from windtunnel.validation.calibrate.network_expert_points import (
    deepep_points,
    early_points,
    one_sided_points,
)
from windtunnel.validation.calibrate.network_fit import NO_INTERVAL, Vector, fit, quantiles, weights_of
from windtunnel.validation.calibrate.network_points import Point

TIMED = (9,)
"""Major compute capability of the cards that were timed: H100 and H800."""
_KERNEL = [20e9, 1.01, 0.05e-6]
_NORMAL = [*_KERNEL, *_KERNEL, 30e-6, 10, 1e9, 0.75, 0.9]
_LOW_LATENCY = [9e-6, 2e-6, 0.5, 0.5, 0.85, 1e-6, 5e9, 20e9]
_EARLY = [0.8, 0.8]
_ONE_SIDED = [20e-6, 30e-6, 15e-6, 0.5]


def _parameters(normal: Vector, low_latency: Vector, one_sided: Vector) -> ExpertParameters:
    v, w = ([float(value) for value in part] for part in (normal, one_sided))
    return ExpertParameters(
        dispatch=ExpertKernel(*v[:3]),
        combine=ExpertKernel(*v[3:6]),
        launch_s=v[6],
        chunk_copies=v[7],
        walk_bytes_per_s=v[8],
        link_efficiency=v[9],
        nic_efficiency=v[10],
        low_latency=LowLatency(*(float(value) for value in low_latency)),
        early=EarlyExchange(*_EARLY),
        one_sided_dispatch_s=w[0],
        one_sided_combine_s=w[1],
        one_sided_start_s=w[2],
        one_sided_efficiency=w[3],
        default_sms=20,
        fitted=TIMED,
        interval=NO_INTERVAL,
        interval_low_latency=NO_INTERVAL,
        interval_one_sided=NO_INTERVAL,
    )


def _card(point: Point) -> ExpertCard:
    sms = int(chip(point.chip).multiprocessors.value)
    latency = by_generation(switch_parameters().latency, point.capability[0])
    return ExpertCard(point.link, point.nic, sms, True, latency)


def _times(points: Sequence[Point], parameters: ExpertParameters) -> Vector:
    cards = {point.chip: _card(point) for point in points}
    return np.array([expert_s(p.kind, p.traffic, p.shape, cards[p.chip], parameters).seconds for p in points])


def fit_expert(folder: Path) -> tuple[ExpertParameters, tuple[Interval, ...]]:
    """Constants, and an interval each for normal, low latency and one-sided."""
    points = deepep_points(folder)
    kinds = (
        [p for p in points if not p.traffic.low_latency],
        [p for p in points if p.traffic.low_latency],
        one_sided_points(folder),
    )
    found = [np.array(start) for start in (_NORMAL, _LOW_LATENCY, _ONE_SIDED)]
    for place, chosen in enumerate(kinds):
        measured = np.array([p.seconds for p in chosen])
        weights = np.ones(len(chosen)) if place == 2 else weights_of(chosen)

        def predict(v: Vector, place: int = place, chosen: Sequence[Point] = chosen) -> Vector:
            return _times(chosen, _parameters(*(v if i == place else x for i, x in enumerate(found))))

        found[place] = fit(found[place].tolist(), predict, measured, weights)
    fitted = _parameters(*found)
    fitted = replace(fitted, early=_fit_early(folder, fitted))
    return fitted, tuple(quantiles(_times(chosen, fitted), chosen) for chosen in kinds)


def _fit_early(folder: Path, fitted: ExpertParameters) -> EarlyExchange:
    """What the first releases reached of the network card; all else as today."""
    points = early_points(folder)
    measured = np.array([point.seconds for point in points])

    def predict(v: Vector) -> Vector:
        return _times(points, replace(fitted, early=EarlyExchange(float(v[0]), float(v[1]))))

    return EarlyExchange(*(float(value) for value in fit(_EARLY, predict, measured, np.ones(len(points)))))
