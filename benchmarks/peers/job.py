"""The job that all simulators get, and what each says about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """A step of a dense GPT under Megatron-LM's layout: sequence parallel, ZeRO-1, 1F1B, layers recomputed.

    Rates in bytes/s of one card in one direction: inside a node and between nodes.
    """

    model: str = "gpt3-175b"
    layers: int = 96
    hidden: int = 12288
    heads: int = 96
    ffn: int = 49152
    vocabulary: int = 51200
    chip: str = "a100-80g"
    cards: int = 1024
    tensor: int = 8
    pipeline: int = 8
    global_batch: int = 1024
    sequence: int = 2048
    inside_bytes_per_s: float = 300e9
    between_bytes_per_s: float = 25e9

    @property
    def data(self) -> int:
        """Data-parallel degree."""
        return self.cards // (self.tensor * self.pipeline)

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one sequence on every rank."""
        return self.global_batch // self.data

    def fields(self) -> dict[str, object]:
        """For another process."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one simulator said: the step, processor seconds to start, to prepare (record) and to answer, memory."""

    name: str
    version: str
    step_s: float
    start_s: float
    answer_s: float
    prepare_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    peak_gb: float = 0.0
    note: str = ""
