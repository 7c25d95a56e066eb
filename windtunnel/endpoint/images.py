"""Pictures in a request: their size, read from the data itself, and the tokens they become.

A picture is cut into patches, and ``merge`` patches become one token of the language model; its sides are first
rounded to whole groups of patches, and pictures outside a range of sizes are scaled into it, as the processors of
the Qwen-VL family do. A picture given by address is not fetched, and formats whose head is not known here (AVIF, BMP)
are not opened: these count as full-HD screenshots.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from windtunnel.endpoint.bodies import BadBody

UNSEEN = (1920, 1080)
KNOWN = ("png", "jpeg", "jpg", "gif", "webp")
OTHER_MEDIA = ("input_audio", "audio_url", "video_url", "file", "input_file")
HEAD = 1 << 20
"""Letters of the data that are read, a multiple of 4."""
PATCH = 16
TOKENS_MIN, TOKENS_MAX = 64, 16_384
"""Fewest and most tokens of one picture: 256² and about 4,096² points at groups of 32 × 32."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture of ``width`` × ``height`` points; ``seen``: read from its data, not assumed."""

    width: int
    height: int
    seen: bool = True

    def tokens(self, merge: int = 4, patch: int = PATCH) -> int:
        """Tokens of the language model: groups of ``merge`` patches."""
        side = patch * math.isqrt(merge)
        across, down = max(1, round(self.width / side)), max(1, round(self.height / side))
        if across * down > TOKENS_MAX or across * down < TOKENS_MIN:
            bound = TOKENS_MAX if across * down > TOKENS_MAX else TOKENS_MIN
            scale = math.sqrt(bound * side * side / (self.width * self.height))
            rounded = math.floor if scale < 1 else math.ceil
            across = max(1, rounded(self.width * scale / side))
            down = max(1, rounded(self.height * scale / side))
        return across * down


def images_in(messages: Iterable[Mapping[str, object]]) -> tuple[Image, ...]:
    """All pictures of a conversation, in order. Raises BadBody for data that is no picture, sounds, films and files."""
    found = []
    for message in messages:
        content = message.get("content")
        for part in cast("list[object]", content) if isinstance(content, list) else []:
            if isinstance(part, Mapping) and part.get("type") in OTHER_MEDIA:
                what = f"messages have a part of type {part.get('type')}: texts and pictures are taken"
                raise BadBody(what, "messages", code="unsupported_content")
            if isinstance(part, Mapping) and part.get("type") in ("image_url", "input_image"):
                address = part.get("image_url")
                if isinstance(address, Mapping):
                    address = address.get("url")
                found.append(_image(str(address or "")))
    return tuple(found)


def _image(address: str) -> Image:
    head, comma, body = address.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        return Image(*UNSEEN, seen=False)
    try:
        data = base64.b64decode("".join(body[: 2 * HEAD].split())[:HEAD], validate=True)
    except (binascii.Error, ValueError):
        raise _no_picture("its base64 cannot be read") from None
    if head.removeprefix("data:image/").partition(";")[0] not in KNOWN:
        return Image(*UNSEEN, seen=False)
    size = _size(data)
    if size is None and len(body) > HEAD:
        return Image(*UNSEEN, seen=False)  # its size stands further back than is read
    if size is None or not (0 < size[0] < 1 << 16 and 0 < size[1] < 1 << 16):
        raise _no_picture("its head says no width and height")
    return Image(*size)


def _no_picture(why: str) -> BadBody:
    return BadBody(f"a picture in the messages is none: {why}", "messages", code="invalid_image")


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG, GIF, JPEG or WebP."""
    try:
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return cast("tuple[int, int]", struct.unpack(">II", data[16:24]))
        if data[:4] in (b"GIF8",):
            return cast("tuple[int, int]", struct.unpack("<HH", data[6:10]))
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except struct.error:
        return None
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return width, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None
