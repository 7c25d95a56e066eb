"""Which recorded rank stands for which ranks of the cluster, and what that makes of a collective.

Ranks that differ only in their tensor-, data- or expert-parallel index do the same at the same time, so one
recorded rank (one per pipeline stage) stands for all of them. A collective among ranks that one recorded rank
stands for needs no partner; one that reaches ranks of another stage must be met there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from windtunnel.errors import WindtunnelError
from windtunnel.network.collective import POINT_TO_POINT, Collective, kind_of, message_bytes
from windtunnel.network.model import pair_of
from windtunnel.program.op import OpSpec
from windtunnel.program.program import ProcessGroup, Program
from windtunnel.program.work import Family


@dataclass(frozen=True, slots=True)
class Meeting:
    """A collective that several recorded ranks must issue together.

    Attributes:
        parties: recorded ranks, by their number in the list of programs.
        label: what the parties agree on: the group, or sender and receiver.
        kind, nbytes: must be equal for all parties (send meets receive).
        ranks: the ranks of the cluster that it runs over, as its issuer sees them.
    """

    parties: tuple[int, ...]
    label: tuple[object, ...]
    kind: Collective
    nbytes: int
    ranks: tuple[int, ...]

    def agrees_with(self, other: Meeting) -> bool:
        """Whether both describe the same exchange."""
        kinds = {self.kind, other.kind}
        return self.nbytes == other.nbytes and (len(kinds) == 1 or kinds == POINT_TO_POINT)


class Representatives:
    """The recorded ranks and whom each stands for.

    Args:
        programs: one per recorded rank; ``origin.rank`` is its number in the cluster.
        stands_for: representative (number in ``programs``) of every rank of the cluster. None: every rank was
            recorded, or a single one stands for all.

    Raises:
        WindtunnelError: E210, ranks that no recording stands for.
    """

    def __init__(
        self, programs: Sequence[Program], stands_for: Mapping[int, int] | Sequence[int] | None = None
    ) -> None:
        self.programs = tuple(programs)
        self.ranks = tuple(program.origin.rank for program in programs)
        world = max(program.origin.world_size for program in programs)
        self.world_size = world
        self._meetings: dict[int, list[Meeting | None]] = {}  # by rank; a step is replayed several times
        self._of = self._mapping(stands_for, world)

    def _mapping(self, stands_for: Mapping[int, int] | Sequence[int] | None, world: int) -> Mapping[int, int]:
        if stands_for is None and len(self.programs) == 1:
            return dict.fromkeys(range(world), 0)
        if stands_for is None:
            answer: Mapping[int, int] = {rank: number for number, rank in enumerate(self.ranks)}
        elif isinstance(stands_for, Mapping):
            answer = stands_for
        else:
            answer = dict(enumerate(stands_for))
        missing = [rank for rank in range(world) if rank not in answer]
        if missing:
            raise WindtunnelError(
                "E210",
                f"no recording stands for {len(missing)} of {world} ranks",
                hint="record one rank of every pipeline stage, or say which recorded rank stands for them",
                values={"ranks": tuple(missing[:16]), "recorded": self.ranks},
            )
        return answer

    def of(self, rank: int) -> int:
        """The recorded rank (its number) that stands for ``rank``."""
        return self._of[rank]

    def meetings(self, number: int) -> list[Meeting | None]:
        """For each distinct operation of a recorded rank: the meeting it takes part in, or None."""
        if number not in self._meetings:
            program = self.programs[number]
            self._meetings[number] = [
                self._meeting(number, spec, program.groups)
                if work.family is Family.COLLECTIVE and work.kernels
                else None
                for spec, work in zip(program.specs, program.works, strict=True)
            ]
        return self._meetings[number]

    def _meeting(self, number: int, spec: OpSpec, groups: Sequence[ProcessGroup]) -> Meeting | None:
        index = spec.attribute("group", 0)
        group = groups[index if isinstance(index, int) else 0]
        kind = kind_of(spec.name)
        ranks = group.ranks
        label: tuple[object, ...] = (group.label, index, str(kind))
        if kind in POINT_TO_POINT:
            own = self.ranks[number]
            ranks = pair_of(own, spec.attribute("peer", -1), group)
            sender, receiver = ranks if kind is Collective.SEND else ranks[::-1]
            label = ("p2p", self.of(sender), self.of(receiver))
        parties = tuple(sorted({self.of(rank) for rank in ranks} | {number}))
        if len(parties) == 1:
            return None
        if kind not in POINT_TO_POINT:
            label = ("group", group.label, parties, len(group.ranks))
        return Meeting(parties, label, kind, message_bytes(spec), ranks)
