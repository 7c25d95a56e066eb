"""/v1/embeddings: vectors of hashed words, so that texts which share words lie near each other.

Agents with a memory need them to go on. No embedding model is served, so this takes no time on the cards and says
nothing about what one would cost.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
import struct
from typing import Any

from windtunnel.endpoint import bodies
from windtunnel.endpoint.bodies import BadBody, EmbeddingBody
from windtunnel.endpoint.text import tokens_in

DIMENSIONS = 1536
_WORD = re.compile(r"\w+")


def answer(raw: bytes, model: str) -> dict[str, object]:
    """The whole body of the answer to a body of /v1/embeddings. Raises BadBody."""
    body = bodies.read(raw, EmbeddingBody)
    texts = _inputs(body.input)
    size, form = body.dimensions or DIMENSIONS, body.encoding_format or "float"
    data = []
    for index, (text, _) in enumerate(texts):
        found = vector(text, size)
        packed: object = base64.b64encode(struct.pack(f"<{size}f", *found)).decode()
        data.append(
            {"object": "embedding", "index": index, "embedding": packed if form == "base64" else found}
        )
    tokens = sum(count for _, count in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body.model or model, "usage": usage}


def vector(text: str, size: int) -> list[float]:
    """Unit vector: every word adds or takes one at a place that its hash names."""
    found = [0.0] * size
    for word in _WORD.findall(text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        found[(number >> 1) % size] += 1.0 if number & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in found))
    return [value / norm for value in found] if norm else [1.0] + [0.0] * (size - 1)


def _inputs(given: str | list[Any]) -> list[tuple[str, int]]:
    """Texts and their tokens: as many as ids where ids came, else estimated."""
    if isinstance(given, str):
        return [(given, tokens_in(given))]
    if bodies.token_ids(given) is not None:
        given = [given]
    texts = []
    for index, one in enumerate(given):
        ids = bodies.token_ids(one)
        text = one if ids is None else " ".join(map(str, ids))
        if not isinstance(text, str) or not text:
            raise BadBody(f"input[{index}] must be a text or a list of token ids", f"input[{index}]")
        texts.append((text, tokens_in(text) if ids is None else len(ids)))
    return texts
