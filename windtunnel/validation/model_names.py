"""Models as published tables spell them, and their names in the catalogue."""

from __future__ import annotations

import re
from functools import lru_cache

from windtunnel.errors import WindtunnelError
from windtunnel.recipes.architecture import Architecture
from windtunnel.recipes.from_spec import architecture_of
from windtunnel.specs.model_catalogue import shipped_model

# the first that matches; spaces, dashes, dots and underscores between words do not matter
_SPELLINGS = (
    (r"llama ?7b", "llama2-7b"),  # the same shapes as the second generation's
    (r"llama ?33b", "llama-33b"),
    (r"falcon ?180b", "falcon-180b"),
    (r"gpt ?j ?6b", "gptj-6b"),
    (r"mistral ?7b", "mistral-7b"),
    (r"llama ?2 ?7b", "llama2-7b"),
    (r"llama ?2 ?13b", "llama2-13b"),
    (r"llama ?2 ?70b", "llama2-70b"),
    (r"llama ?4 ?scout", "llama4-scout"),
    (r"llama ?4 ?maverick", "llama4-maverick"),
    (r"llama ?3( ?1)? ?405b", "llama3.1-405b"),
    (r"llama ?3( ?[123])? ?70b", "llama3-70b"),
    (r"llama ?3( ?[123])? ?8b", "llama3-8b"),
    (r"gpt ?3 ?175b", "gpt3-175b"),
    (r"gpt ?3 ?20b", "gpt3-20b"),
    (r"gpt ?3 ?5b", "gpt3-5b"),
    (r"gpt ?oss ?120b", "gpt-oss-120b"),
    (r"gpt ?oss ?20b", "gpt-oss-20b"),
    (r"deepseek ?(v3|r1)", "deepseek-v3-671b"),
    (r"deepseek ?v2", "deepseek-v2-236b"),
    (r"deepseek ?v4", "deepseek-v4-flash"),
    (r"qwen ?3 ?(moe ?)?30b", "qwen3-30b-a3b"),
    (r"qwen ?3 ?(moe ?)?235b", "qwen3-235b-a22b"),
    (r"qwen ?3 ?8b", "qwen3-8b"),
    (
        r"qwen ?3 ?[56] ?35b",
        "qwen3.5-35b-a3b",
    ),  # 3.6 keeps the shapes of 3.5 (both checkpoints' configurations)
    (r"qwen ?3 ?[568] ?27b", "qwen3.5-27b"),  # 3.8 taken for the same shapes
    (r"qwen ?3 ?5 ?397b", "qwen3.5-397b-a17b"),
    (r"nemotron ?3 ?5 ?lightning", "nemotron3.5-lightning-30b-a3b"),
    (r"qwen ?2 ?5 ?7b", "qwen2.5-7b"),
    (r"qwen ?2 ?5 ?32b", "qwen2.5-32b"),
    (r"nemotron ?4 ?15b|nemotron ?15b", "nemotron4-15b"),
    (r"nemotron ?4 ?340b|nemotron ?340b", "nemotron4-340b"),
    (r"nemotron ?22b", "nemotron-22b"),
    (r"nemotron ?(3 ?)?8b", "nemotron3-8b"),
    (r"nemotron ?h ?56b", "nemotron-h-56b"),
    (r"nemotron ?(v3|3) ?nano", "nemotron3-nano-30b-a3b"),
    (r"nemotron ?(v3|3) ?super", "nemotron3-super-120b-a12b"),
    (r"nemotron ?(v3|3) ?ultra", "nemotron3-ultra-550b-a55b"),
    (r"grok ?1", "grok-1"),
    (r"mixtral ?8x7b", "mixtral-8x7b"),
    (r"mixtral ?8x22b", "mixtral-8x22b"),
    (r"kimi ?k2", "kimi-k2"),
)


def catalogue_name(text: str) -> str | None:
    """The catalogue's name of a model by its published name; None where no spelling is known."""
    words = re.sub(r"[\s._-]+", " ", text.lower()).strip()
    return next((name for pattern, name in _SPELLINGS if re.search(pattern, words)), None)


@lru_cache(maxsize=256)
def architecture_named(text: str) -> Architecture | None:
    """The architecture of a model by its published name; None where the catalogue does not have it."""
    name = catalogue_name(text)
    try:
        return None if name is None else architecture_of(shipped_model(name))
    except WindtunnelError:
        return None
