"""`windtunnel chips [list|show NAME]`: the catalogue, every number with its unit, source, date and trust."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from windtunnel.cli import chip_tables, output
from windtunnel.cli.parser import add_chip_options
from windtunnel.errors import WindtunnelError
from windtunnel.specs.catalogue import chip, chip_names
from windtunnel.specs.files import UNITS
from windtunnel.specs.schema import Chip, Provenance, Quantity
from windtunnel.specs.table import did_you_mean
from windtunnel.specs.targets import cluster_names

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """examples:
  windtunnel chips
  windtunnel chips show mtt-s5000
  windtunnel chips show h20 --set memory_bytes_per_s=4.8e12 --json
  windtunnel chips show my-card --chips ./my-cards"""


def add_parser(subparsers: Subparsers) -> None:
    """The options of `windtunnel chips`."""
    parser = subparsers.add_parser(
        "chips",
        help="the chips and every number known about them",
        description="List the chips, or show every number of one with its unit, source, date and trust.",
        usage="windtunnel chips [list | show NAME] [options]",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="*", metavar="list | show NAME", help="list (default), or show one chip"
    )
    add_chip_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list or one chip. Raises WindtunnelError E101 to E109, E991."""
    name = _shown(args.words)
    if name is None:
        return _list(args.set, args.chips, json=args.json)
    found = chip(name, args.set, args.chips)
    if args.json:
        output.print_json(output.success("chips", {"chip": as_json(found)}))
    else:
        output.print_lines(chip_tables.one(found, output.width()))
    return 0


def as_json(found: Chip) -> dict[str, object]:
    """Every fact of a chip; numbers in SI base units."""
    return {
        "name": found.name,
        "title": found.title,
        "vendor": str(found.vendor),
        "architecture": found.architecture,
        "aliases": list(found.aliases),
        "device_type": found.device_type,
        "device_name": found.device_name,
        "note": found.note,
        "relatives": list(found.relatives),
        "overrides": list(found.overrides),
        "quantities": {key: _quantity(getattr(found, key)) for key in UNITS},
        "peak_flops": {key: _quantity(value) for key, value in found.peak_flops.items()},
        "properties": {
            "compute_capability": list(found.compute_capability),
            "warp_size": found.warp_size,
            "registers_per_block": found.registers_per_block,
            "threads_per_multiprocessor": found.threads_per_multiprocessor,
            "links": found.links,
            "cards_per_node": found.cards_per_node,
            "scale_up": str(found.scale_up),
            "tf32_default": found.tf32_default,
            **_provenance(found.properties),
        },
        "attention": {
            "dtypes": list(found.attention.dtypes),
            "head_dim_max": found.attention.head_dim_max,
            "head_dims_extra": [list(pair) for pair in found.attention.head_dims_extra],
            "mask_gradient": found.attention.mask_gradient,
            **_provenance(found.attention.provenance),
        },
    }


def _shown(words: Sequence[str]) -> str | None:
    """The chip to show; None for the list."""
    if not words or list(words) == ["list"]:
        return None
    if words[0] == "show" and len(words) == 2:
        return words[1]
    if words[0] == "show":
        what = (
            "`show` needs the name of one chip"
            if len(words) == 1
            else f"`show` takes one chip, not {len(words) - 1}"
        )
        raise WindtunnelError("E991", what, hint="for example: windtunnel chips show mtt-s5000")
    near = did_you_mean(words[0], ["list", "show"]) or f"did you mean `windtunnel chips show {words[0]}`? "
    raise WindtunnelError("E991", f"`chips` cannot `{words[0]}`", hint=f"{near}use list or show NAME")


def _list(overrides: Sequence[str], folders: Sequence[Path], *, json: bool) -> int:
    chips = [chip(name, overrides, folders) for name in chip_names(folders)]
    if json:
        output.print_json(
            output.success(
                "chips", {"chips": [as_json(found) for found in chips], "clusters": cluster_names()}
            )
        )
    else:
        output.print_lines(chip_tables.several(chips, cluster_names(), output.width()))
    return 0


def _quantity(quantity: Quantity) -> dict[str, object]:
    return {
        "value": quantity.value,
        "unit": quantity.unit,
        "source": quantity.source,
        "date": quantity.date,
        "trust": str(quantity.trust),
        "note": quantity.note,
    }


def _provenance(origin: Provenance | None) -> dict[str, object]:
    if origin is None:
        return {}
    return {"source": origin.source, "date": origin.date, "trust": str(origin.trust), "note": origin.note}
