"""What a card of a deployment sustains, over card counts, prompt lengths and batches: no traffic, no queue.

Prefill: passes of whole prompts that fill ``tokens`` a rank. Decode: a batch that stays together, every sequence
``context`` tokens long. Prefill and decode on cards of their own (``disaggregated``): as many cards for each as
keep the other busy. Of each figure the better of with and without overlapped half-batches, where they are asked for.
Beside it stands what data sheet peaks alone would allow.

    >>> from windtunnel.serving.sweep import Sweep
    >>> points = Sweep("deepseek-v3-671b", "mtt-s5000", cards=(32,)).prefill(prompts=(4096,))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windtunnel.errors import AnswerIsNo, WindtunnelError
from windtunnel.recipes.layers.cached import Batch
from windtunnel.recipes.layout import Precision
from windtunnel.results.sweep_result import Pair, Point
from windtunnel.serving import roofline
from windtunnel.serving.deployment import Deployment, deploy
from windtunnel.serving.deployment_options import DeploymentOptions
from windtunnel.serving.speculation import Speculation
from windtunnel.serving.step_time import StepTime
from windtunnel.serving.uncertainty import width_of
from windtunnel.specs.model import ModelSpec
from windtunnel.specs.model_catalogue import shipped_model
from windtunnel.specs.schema import Chip
from windtunnel.specs.targets import cluster_of

PASS_TOKENS = 16384
"""Prompt tokens a rank and pass: what DeepSeek's and SGLang's published prefill runs take."""


class Sweep:
    """Figures of one model on one chip. Card counts that do not hold the model are left out and kept in ``out``."""

    def __init__(
        self,
        model: str | ModelSpec,
        chip: str | Chip,
        *,
        cards: Sequence[int] = (16, 32, 64, 72, 96, 128, 144),
        options: DeploymentOptions | None = None,
    ) -> None:
        self.model = model if isinstance(model, ModelSpec) else shipped_model(model)
        self.chip = chip
        self.out: list[WindtunnelError] = []
        self._options = options or DeploymentOptions(
            precision=Precision.FP8_BLOCK, enable_dbo=True, gpu_memory_utilization=0.95
        )
        self._cards = tuple(cards)
        self._deployments: dict[tuple[int, Speculation], Deployment] = {}
        self._whole: dict[tuple[int, Speculation], StepTime] = {}

    def prefill(self, prompts: Sequence[int] = (1024, 4096, 16384), tokens: int = PASS_TOKENS) -> list[Point]:
        """Passes of whole prompts, at least one, that fill ``tokens`` a rank."""
        return [
            self._prefill(found, prompt, max(1, tokens // prompt))
            for found in self._all(Speculation())
            for prompt in prompts
        ]

    def decode(
        self,
        batches: Sequence[int] = (16, 32, 64, 128, 256),
        contexts: Sequence[int] = (4096,),
        speculation: Speculation | None = None,
    ) -> list[Point]:
        """Steps of batches that stay together; ``speculation``: instead of the options'."""
        chosen = speculation if speculation is not None else self._options.speculation
        return [
            self._decode(found, batch, context)
            for found in self._all(chosen)
            for batch in batches
            for context in contexts
        ]

    def disaggregated(
        self, prompt: int, output: int, batches: Sequence[int] = (16, 32, 64, 128, 256), tpot_s: float = 0.1
    ) -> Pair | None:
        """The best prefill deployment with the best decode deployment whose step takes at most ``tpot_s``."""
        first = [point for point in self.prefill((prompt,)) if point.fits]
        then = [
            point
            for point in self.decode(batches, (prompt + output // 2,))
            if point.fits and point.step_s.value <= tpot_s
        ]
        if not first or not then:
            return None
        prefill = max(first, key=lambda point: point.tokens_per_s_per_gpu.value)
        decode = max(then, key=lambda point: point.tokens_per_s_per_gpu.value)
        return Pair(prefill=prefill, decode=decode, prompt=prompt, output=output)

    def _all(self, speculation: Speculation) -> list[Deployment]:
        found = []
        for cards in self._cards:
            key = (cards, speculation)
            if key not in self._deployments:
                try:
                    self._deployments[key] = deploy(
                        self.model,
                        cluster_of(self.chip, cards),
                        replace(self._options, speculation=speculation),
                    )
                except AnswerIsNo as error:
                    self.out.append(error)
                    continue
            found.append(self._deployments[key])
        return found

    def _steps(self, found: Deployment) -> list[StepTime]:
        """Step times with overlapped half-batches, if asked for, and without: small batches are run without."""
        if not found.options.enable_dbo:
            return [found.step]
        key = (found.cluster.cards, found.options.speculation)
        if key not in self._whole:
            self._whole[key] = deploy(
                self.model, found.cluster, replace(found.options, enable_dbo=False)
            ).step
        return [found.step, self._whole[key]]

    def _prefill(self, found: Deployment, prompt: int, batch: int) -> Point:
        seconds = min(step.mixed_s(0, 0, [(prompt, 0)] * batch) for step in self._steps(found))
        width = width_of(found, Batch(sequences=batch, new=prompt))
        rate = batch * prompt * found.layout.data / seconds / found.layout.cards
        return Point(
            chip=found.cluster.chip.name,
            cards=found.cluster.cards,
            layout=found.words(),
            phase="prefill",
            batch=batch,
            context=prompt,
            tokens_per_s_per_gpu=width.rate(rate),
            roofline=roofline.prefill_tokens_per_s_per_card(found, prompt),
            step_s=width.seconds(seconds),
            fits=batch * prompt <= found.cache_tokens,
        )

    def _decode(self, found: Deployment, batch: int, context: int) -> Point:
        seconds = min(step.decode_s(batch, batch * context) for step in self._steps(found))
        width = width_of(found, Batch(sequences=batch, context=context))
        rate = batch * found.layout.data / seconds / found.layout.cards
        return Point(
            chip=found.cluster.chip.name,
            cards=found.cluster.cards,
            layout=found.words(),
            phase="decode",
            batch=batch,
            context=context,
            tokens_per_s_per_gpu=width.rate(rate),
            roofline=roofline.decode_tokens_per_s_per_card(found, batch, context),
            step_s=width.seconds(seconds),
            fits=batch * context <= found.cache_tokens,
        )
