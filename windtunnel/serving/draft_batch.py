"""Sequences that check drafts step after step as a batch: a count, a sum of contexts, and a calendar.

How many drafts are accepted is drawn by request and check, so all steps of a sequence are known when it begins to
decode: how many tokens it has after each, when it needs blocks, when it is done. They are written into the calendar at
once, and a step costs what changes in it. A sequence is made real again (``resume``) when it meets something that the
calendar does not have, and taken out of the calendar (``withdraw``) when it is preempted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windtunnel.serving.acceptance import accepted_from
from windtunnel.serving.draft_sequence import DraftingSequence, Part
from windtunnel.serving.scheduler_options import SchedulerOptions

_SPAN = 1 << 14
SHORTEST = 4
"""Steps for which a sequence is worth writing down."""
Counts = NDArray[np.int64]
Turn = tuple[DraftingSequence, int, int]
"""Who takes part in a step, with how many tokens and, at most, further blocks."""


@dataclass(slots=True, eq=False)
class Course:
    """What a sequence does in ``steps`` steps from step ``first`` on.

    Attributes:
        kept: drafts accepted in each. computed: its count before each, as if drafts under way were accepted.
        known: generated tokens when each is decided, and after that. ends: the step that brings the last token; -1:
            none here. held: blocks that it had before.
    """

    sequence: DraftingSequence
    first: int
    steps: int
    kept: Counts
    computed: Counts
    known: Counts
    ends: int
    held: int


class DraftBatch:
    """``decodes`` sequences with ``contexts`` tokens in the step begun last, in which they need ``due`` blocks.

    ``tokens``: of one sequence in a step.
    """

    def __init__(self, options: SchedulerOptions) -> None:
        self.decodes = self.contexts = self.due = 0
        self.courses: dict[DraftingSequence, Course] = {}
        self._count, self._size = options.num_speculative_tokens, options.block_size
        self.tokens = 1 + self._count
        self._ahead, self._chance = options.async_scheduling, options.acceptance
        self._base = 0
        self._changes = np.zeros(
            (3, 2 * _SPAN), dtype=np.int64
        )  # sequences, contexts, blocks: changes by step
        self._leaving: dict[int, list[Course]] = {}
        self._ends: dict[int, list[Course]] = {}

    def begin(self, step: int) -> None:
        """Go to a step."""
        if step - self._base >= _SPAN:
            self._shift(step)
        column = self._changes[:, step - self._base]
        decodes, contexts, due = column.tolist()
        column[:] = 0
        self.decodes += decodes
        self.contexts += contexts
        self.due = due

    def leaving(self, step: int) -> list[Course]:
        """Those whose course ends before this step though they are not done; the calendar knows that they leave."""
        gone = self._leaving.pop(step, [])
        for course in gone:
            del self.courses[course.sequence]
        return gone

    def ended(self, step: int) -> list[Course]:
        """Those whose last token came with this step."""
        done = self._ends.pop(step, [])
        for course in done:
            del self.courses[course.sequence]
        return done

    def withdraw(self, one: DraftingSequence, step: int) -> Course:
        """Take one out of ``step``, which was begun last, and of all after it."""
        course = self.courses.pop(one)
        calendar, at = (
            (self._ends, course.ends) if course.ends >= 0 else (self._leaving, course.first + course.steps)
        )
        calendar[at].remove(course)
        place = step - course.first
        if place < course.steps:  # else it is done, and its last token on the way
            self.decodes -= 1
            self.contexts -= int(course.computed[place])
            self._write(course, -1, place + 1)
        return course

    def due_now(self, step: int) -> list[Turn]:
        """Who needs blocks in ``step``, which was begun last."""
        found = []
        for one, course in self.courses.items():
            place = step - course.first
            if place < course.steps:
                more = self.held(course, place) - self.held(course, place - 1)
                if more:
                    found.append((one, self.tokens, more))
        return found

    def clear(self) -> list[Course]:
        """Forget everything; the answer is all that were here."""
        gone = list(self.courses.values())
        for calendar in (self.courses, self._leaving, self._ends):
            calendar.clear()
        self._changes[:] = 0
        self.decodes = self.contexts = self.due = 0
        return gone

    def join(self, one: DraftingSequence, step: int, coming: int, bound: int) -> bool:
        """Write down what it does from ``step`` on; False: too little.

        Args:
            coming: tokens that the step under way brings it. bound: where its count meets something else.
        """
        request, told = one.request, one.generated + coming
        left = request.output_tokens - told
        if left <= 0:
            return False
        kept = accepted_from(request.number, one.checks, left, self._count, self._chance)
        after = (kept + 1).cumsum() + told
        last = int(after.searchsorted(request.output_tokens))  # the check that brings the last token
        begins = [one.generated, told] if self._ahead else [told]
        known = np.empty(len(begins) + last + 1, dtype=np.int64)
        known[: len(begins)], known[len(begins) :] = begins, after[: last + 1]
        steps = last + 1
        if self._ahead:  # perhaps one more, decided before it is known to be done
            steps += int(known[last + 1]) + 1 < request.output_tokens
            computed = request.prompt_tokens + self._count + known[:steps]
            computed[0] = one.computed
        else:
            computed = request.prompt_tokens - 1 + known[:steps]
        within = int(computed.searchsorted(bound - self.tokens))
        if within < min(steps, SHORTEST):
            return False
        ends = step + last if within >= steps else -1
        course = Course(one, step, min(steps, within), kept, computed, known, ends, one.held)
        self.courses[one] = course
        calendar, at = (self._ends, ends) if ends >= 0 else (self._leaving, step + within)
        calendar.setdefault(at, []).append(course)
        self._write(course, 1, 0)
        return True

    def held(self, course: Course, place: int) -> int:
        """Blocks that it holds when it is in the step at ``place`` of its course."""
        if place < 0:
            return course.held
        return max(course.held, -(-(int(course.computed[place]) + self.tokens + self._count) // self._size))

    def resume(self, course: Course, decided: int, over: int) -> Part | None:
        """Make the counts of one that left real, steps up to ``decided`` being decided and up to ``over`` completed.

        The answer is its part in the step under way.
        """
        one, place = course.sequence, decided - course.first
        if place < 0:
            return None
        assert place < course.steps
        one.blank = self.held(course, place) - one.keyed
        one.checks += place + 1
        one.drafts = self._count
        under_way = over < decided
        one.generated = int(course.known[place + 1 if under_way or not self._ahead else place + 2])
        if not under_way:
            one.computed = one.known - 1
            one.promised = one.in_flight = 0
            return None
        one.computed = one.known + self._count
        one.promised = one.in_flight = self.tokens
        return Part(one, self.tokens, self._count, int(course.kept[place]), True)

    def finish(self, course: Course) -> DraftingSequence:
        """Make the counts of one that is done real."""
        one = course.sequence
        one.blank = self.held(course, course.steps - 1) - one.keyed
        one.generated = one.request.output_tokens
        one.computed = one.known - 1
        one.promised = one.in_flight = 0
        return one

    def _write(self, course: Course, sign: int, begin: int) -> None:
        """Enter (``sign`` 1) or take back (-1) what changes from the step at place ``begin`` of a course on."""
        first, steps = course.first - self._base, course.steps
        if first + steps >= self._changes.shape[1]:
            self._shift(course.first, steps)
            first = course.first - self._base
        computed = course.computed[:steps]
        changes = self._changes
        # before its first step it is not here and holds what it held; after its last it is gone
        contexts = np.zeros(steps + 1, dtype=np.int64)
        contexts[:-1] = computed
        contexts[1:] -= computed
        due = np.maximum(-(-(computed + (self.tokens + self._count)) // self._size), course.held)
        due[1:] -= due[:-1].copy()
        due[0] -= course.held
        if not begin:
            changes[0, first] += sign
        changes[0, first + steps] -= sign
        changes[1, first + begin : first + steps + 1] += sign * contexts[begin:]
        changes[2, first + begin : first + steps] += sign * due[begin:]

    def _shift(self, step: int, steps: int = 0) -> None:
        """Forget what is before ``step``; make room for ``steps`` after it."""
        kept = self._changes[:, step - self._base :]
        self._changes = np.zeros((3, max(2 * _SPAN, kept.shape[1], 2 * steps)), dtype=np.int64)
        self._changes[:, : kept.shape[1]] = kept
        self._base = step
