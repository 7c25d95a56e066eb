"""Pictures in requests: size from their data, and tokens."""

from __future__ import annotations

import base64
import struct

import pytest

from windtunnel.endpoint.bodies import BadBody
from windtunnel.endpoint.images import UNSEEN, Image, images_in

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 800, 600)
GIF = b"GIF89a" + struct.pack("<HH", 320, 200)
JPEG = (
    b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"\0" * 14
    + b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 480, 640) + b"\0" * 10
)  # fmt: skip
WEBP = b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (1023).to_bytes(3, "little") + (767).to_bytes(3, "little")


def shown(data: bytes, kind: str) -> tuple[Image, ...]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return images_in([{"content": [{"type": "image_url", "image_url": {"url": url}}]}])


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (PNG, "png", (800, 600)),
        (GIF, "gif", (320, 200)),
        (JPEG, "jpeg", (640, 480)),
        (WEBP, "webp", (1024, 768)),
    ],
)
def test_sizes_come_from_the_data(data: bytes, kind: str, size: tuple[int, int]) -> None:
    assert shown(data, kind) == (Image(*size),)


@pytest.mark.parametrize(
    "address", ["https://x/y.png", "", "data:image/avif;base64,AAAA", "data:image/png;charset=x,AAAA"]
)
def test_unseen_pictures_count_as_full_hd(address: str) -> None:
    (image,) = images_in([{"content": [{"type": "input_image", "image_url": address}]}])
    assert image == Image(*UNSEEN, seen=False)


@pytest.mark.parametrize("data", ["!!!", "AAAA", "iVBORw0KGgo=", "AAAAA"])
def test_data_that_is_no_picture_is_refused(data: str) -> None:
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    with pytest.raises(BadBody) as refused:
        images_in([{"content": [part]}])
    assert (refused.value.code, refused.value.param) == ("invalid_image", "messages")


def test_data_may_be_broken_into_lines() -> None:
    text = base64.b64encode(PNG).decode()
    lines = "\n".join(text[at : at + 20] for at in range(0, len(text), 20))
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{lines}"}}
    assert images_in([{"content": [part]}])[0].seen


@pytest.mark.parametrize(
    ("size", "tokens"),
    [((1920, 1080), 60 * 34), ((800, 600), 25 * 19), ((32, 32), 64), ((10_000, 10_000), 128 * 128)],
)
def test_tokens_are_groups_of_patches_within_bounds(size: tuple[int, int], tokens: int) -> None:
    assert Image(*size).tokens() == tokens
