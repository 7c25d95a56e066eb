"""Write fitted network constants as the TOML tables that the package ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from windtunnel.network.parameters import (
    EngineFit,
    ExpertKernel,
    ExpertParameters,
    FabricParameters,
    Interval,
    MeshParameters,
    PairParameters,
    Regime,
    SwitchParameters,
)

_HEADER = (
    "# Fitted by `python -m windtunnel.validation.calibrate.network`; do not edit by hand.\n"
    "# interval: measured over predicted, 10 % and 90 % of the residuals, below and from 1 MiB.\n"
)


def _regime(name: str, regime: Regime) -> str:
    return f"[{name}]\nhop_s = {regime.hop_s:.4g}\nefficiency = {regime.efficiency:.4g}\n"


def _kernel(name: str, kernel: ExpertKernel) -> str:
    return (
        f"[{name}]\nrate_per_sm = {kernel.rate_per_sm:.4g}\n"
        f"own_copies = {kernel.own_copies:.4g}\ncopy_s = {kernel.copy_s:.4g}\n\n"
    )


def _interval(name: str, interval: Interval) -> str:
    return (
        f"[{name}]\nsmall_low = {interval.small_low:.4g}\nsmall_high = {interval.small_high:.4g}\n"
        f"large_low = {interval.large_low:.4g}\nlarge_high = {interval.large_high:.4g}\n"
    )


def write_tables(
    out: Path,
    switch: tuple[SwitchParameters, Interval, Interval],
    engines: EngineFit,
    mesh: tuple[MeshParameters, Interval],
    fabric: tuple[FabricParameters, Interval],
    expert: tuple[ExpertParameters, tuple[Interval, ...]],
) -> None:
    """One file per family under ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("switch", _switch_text(*switch)),
        ("engine", _engine_text(engines)),
        ("mesh", _mesh_text(*mesh)),
        ("fabric", _fabric_text(*fabric)),
        ("expert", _expert_text(*expert)),
    ):
        (out / f"{name}.toml").write_text(_HEADER + text, encoding="utf-8")


def _numbers(name: str, table: Mapping[int, float]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value:.4g}\n" for key, value in table.items())


def _pairs(name: str, pairs: PairParameters) -> list[str]:
    return [
        f"[{name}]\nlocal_efficiency = {pairs.local_efficiency:.4g}\n",
        _regime(f"{name}.low_latency", pairs.low_latency),
        _regime(f"{name}.simple", pairs.simple),
    ]


def _switch_text(p: SwitchParameters, inside: Interval, transfer: Interval) -> str:
    parts = [
        'about = "NCCL 2.27 and 2.29 on A100 and H100 (aiconfigurator 095f58a5), send/recv by Vidur '
        "7d475133; asymptotes of vendor slides and nccl-tests (ml-engineering 744d01e1); SimuMax 4dcaae5's lines "
        'through nccl-tests of 8 B200"\n'
        "# by major compute capability; those fitted were timed at every size\n"
        f"fitted = [{', '.join(str(capability) for capability in p.fitted)}]\n",
        _numbers("launch_s", p.launch_s),
        _numbers("latency", p.latency),
        *(_regime(f"in_switch.{generation}", regime) for generation, regime in p.in_switch.items()),
        f"[ring]\nlocal_efficiency = {p.local_efficiency:.4g}\n",
    ]
    for way, ring in p.protocols.items():
        parts.append(
            f"[ring.{way.name.lower()}]\nstart_s = {ring.start_s:.4g}\nhop_s = {ring.hop_s:.4g}\n"
            f"gather_efficiency = {ring.gather_efficiency:.4g}\nreduce_efficiency = {ring.reduce_efficiency:.4g}\n"
        )
    parts += [
        *_pairs("exchange", p.exchange),
        *_pairs("send", p.send),
        "# residuals, those of other releases and benchmarks included\n" + _interval("interval", inside),
        "# one generation left out of the fit: what cards without points should expect\n"
        + _interval("interval_transfer", transfer),
    ]
    return "\n".join(parts)


def _engine_text(fitted: EngineFit) -> str:
    p = fitted.parameters
    parts = [
        'about = "all-reduce of vLLM 0.14 and 0.24, SGLang 0.5.10 and 0.5.14, TensorRT-LLM 1.0 and 1.3 on A100 and '
        'H100 (aiconfigurator 095f58a5); call_s: host time of a call without a graph, medians below 4 MiB"\n'
        f"fitted = [{', '.join(str(capability) for capability in fitted.fitted)}]\n"
        f"peer_s = {p.peer_s:.4g}\none_shot_efficiency = {p.one_shot_efficiency:.4g}\n"
        f"two_shot_s = {p.two_shot_s:.4g}\ntwo_shot_efficiency = {p.two_shot_efficiency:.4g}\n"
        f"written_efficiency = {p.written_efficiency:.4g}\n"
        f"symmetric_s = {p.symmetric_s:.4g}\nsymmetric_efficiency = {p.symmetric_efficiency:.4g}\n"
        f"symmetric_call_s = {p.symmetric_call_s:.4g}\n",
        *(_numbers(f"launch_s.{engine}", table) for engine, table in p.launch_s.items()),
        *(_numbers(f"call_s.{engine}", table) for engine, table in p.call_s.items()),
        _interval("interval", fitted.interval),
        "# one generation left out of the fit\n" + _interval("interval_transfer", fitted.interval_transfer),
    ]
    return "\n".join(parts)


def _mesh_text(p: MeshParameters, interval: Interval) -> str:
    return (
        'about = "MCCL and pair copies on eight MTT S5000, third-party note of 2026-07-13, driver 3.3.5; '
        "launch_s (a step) from SimuMax's S5000-shaped template and the interval below 1 MiB are assumed\"\n"
        f'source = "{p.source}"\n'
        f"launch_s = {p.launch_s:.4g}\ncopy_launch_s = {p.copy_launch_s:.4g}\nfill_s = {p.fill_s:.4g}\n"
        f"pair_efficiency = {p.pair_efficiency:.4g}\ncopy_efficiency = {p.copy_efficiency:.4g}\n"
        f"rooted_factor = {p.rooted_factor:.4g}\n\n" + _interval("interval", interval)
    )


def _fabric_text(p: FabricParameters, interval: Interval) -> str:
    return (
        'about = "send/recv over 400 Gb/s InfiniBand (Vidur 7d475133); asymptotic all-reduce and all-to-all '
        'of DGX A100 and H100 (vendor slides as reproduced by ml-engineering 744d01e1)"\n'
        f"launch_s = {p.launch_s:.4g}\nhop_s = {p.hop_s:.4g}\n"
        f"ring_efficiency = {p.ring_efficiency:.4g}\nexchange_efficiency = {p.exchange_efficiency:.4g}\n\n"
        + _regime("send", p.send)
        + "\n"
        + _interval("interval", interval)
    )


def _expert_text(p: ExpertParameters, intervals: tuple[Interval, ...]) -> str:
    normal, low_latency, one_sided = intervals
    generations = ", ".join(str(capability) for capability in p.fitted)
    return (
        'about = "DeepEP on H100 (aiconfigurator 095f58a5) and on H800 with 400 Gb/s InfiniBand (DeepEP '
        "README 1a0c8f6, de8cfca); default_sms is the README's tuning\"\n"
        f"launch_s = {p.launch_s:.4g}\nchunk_copies = {p.chunk_copies:.4g}\n"
        f"walk_bytes_per_s = {p.walk_bytes_per_s:.4g}\n"
        f"link_efficiency = {p.link_efficiency:.4g}\nnic_efficiency = {p.nic_efficiency:.4g}\n"
        f"one_sided_dispatch_s = {p.one_sided_dispatch_s:.4g}\none_sided_combine_s = {p.one_sided_combine_s:.4g}\n"
        f"one_sided_start_s = {p.one_sided_start_s:.4g}\none_sided_efficiency = {p.one_sided_efficiency:.4g}\n"
        f"default_sms = {p.default_sms}\nfitted = [{generations}]\n\n"
        + "[low_latency]\n"
        + "".join(f"{name} = {value:.4g}\n" for name, value in asdict(p.low_latency).items())
        + "\n# DeepEP's README until April 2025 (e130cc6)\n[early]\n"
        + "".join(f"{name} = {value:.4g}\n" for name, value in asdict(p.early).items())
        + "\n"
        + _kernel("dispatch", p.dispatch)
        + _kernel("combine", p.combine)
        + _interval("interval", normal)
        + "\n"
        + _interval("interval_low_latency", low_latency)
        + "\n# TensorRT-LLM's one-sided exchange on eight GB200 (its blog 18, 22de8b34)\n"
        + _interval("interval_one_sided", one_sided)
    )
