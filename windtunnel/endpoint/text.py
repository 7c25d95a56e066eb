"""Prompts as token counts and cache keys, and plausible words for answers. No tokenizer is needed.

A token is taken as four letters, which is about right for English text in common vocabularies; usage figures
of the endpoint are estimates in that sense. Keys chain over the rendered prompt, so two prompts share exactly
the blocks in which all letters so far are equal.
"""

from __future__ import annotations

import hashlib
import random

LETTERS_PER_TOKEN = 4
_WORDS = (
    "the plan covers each step and notes what was measured where it matters so the team can check every "
    "figure before the next review while open points stay listed with an owner and a date and results are "
    "kept in one place for later use"
).split()


def tokens_in(text: str) -> int:
    """Tokens of a text, estimated; at least 1."""
    return max(1, -(-len(text) // LETTERS_PER_TOKEN))


def block_keys(text: str, block_tokens: int, salt: str = "") -> tuple[int, ...]:
    """Chained keys of the text's full blocks and the part-filled last one; texts of other ``salt`` share none."""
    size = block_tokens * LETTERS_PER_TOKEN
    keys, state = [], hashlib.blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=8)
    for start in range(0, len(text), size):
        state.update(text[start : start + size].encode("utf-8", "surrogatepass"))
        keys.append(int.from_bytes(state.digest(), "big") >> 1)
    return tuple(keys)


def pieces(text: str) -> list[str]:
    """The text cut into pieces of one token each; joined they are the text."""
    return [text[at : at + LETTERS_PER_TOKEN] for at in range(0, len(text), LETTERS_PER_TOKEN)] or [""]


def drawn(seed: str, draw: int) -> str:
    """A seed for the ``draw``-th of several answers; the first one has the plain seed."""
    return f"{seed}#{draw}" if draw else seed


def words(count: int, seed: str) -> str:
    """About ``count`` tokens of plain English, the same for the same seed."""
    draw = random.Random(seed)
    out: list[str] = []
    letters = 0
    while letters < count * LETTERS_PER_TOKEN:
        out.append(draw.choice(_WORDS))
        letters += len(out[-1]) + 1
    text = " ".join(out)
    text = (text[:1].upper() + text[1:])[: max(1, count * LETTERS_PER_TOKEN - 1)].rstrip()
    return text + "."
