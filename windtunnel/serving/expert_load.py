"""How much more the busiest expert rank carries than the mean: balanced, power law, measured loads or as published.

Experts are placed as engines place them (``expert_placement``). Layers differ, and ranks wait for the busiest of each,
so that loads of many layers are kept as a few parts of equal count, from the evenest to the most uneven.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.serving_layout import Imbalance
from windtunnel.serving.expert_placement import ExpertRanks, busiest

BALANCED, FORCED, POWER_LAW, PUBLISHED = "balanced", "forced", "power-law", "published"
"""Experts equally popular, tokens choosing by chance; every step exactly even; a few experts more popular; as the
model's routing was published."""
DRAWS = 16
PARTS = 4
"""Kinds of layers that are told apart: step times of DeepSeek-V3's 58 come within 0.3 % of each taken by itself."""
PUBLISHED_EXPERTS = 256
PROMPT_LENGTHS, DECODE_LENGTHS, USUAL_LENGTH = (512, 1024, 2048, 4096), (1000, 2000), 1024
"""Prompts, in tokens, of the recordings that ship; the longer, the more uneven: SGLang's benchmark repeats texts of
ShareGPT until they are long enough. ``published`` alone means the usual one."""
BATCH_BALANCE = ((1, 1.0), (8, 0.943), (72, 0.831))
"""Mean over busiest rank of single batches where recorded loads are placed evenly. 8 ranks: read from the chart of a
simulation on recorded routing (SGLang team, 5 May 2025, ``eplb-balancedness.png``). 72: its 0.81 over the 0.975 to
which recorded loads of decoding come. Its other points, 0.90 on 16 ranks and 0.80 on 32, follow (0.91 and 0.79 to
0.82), with what nodes carry by their groups."""

Layers = Sequence[Sequence[float]]


def imbalances(kind: str, where: ExpertRanks) -> tuple[Imbalance, ...]:
    """Busiest over mean, one for each of some equal parts of the layers.

    Args:
        kind: ``balanced`` or ``forced``; ``power-law:A``, the i-th busiest expert loaded with i^-A; ``published:N``, as
            SGLang recorded DeepSeek-V3 with prompts of about N tokens; or a file of loads, one number an expert (JSON
            list, or the last column of a CSV), or one such list a layer (JSON; SGLang's ``logical_count``).

    Raises:
        WindtunnelError: E657, the loads cannot be read or do not fit the model.
    """
    if where.ranks <= 1 or kind in (BALANCED, FORCED):
        return (Imbalance(),)
    name, _, rest = kind.partition(":")
    if name == PUBLISHED:
        return _published(rest, kind, where)
    if name == POWER_LAW:
        return (_power_law(_exponent(rest, kind), where),)
    layers = _read(Path(kind))
    for loads in layers:
        if len(loads) != where.experts:
            raise _bad(kind, f"{len(loads)} loads for {where.experts} experts")
    return _parts([Imbalance(rank, rank, node) for rank, node in (busiest(loads, where) for loads in layers)])


def includes_chance(kind: str) -> bool:
    """Whether loads are those of batches as they came, so that none is to be drawn on top."""
    return kind.partition(":")[0] in (FORCED, PUBLISHED)


@lru_cache(maxsize=64)
def _published(length: str, kind: str, where: ExpertRanks) -> tuple[Imbalance, ...]:
    if where.experts != PUBLISHED_EXPERTS:
        raise _bad(
            kind, f"published for DeepSeek-V3's {PUBLISHED_EXPERTS} experts, the model has {where.experts}"
        )
    tokens = int(length) if length.isdigit() and len(length) < 9 else 0 if length else USUAL_LENGTH
    if tokens < 1:
        raise _bad(kind, "the length of prompts is a number of tokens")
    prompts = recording("prompts", _nearest(tokens, PROMPT_LENGTHS))
    decoding = recording("decode", _nearest(tokens, DECODE_LENGTHS))
    batches = batch_imbalance(where.packed) if where.redundant else 1.0
    found = []
    for prompt, decode in zip(prompts, decoding, strict=True):
        (rank, node), (decoding_rank, _) = busiest(prompt, where), busiest(decode, where)
        found.append(Imbalance(rank * batches, decoding_rank * batches, node))
    return _parts(found)


def batch_imbalance(ranks: int) -> float:
    """Busiest rank of a batch over the mean where it is even in the long run; straight lines over log ranks."""
    for (low, first), (high, last) in pairwise(BATCH_BALANCE):
        if ranks <= high:
            return 1.0 / (first + math.log(ranks / low) / math.log(high / low) * (last - first))
    return 1.0 / BATCH_BALANCE[-1][1]


def _nearest(tokens: int, lengths: Sequence[int]) -> int:
    return min(lengths, key=lambda length: abs(math.log(length / tokens)))


def recording(what: str, length: int) -> list[list[float]]:
    """Loads of every layer with experts, of DeepSeek-V3's ``prompts`` or ``decode`` (lengths above)."""
    name = f"expert_recordings/deepseek-v3-{what}-{length}.csv"
    text = files("windtunnel.serving").joinpath(name).read_text(encoding="utf-8")
    return [[float(share) for share in line.split(",")] for line in text.splitlines() if line[:1] != "#"]


def _power_law(exponent: float, where: ExpertRanks) -> Imbalance:
    loads = [(i + 1) ** -exponent for i in range(where.experts)]
    source, found = random.Random(0), []
    for _ in range(1 if where.redundant and not where.by_groups else DRAWS):  # else numbers and groups matter
        source.shuffle(loads)
        found.append(busiest(loads, where))
    rank, node = (sum(some) / len(found) for some in zip(*found, strict=True))
    return Imbalance(rank, rank, node)


def _parts(layers: Sequence[Imbalance]) -> tuple[Imbalance, ...]:
    """Means of equal parts of the layers, from even to uneven; a layer on the border counts in both."""
    if len(layers) == 1:
        return tuple(layers)
    ordered = [one for one in sorted(layers, key=lambda one: one.prompts) for _ in range(PARTS)]
    size = len(layers)
    return tuple(Imbalance.mean(ordered[first : first + size]) for first in range(0, len(ordered), size))


def _exponent(text: str, kind: str) -> float:
    try:
        exponent = float(text or "1")
    except ValueError:
        exponent = -1.0
    if not 0 <= exponent < 10:
        raise _bad(kind, "the exponent is a number from 0 to 10")
    return exponent


def _read(path: Path) -> Layers:
    """Loads of one or many layers; layers without any (dense ones) are left out."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = json.loads(text)
            found = found["logical_count"] if isinstance(found, dict) else found
            layers = [[float(value) for value in row] for row in (found if _nested(found) else [found])]
        else:
            rows = [row for row in csv.reader(text.splitlines()) if row]
            layers = [[float(row[-1]) for row in rows if _is_number(row[-1])]]
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _bad(str(path), str(error)) from None
    if any(min(loads, default=-1) < 0 or not sum(loads) < float("inf") for loads in layers):
        raise _bad(str(path), "loads are numbers from 0, not all 0")
    loaded = [loads for loads in layers if sum(loads) > 0]
    if not loaded:
        raise _bad(str(path), "loads are numbers from 0, not all 0")
    return loaded


def _nested(found: object) -> bool:
    return isinstance(found, list) and bool(found) and isinstance(found[0], list)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bad(kind: str, why: str) -> WindtunnelError:
    return WindtunnelError(
        "E657",
        f"cannot use the expert loads `{kind}`: {why}",
        hint="--expert-load balanced, published:2048, power-law:1.0, or a file with one load for each expert",
    )
