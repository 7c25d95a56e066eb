"""Questions about pairs of handwritten digits, made from the pictures that scikit-learn ships.

A picture holds two digits side by side; the question asks for the left one, the right one or their sum; the
answer is two digits and an end mark. Nothing in the text tells the answer, and held-out pictures were never
seen, so that a model must look. 1,500 pictures train (2.25 million pairs), 297 evaluate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windtunnel.errors import WindtunnelError

TRAIN_PICTURES = 1500
SIDE = 32  # pixels of a digit after upsampling
PATCH, MERGE, FRAMES, CHANNELS = 8, 2, 2, 3
GRID = (1, SIDE // PATCH, 2 * SIDE // PATCH)  # frames, rows and columns of patches in a picture
VISUAL_TOKENS = GRID[1] * GRID[2] // MERGE**2

# The vocabulary: digits 0 to 9, then these.
END, ASK_LEFT, ASK_RIGHT, ASK_SUM, VISION_START, VISION_END, IMAGE, ANSWER = range(10, 18)
VOCABULARY = 24
QUESTIONS = (ASK_LEFT, ASK_RIGHT, ASK_SUM)
_PROMPT = VISUAL_TOKENS + 4  # start, picture, end, question, answer mark
IGNORED = -100  # label that the loss leaves out


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one step.

    Attributes:
        ids, labels: [batch, tokens]; labels are ``IGNORED`` outside the answer.
        pixels: [batch × patches, channels × frames × patch × patch], in the order Qwen3-VL's processor gives.
        grid: [batch, 3], patches of each picture.
        kinds: [batch, tokens], 1 where a token stands for a piece of picture.
    """

    ids: Tensor
    labels: Tensor
    pixels: Tensor
    grid: Tensor
    kinds: Tensor

    def to(self, device: str) -> Batch:
        """The same on a device."""
        return Batch(*(t.to(device) for t in (self.ids, self.labels, self.pixels, self.grid, self.kinds)))


class Digits:
    """The pictures and their digits, split for good.

    Raises:
        WindtunnelError: E718, scikit-learn is not installed.
    """

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise WindtunnelError(
                "E718",
                "digits-VQA takes its pictures from scikit-learn, which is not installed",
                hint="pip install 'windtunnel[workloads]'",
            ) from None
        shipped = load_digits()
        small = torch.tensor(shipped.images, dtype=torch.float32) / 8 - 1  # 0..16 → -1..1
        order = torch.randperm(len(small), generator=torch.Generator().manual_seed(20))
        large = torch.nn.functional.interpolate(small[order, None], (SIDE, SIDE), mode="bilinear")
        self.pictures = large[:, 0]
        self.labels = torch.tensor(shipped.target)[order]

    def training_batch(self, size: int, draw: torch.Generator) -> Batch:
        """Random pairs and questions."""
        pair = torch.randint(0, TRAIN_PICTURES, (size, 2), generator=draw)
        question = torch.randint(0, len(QUESTIONS), (size,), generator=draw)
        return self.batch(pair, question)

    def held_out(self, items: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        """Pairs [items, 2] and questions [items] about pictures that training never shows."""
        draw = torch.Generator().manual_seed(seed)
        pair = torch.randint(TRAIN_PICTURES, len(self.pictures), (items, 2), generator=draw)
        return pair, torch.arange(items) % len(QUESTIONS)

    def batch(self, pair: Tensor, question: Tensor) -> Batch:
        """Pictures, tokens and labels of pairs [size, 2] and questions [size]."""
        size = len(pair)
        left, right = self.labels[pair[:, 0]], self.labels[pair[:, 1]]
        value = torch.stack((left, right, left + right))[question, torch.arange(size)]
        answer = torch.stack((value // 10, value % 10, torch.full((size,), END)), 1)
        asked = torch.tensor(QUESTIONS)[question]
        start = torch.full((size, 1), VISION_START)
        images = torch.full((size, VISUAL_TOKENS), IMAGE)
        end = torch.full((size, 1), VISION_END)
        mark = torch.full((size, 1), ANSWER)
        ids = torch.cat((start, images, end, asked[:, None], mark, answer), 1)
        labels = torch.full_like(ids, IGNORED)
        labels[:, _PROMPT:] = answer
        pixels = _patches(torch.cat((self.pictures[pair[:, 0]], self.pictures[pair[:, 1]]), 2))
        grid = torch.tensor(GRID).expand(size, 3).contiguous()
        return Batch(ids, labels, pixels, grid, (ids == IMAGE).int())


def answered_right(logits: Tensor, batch: Batch) -> Tensor:
    """Whether all answer tokens are the most likely ones, [batch]: logits [batch, tokens, vocabulary]."""
    best = logits[:, _PROMPT - 1 : -1].argmax(-1)
    return (best == batch.labels[:, _PROMPT:]).all(1)


def _patches(pictures: Tensor) -> Tensor:
    """[size, rows, columns] → one row per patch, neighbours that merge standing together."""
    size = len(pictures)
    rows, columns = GRID[1] // MERGE, GRID[2] // MERGE
    cut = pictures.reshape(size, rows, MERGE, PATCH, columns, MERGE, PATCH).permute(0, 1, 4, 2, 5, 3, 6)
    cut = cut[:, :, :, :, :, None, None].expand(*cut.shape[:5], CHANNELS, FRAMES, PATCH, PATCH)
    return cut.reshape(-1, CHANNELS * FRAMES * PATCH * PATCH).contiguous()
