"""Fit the constants of ``windtunnel/network/parameters/*.toml`` on the calibration collectives.

    python -m windtunnel.validation.calibrate.network MEASUREMENTS/calibration OUT_DIR

Least squares on log ratios with a soft loss; residual quantiles become the intervals. Needs scipy. The models
themselves are those of ``windtunnel/network``: nothing is fitted that is not used, nothing used is elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from windtunnel.estimate import Source
from windtunnel.network.expert import expert_s
from windtunnel.network.fabric import fabric_s
from windtunnel.network.mesh import mesh_s
from windtunnel.network.parameters import (
    ExpertKernel,
    ExpertParameters,
    FabricParameters,
    Interval,
    MeshParameters,
    Regime,
    RingParameters,
    SwitchParameters,
)
from windtunnel.network.switch import custom_all_reduce_s, switch_s
from windtunnel.validation.calibrate.network_points import (
    GENERATIONS,
    Point,
    custom_points,
    deepep_points,
    fabric_points,
    mesh_points,
    one_sided_points,
    switch_points,
)
from windtunnel.validation.calibrate.network_write import write_tables

Vector = npt.NDArray[np.float64]
NO_INTERVAL = Interval(1, 1, 1, 1)
SMALL_EXCHANGE = (0.5, 3.0)
"""Measured over predicted of exchanges below 1 MiB on a mesh: none was measured in public."""


def fit(
    start: Sequence[float], predict: Callable[[Vector], Vector], measured: Vector, weights: Vector
) -> Vector:
    """Parameters that minimise weighted log ratios, each within a factor of 8 of its start.

    Starts are physical (microseconds a hop, shares of a link); a share of a link stays below 1.
    """
    first = np.asarray(start, dtype=np.float64)
    top = np.where((first > 0.01) & (first < 1), 1.0, first * 8)

    def residual(logs: Vector) -> Vector:
        return np.asarray(weights * np.log(predict(np.exp(logs)) / measured))

    solution = least_squares(
        residual,
        np.log(first),
        bounds=(np.log(first / 8), np.log(top)),
        loss="soft_l1",
        f_scale=0.1,
        diff_step=1e-3,
        max_nfev=80,
    )
    return np.asarray(np.exp(solution.x))


def quantiles(predicted: Vector, points: Sequence[Point]) -> Interval:
    """Measured over predicted at 10 % and 90 %, below and above 1 MiB; at least 2 % either way."""
    ratio = np.array([point.seconds for point in points]) / predicted
    large = np.array([point.bytes >= 1 << 20 for point in points])
    small = ratio[~large] if (~large).any() else ratio
    big = ratio[large] if large.any() else ratio
    values = [float(np.quantile(part, q)) for part in (small, big) for q in (0.1, 0.9)]
    return Interval(min(values[0], 0.98), max(values[1], 1.02), min(values[2], 0.98), max(values[3], 1.02))


def weights_of(points: Sequence[Point]) -> Vector:
    """Large messages count double: they carry the time."""
    return np.array([1.5 if point.bytes >= 1 << 20 else 0.7 for point in points])


_RINGS = ("all_gather", "all_reduce", "all_to_all", "send")
_RING_KINDS = {
    "all_gather": "all_gather",
    "reduce_scatter": "all_gather",
    "all_reduce": "all_reduce",
    "all_to_all": "all_to_all",
    "send": "send",
}


def _switch(x: Vector, custom: Vector) -> SwitchParameters:
    rings = {
        name: RingParameters(Regime(r[0], r[1]), Regime(r[2], r[3]), r[4])
        for name, r in zip(_RINGS, x[5:].reshape(-1, 5), strict=True)
    }
    rings["reduce_scatter"] = rings["all_gather"]
    return SwitchParameters(
        launch_s={"a100-80g": float(x[0]), "h100-sxm": float(x[1])},
        default_launch_s=float(x[0] + x[1]) / 2,
        rings=rings,
        in_switch={9: Regime(float(x[2]), float(x[3])), 10: Regime(float(x[2]), float(x[4]))},
        custom_launch_s=float(custom[0]),
        custom_one_shot=Regime(float(custom[1]), float(custom[2])),
        custom_two_shot=Regime(float(custom[3]), float(custom[4])),
        interval=NO_INTERVAL,
        interval_transfer=NO_INTERVAL,
        interval_custom=NO_INTERVAL,
        fitted_chips=("a100-80g", "h100-sxm"),
    )


def _switch_times(parameters: SwitchParameters, points: Sequence[Point]) -> Vector:
    return np.array(
        [
            switch_s(p.kind, p.bytes, p.ranks, p.link, p.chip, GENERATIONS[p.chip], parameters)[0]
            for p in points
        ]
    )


def fit_switch(folder: Path) -> tuple[SwitchParameters, Interval, Interval, Interval]:
    """NVLink switch: launch by chip, four rings, NVLS, engines' own all-reduce; three intervals."""
    points = switch_points(folder)
    measured = np.array([p.seconds for p in points])
    ring = [0.9e-6, 0.35, 1.5e-6, 0.9, 1.2]
    start = [10e-6, 5e-6, 10e-6, 0.6, 0.6, *ring, *ring, *ring, *ring]
    unused = np.array([2e-6, 1e-6, 0.5, 1e-6, 0.5])
    x = fit(start, lambda v: _switch_times(_switch(v, unused), points), measured, weights_of(points))
    custom = custom_points(folder)
    target = np.array([p.seconds for p in custom])

    def custom_times(v: Vector) -> Vector:
        parameters = _switch(x, v)
        return np.array([custom_all_reduce_s(p.bytes, p.ranks, p.link, parameters)[0] for p in custom])

    y = fit([2e-6, 1e-6, 0.5, 2e-6, 0.6], custom_times, target, weights_of(custom))
    times = _switch_times(_switch(x, y), points)
    return (
        _switch(x, y),
        quantiles(times, points),
        _transfer_interval(points, measured),
        quantiles(custom_times(y), custom),
    )


def _transfer_interval(points: Sequence[Point], measured: Vector) -> Interval:
    """Residuals on each chip when the other alone was fitted: what an unmeasured chip should expect."""
    unused = np.array([2e-6, 1e-6, 0.5, 1e-6, 0.5])
    ring = [0.9e-6, 0.35, 1.5e-6, 0.9, 1.2]
    ratios: list[Vector] = []
    left_out: list[Point] = []
    for chip in ("a100-80g", "h100-sxm"):
        kept = [p for p in points if p.chip != chip]
        others = [p for p in points if p.chip == chip]
        seconds = np.array([p.seconds for p in kept])
        start = [7e-6, 7e-6, 10e-6, 0.6, 0.6, *ring, *ring, *ring, *ring]

        def one_launch(v: Vector, kept: list[Point] = kept) -> Vector:
            same = np.concatenate([[v[0], v[0]], v[2:]])
            return _switch_times(_switch(same, unused), kept)

        x = fit(start, one_launch, seconds, weights_of(kept))
        x[1] = x[0]
        ratios.append(_switch_times(_switch(x, unused), others))
        left_out += others
    return quantiles(np.concatenate(ratios), left_out)


def fit_mesh(folder: Path) -> tuple[MeshParameters, Interval]:
    """S5000: pair efficiency and pipeline fill from the MCCL points, copies apart; small exchanges are assumed."""
    points = mesh_points(folder)
    found = fit_mesh_points(points)
    low, high = SMALL_EXCHANGE
    return found, replace(quantiles(_mesh_times(points, found), points), small_low=low, small_high=high)


def fit_mesh_points(points: Sequence[Point]) -> MeshParameters:
    """The constants of a mesh from exchanges on it."""

    def parameters(v: Vector) -> MeshParameters:
        # MCCL's latency is not measured in public: SimuMax's S5000-shaped template says 35 us
        return MeshParameters(35e-6, v[4], v[0], v[1], v[2], v[3], NO_INTERVAL, Source.CALIBRATED)

    measured = np.array([p.seconds for p in points])
    start = [0.5e-6, 0.6, 0.64, 0.75, 3e-6]
    return parameters(
        fit(start, lambda v: _mesh_times(points, parameters(v)), measured, np.ones(len(points)))
    )


def _mesh_times(points: Sequence[Point], parameters: MeshParameters) -> Vector:
    return np.array([mesh_s(p.kind, p.bytes, p.ranks, p.link / 7, parameters)[0] for p in points])


def fit_fabric(folder: Path) -> tuple[FabricParameters, Interval]:
    """Between nodes: send/recv over one 400G NIC, and the vendor's asymptotic all-reduce and all-to-all."""
    points = fabric_points(folder)

    def parameters(v: Vector) -> FabricParameters:
        return FabricParameters(v[0], v[1], v[2], v[3], Regime(v[1], v[4]), NO_INTERVAL)

    def times(v: Vector) -> Vector:
        p = parameters(v)
        return np.array([fabric_s(q.kind, q.bytes, q.shape, q.nic, p)[0] for q in points])

    measured = np.array([p.seconds for p in points])
    weights = np.array([8.0 if p.ranks > 2 else 1.0 for p in points])
    x = fit([15e-6, 10e-6, 0.93, 0.75, 0.75], times, measured, weights)
    return parameters(x), quantiles(times(x), points)


def fit_expert(folder: Path) -> tuple[ExpertParameters, tuple[Interval, ...]]:
    """DeepEP, normal and low latency, and TensorRT-LLM's one-sided exchange; an interval for each."""
    points = deepep_points(folder)
    one_sided = one_sided_points(folder)

    def parameters(v: Vector, w: Vector) -> ExpertParameters:
        dispatch, combine = (ExpertKernel(*(float(x) for x in part)) for part in (v[:3], v[3:6]))
        launch, chunk, walk, link, nic = (float(x) for x in v[6:11])
        low_latency_launch, low_latency_link, low_latency_nic = (float(x) for x in v[11:])
        dispatch_s, combine_s, start_s, one_sided_link = (float(x) for x in w)
        return ExpertParameters(
            dispatch=dispatch,
            combine=combine,
            launch_s=launch,
            chunk_copies=chunk,
            walk_bytes_per_s=walk,
            link_efficiency=link,
            nic_efficiency=nic,
            low_latency_launch_s=low_latency_launch,
            low_latency_link_efficiency=low_latency_link,
            low_latency_nic_efficiency=low_latency_nic,
            one_sided_dispatch_s=dispatch_s,
            one_sided_combine_s=combine_s,
            one_sided_start_s=start_s,
            one_sided_efficiency=one_sided_link,
            default_sms=20,
            fitted_chips=("h100-sxm", "h800"),
            interval=NO_INTERVAL,
            interval_low_latency=NO_INTERVAL,
            interval_one_sided=NO_INTERVAL,
        )

    def times_of(chosen: Sequence[Point], p: ExpertParameters) -> Vector:
        return np.array([expert_s(q.kind, q.traffic, q.shape, q.link, q.nic, True, p)[0] for q in chosen])

    unused = np.array([20e-6, 30e-6, 15e-6, 0.5])
    kernel = [20e9, 1.01, 0.05e-6]
    measured = np.array([p.seconds for p in points])
    x = fit(
        [*kernel, *kernel, 30e-6, 10, 1e9, 0.75, 0.9, 10e-6, 0.5, 0.85],
        lambda v: times_of(points, parameters(v, unused)),
        measured,
        weights_of(points),
    )
    target = np.array([p.seconds for p in one_sided])
    y = fit(unused.tolist(), lambda w: times_of(one_sided, parameters(x, w)), target, np.ones(len(one_sided)))
    fitted = parameters(x, y)
    return fitted, tuple(
        quantiles(times_of(chosen, fitted), chosen)
        for chosen in (
            [p for p in points if not p.traffic.low_latency],
            [p for p in points if p.traffic.low_latency],
            one_sided,
        )
    )


def main(arguments: Sequence[str]) -> int:
    """Fit all four families and write their tables."""
    folder, out = Path(arguments[0]), Path(arguments[1])
    write_tables(out, fit_switch(folder), fit_mesh(folder), fit_fabric(folder), fit_expert(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
