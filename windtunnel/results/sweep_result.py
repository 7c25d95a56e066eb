"""What `windtunnel serve --sweep` says: what a card sustains, without traffic. Plain data; times in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from windtunnel.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One figure.

    Attributes:
        phase: ``prefill`` or ``decode``. batch: sequences of one attention rank. context: tokens of a prompt,
            or of each sequence while it decodes.
        tokens_per_s_per_gpu: prompt tokens, or tokens that come out. roofline: of the same, from data sheets.
        step_s: seconds of the step; of decode, per token of a user (drafted tokens counted).
        fits: whether the batch fits the cache; the figure is what the step would take if it did.
    """

    chip: str
    cards: int
    layout: str
    phase: str
    batch: int
    context: int
    tokens_per_s_per_gpu: Estimate
    roofline: float
    step_s: Estimate
    fits: bool

    @property
    def tokens_per_s_per_user(self) -> float:
        """What one user sees; of a prefill, prompt tokens."""
        return (self.context if self.phase == "prefill" else 1) / self.step_s.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Prefill and decode on cards of their own, in the ratio that keeps both busy, for one mix of lengths.

    Attributes:
        prefill_share: of all cards. output_tokens_per_s_per_gpu: over all cards of both kinds.
    """

    prefill: Point
    decode: Point
    prompt: int
    output: int

    @property
    def prefill_share(self) -> float:
        """Fraction of all cards that compute prompts."""
        prompts = self.prompt / self.prefill.tokens_per_s_per_gpu.value
        outputs = self.output / self.decode.tokens_per_s_per_gpu.value
        return prompts / (prompts + outputs)

    @property
    def output_tokens_per_s_per_gpu(self) -> float:
        """Output tokens a second over all cards of both kinds."""
        return (1 - self.prefill_share) * self.decode.tokens_per_s_per_gpu.value


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """One model on some chips.

    Attributes:
        pass_tokens: prompt tokens a rank and pass, about. left_out: layouts that do not hold the model, and why.
    """

    model: str
    model_title: str
    pass_tokens: int
    points: tuple[Point, ...]
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]

    def of(self, phase: str) -> list[Point]:
        """The points of ``prefill`` or ``decode``."""
        return [point for point in self.points if point.phase == phase]

    def best(self, phase: str) -> Point | None:
        """The point of most tokens a card among those that fit."""
        there = [point for point in self.of(phase) if point.fits]
        return max(there, key=lambda point: point.tokens_per_s_per_gpu.value, default=None)
