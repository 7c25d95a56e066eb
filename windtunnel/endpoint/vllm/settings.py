"""What vLLM's processes are told about the virtual cards, through the environment.

``WINDTUNNEL_ON`` is a target as ``--on`` takes it and is enough on its own; ``WINDTUNNEL_VLLM`` holds the rest as
JSON. Sizes, batching and parallelism are not in it: those are vLLM's own options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from windtunnel.errors import WindtunnelError
from windtunnel.specs.cluster import Cluster
from windtunnel.specs.targets import parse_target

ON, REST = "WINDTUNNEL_ON", "WINDTUNNEL_VLLM"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attributes: as the options of ``windtunnel serve`` that have these names.

    speed: how much faster than the cards time runs. acceptance: of a drafted token. answer_tokens: mean length of
    answers whose length the client leaves open. answer_with: folder of a small model that writes them. record: a
    file that takes one line per call. any_name: a body may name any model.
    """

    precision: str = "auto"
    overrides: tuple[str, ...] = ()
    chips: tuple[str, ...] = ()
    speed: float = 1.0
    acceptance: float = 0.8
    imbalance: float = 1.0
    overlap: bool = False
    answer_tokens: float = 0.0
    answer_trace: str = ""
    answer_with: str = ""
    record: str = ""
    any_name: bool = False

    def environment(self, on: str) -> dict[str, str]:
        """The variables that carry this to vLLM's processes."""
        return {ON: on, REST: msgspec.json.encode(self).decode()}


def asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether virtual cards are asked for."""
    return bool(environment.get(ON))


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises E660 where they cannot be read."""
    text = environment.get(REST, "")
    if not text:
        return Settings()
    try:
        return msgspec.json.decode(text, type=Settings)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise WindtunnelError(
            "E660",
            f"the variable {REST} cannot be read: {error}",
            hint=f"unset {REST}, or start with windtunnel serve --engine vllm",
            values={REST: text[:200]},
        ) from None


@cache
def cluster() -> Cluster:
    """The cards that ``WINDTUNNEL_ON`` names. Raises E101 to E109, E220."""
    settings = read()
    return parse_target(os.environ[ON], settings.overrides, [Path(folder) for folder in settings.chips])[0]
