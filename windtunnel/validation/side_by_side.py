"""A recipe's program beside a recorded one: FLOPs, bytes, collectives, by part of the model.

Parts of a recording are told by module paths, those of a recipe by the names of its pieces; both are reduced to
the same few words, so that a difference is seen where it arises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from windtunnel.network.collective import kind_of, message_bytes
from windtunnel.program.marks import COLLECTIVE_PREFIX
from windtunnel.program.program import Phase, Program
from windtunnel.program.work import Family

SMALL_BYTES = 4096
"""Collectives below this are left out: norms of gradients, counts of tokens, losses to print."""

_KINDS = {
    Family.GEMM: "products",
    Family.GROUPED_GEMM: "grouped products",
    Family.ATTENTION: "attention",
    Family.ATTENTION_BACKWARD: "attention",
    Family.DELTANET: "delta rule",
    Family.CONVOLUTION: "convolution",
}
"""Of everything else the kind is "pointwise": norms, activations, copies, the loss."""

# the first that matches, on module paths and names of pieces in lower case
_PARTS = (
    ("vision", r"visual|vision|(?<!dis)patch|merge"),
    ("norm, residual", r"^(norm|residual|final norm)|_norm$|layernorm$|layers\.\d+$|\.norm$"),
    ("mixer", r"attn|attention|qkv|core|rotary|latent join|^q|^k|delta|decay|convolution|gated norm|^gate$"),
    ("experts", r"expert|router|gate$|dispatch|combine|moe|latent (up|down)|shared"),
    ("feed-forward", r"mlp|feed_forward|ffn|^up$|^down$|activation"),
    ("ends", r"embed|head|output|loss|^$"),
)


@dataclass(frozen=True, slots=True)
class CollectiveKey:
    """Collectives that are added up: one kind over groups of one size in one phase."""

    kind: str
    ranks: int
    phase: str


@dataclass(slots=True)
class Totals:
    """What one rank's step comes to.

    ``flops`` and ``bytes_moved`` by (part, kind); ``exchanged``: number and message bytes of collectives.
    """

    flops: dict[tuple[str, str], float] = field(default_factory=dict)
    bytes_moved: dict[tuple[str, str], float] = field(default_factory=dict)
    exchanged: dict[CollectiveKey, tuple[int, float]] = field(default_factory=dict)

    def by_kind(self, of: dict[tuple[str, str], float]) -> dict[str, float]:
        """Sums over the parts."""
        answer: dict[str, float] = {}
        for (_, kind), value in of.items():
            answer[kind] = answer.get(kind, 0.0) + value
        return answer


@dataclass(frozen=True, slots=True)
class Difference:
    """One quantity on both sides. ``relative``: recipe over recording, less one; infinite where only one has it."""

    quantity: str
    where: str
    recipe: float
    recorded: float

    @property
    def relative(self) -> float:
        """Signed error of the recipe."""
        if self.recorded:
            return self.recipe / self.recorded - 1
        return 0.0 if not self.recipe else float("inf")


def part_of(scope: str, phase: Phase) -> str:
    """The part of the model that a module path, or the name of a piece, belongs to."""
    if phase in (Phase.OPTIMIZER, Phase.OTHER):  # between the passes: clipping and what belongs to it
        return "optimizer"
    if scope in ("parameters", "gradients"):
        return "sharding"
    # the first word of a module path is the class of the whole model
    words = scope.lower().partition(".")[2] if "." in scope or scope[:1].isupper() else scope.lower()
    return next((part for part, pattern in _PARTS if re.search(pattern, words)), "other")


def totals(program: Program, events: Iterable[int] | None = None) -> Totals:
    """Of the whole program, or of some of its events."""
    found = Totals()
    events = [event for event in (program.events.tolist() if events is None else events) if event >= 0]
    phases = _phases(program, events)
    for event, phase in zip(events, phases, strict=True):
        site = program.site(event)
        spec, work = program.specs[site.spec], program.works[site.spec]
        if spec.name.startswith(COLLECTIVE_PREFIX):
            _exchange(found, program, site.spec, phase)
            continue
        if not work.kernels or work.family is Family.HOST_COPY:
            continue
        sharding = spec.name.startswith(("fsdp.", "aten._foreach_copy_"))
        part = "sharding" if sharding else part_of(program.scopes[site.scope], phase)
        key = part, _KINDS.get(work.family, "pointwise")
        if work.flops:
            # flex attention counts what its mask leaves; everything else counts causal attention in full
            whole = work.flops / float(str(spec.attribute("density", 1.0)))
            found.flops[key] = found.flops.get(key, 0.0) + whole
        found.bytes_moved[key] = found.bytes_moved.get(key, 0.0) + work.bytes_moved
    return found


def _phases(program: Program, events: list[int]) -> list[Phase]:
    """Phase of each event. What runs outside all modules is the loss until the last backward pass ends, then what
    comes before the optimizer's step.
    """
    sites = [program.site(event) for event in events]
    last = max((place for place, site in enumerate(sites) if site.phase == Phase.BACKWARD), default=0)
    phases = []
    for place, site in enumerate(sites):
        phase, outside = Phase(site.phase), not program.scopes[site.scope]
        if place < last and phase is Phase.OTHER:
            phase = Phase.FORWARD
        elif place > last > 0 and phase is Phase.FORWARD and outside:
            phase = Phase.OTHER
        phases.append(phase)
    return phases


def last_step(program: Program) -> list[int]:
    """Events of the last recorded step."""
    mark = program.last_step()
    events: list[int] = program.events[mark.begin : mark.end].tolist()
    return events


def _exchange(found: Totals, program: Program, number: int, phase: Phase) -> None:
    spec = program.specs[number]
    group = spec.attribute("group", 0)
    ranks = len(program.groups[group].ranks) if isinstance(group, int) and program.groups else 1
    nbytes = message_bytes(spec)
    if ranks <= 1 or nbytes < SMALL_BYTES or "barrier" in spec.name:
        return
    kind = str(kind_of(spec.name))
    if kind in ("dispatch", "combine"):  # an exchange of every token's copies, whichever library does it
        kind = "all_to_all"
        nbytes = int(str(spec.attribute("tokens"))) * int(str(spec.attribute("top_k")))
        nbytes *= int(str(spec.attribute("token_bytes")))
    if kind in ("send", "recv"):  # between the passes of a stage: whichever was last
        phase = Phase.OTHER
    during = {Phase.RECOMPUTE: Phase.BACKWARD, Phase.OTHER: Phase.OPTIMIZER}.get(phase, phase)
    key = CollectiveKey(kind, ranks, during.name.lower())
    count, total = found.exchanged.get(key, (0, 0.0))
    found.exchanged[key] = count + 1, total + nbytes


def differences(recipe: Totals, recorded: Totals) -> Iterator[Difference]:
    """Every quantity of either side: FLOPs and bytes by part and kind, then collectives."""
    for name, ours, theirs in (
        ("flops", recipe.flops, recorded.flops),
        ("bytes", recipe.bytes_moved, recorded.bytes_moved),
    ):
        for key in sorted({*ours, *theirs}):
            yield Difference(name, ", ".join(key), ours.get(key, 0.0), theirs.get(key, 0.0))
    keys = {*recipe.exchanged, *recorded.exchanged}
    for place in sorted(keys, key=lambda key: (key.kind, key.ranks, key.phase)):
        where = f"{place.kind} over {place.ranks}, {place.phase}"
        built, taken = recipe.exchanged.get(place, (0, 0.0)), recorded.exchanged.get(place, (0, 0.0))
        yield Difference("message bytes", where, built[1], taken[1])
        yield Difference("collectives", where, built[0], taken[0])
