"""Write fitted network constants as the TOML tables that the package ships."""

from __future__ import annotations

from pathlib import Path

from windtunnel.network.parameters import (
    ExpertKernel,
    ExpertParameters,
    FabricParameters,
    Interval,
    MeshParameters,
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
    switch: tuple[SwitchParameters, Interval, Interval, Interval],
    mesh: tuple[MeshParameters, Interval],
    fabric: tuple[FabricParameters, Interval],
    expert: tuple[ExpertParameters, tuple[Interval, ...]],
) -> None:
    """One file per family under ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("switch", _switch_text(*switch)),
        ("mesh", _mesh_text(*mesh)),
        ("fabric", _fabric_text(*fabric)),
        ("expert", _expert_text(*expert)),
    ):
        (out / f"{name}.toml").write_text(_HEADER + text, encoding="utf-8")


def _switch_text(p: SwitchParameters, inside: Interval, transfer: Interval, custom: Interval) -> str:
    chips = ", ".join(f'"{chip}"' for chip in p.fitted_chips)
    parts = [
        'about = "NCCL 2.27 and 2.29 on A100 and H100 (aiconfigurator 095f58a5), send/recv by Vidur '
        '7d475133; asymptotes of vendor slides and nccl-tests (ml-engineering 744d01e1)"\n'
        f"fitted_chips = [{chips}]\n",
        "[launch_s]\n" + "".join(f'"{chip}" = {value:.4g}\n' for chip, value in p.launch_s.items()),
        *(_regime(f"in_switch.{generation}", regime) for generation, regime in p.in_switch.items()),
        f"[custom]\nlaunch_s = {p.custom_launch_s:.4g}\n",
        _regime("custom.one_shot", p.custom_one_shot),
        _regime("custom.two_shot", p.custom_two_shot),
    ]
    for kind, ring in p.rings.items():
        parts.append(f"[ring.{kind}]\nlocal_efficiency = {ring.local_efficiency:.4g}\n")
        parts.append(_regime(f"ring.{kind}.low_latency", ring.low_latency))
        parts.append(_regime(f"ring.{kind}.simple", ring.simple))
    parts += [
        _interval("interval", inside),
        "# one chip left out of the fit: what a chip without points should expect\n"
        + _interval("interval_transfer", transfer),
        _interval("interval_custom", custom),
    ]
    return "\n".join(parts)


def _mesh_text(p: MeshParameters, interval: Interval) -> str:
    return (
        'about = "MCCL and pair copies on eight MTT S5000, third-party note of 2026-07-13, driver 3.3.5; '
        "launch_s from SimuMax's S5000-shaped template and the interval below 1 MiB are assumed\"\n"
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
    chips = ", ".join(f'"{chip}"' for chip in p.fitted_chips)
    return (
        'about = "DeepEP on H100 (aiconfigurator 095f58a5) and on H800 with 400 Gb/s InfiniBand (DeepEP '
        "README 1a0c8f6, de8cfca); default_sms is the README's tuning\"\n"
        f"launch_s = {p.launch_s:.4g}\nchunk_copies = {p.chunk_copies:.4g}\n"
        f"walk_bytes_per_s = {p.walk_bytes_per_s:.4g}\n"
        f"link_efficiency = {p.link_efficiency:.4g}\nnic_efficiency = {p.nic_efficiency:.4g}\n"
        f"low_latency_launch_s = {p.low_latency_launch_s:.4g}\n"
        f"low_latency_link_efficiency = {p.low_latency_link_efficiency:.4g}\n"
        f"low_latency_nic_efficiency = {p.low_latency_nic_efficiency:.4g}\n"
        f"one_sided_dispatch_s = {p.one_sided_dispatch_s:.4g}\none_sided_combine_s = {p.one_sided_combine_s:.4g}\n"
        f"one_sided_start_s = {p.one_sided_start_s:.4g}\none_sided_efficiency = {p.one_sided_efficiency:.4g}\n"
        f"default_sms = {p.default_sms}\nfitted_chips = [{chips}]\n\n"
        + _kernel("dispatch", p.dispatch)
        + _kernel("combine", p.combine)
        + _interval("interval", normal)
        + "\n"
        + _interval("interval_low_latency", low_latency)
        + "\n# TensorRT-LLM's one-sided exchange on eight GB200 (its blog 18, 22de8b34)\n"
        + _interval("interval_one_sided", one_sided)
    )
