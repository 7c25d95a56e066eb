"""Trains a digit classifier on wide rectified features: the inner dimension where accumulators show.

    python -m windtunnel.workloads.wide_digits --device cpu --width 8192

Products with K up to about 1,000 come out alike from every accumulator in use. Here the second layer sums 8,192
products of activations that are never negative, so that an accumulator which truncates errs one way and the
errors add up. ``evaluate_items`` is what `windtunnel align` calls after training.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from windtunnel.errors import WindtunnelError

TRAIN_PICTURES = 1500


class Wide(nn.Module):
    """64 pixels → ``width`` rectified features, averaged in weight → 64 → 10 classes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features, self.mixed, self.head = nn.Linear(64, width), nn.Linear(width, 64), nn.Linear(64, 16)
        with torch.no_grad():
            self.mixed.weight.abs_()  # sums of one sign, as attention's weighted means are

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [batch, 16] (10 classes, padded to what FP8 products take) of pixels [batch, 64]."""
        mixed = self.mixed(torch.relu(self.features(pixels)))
        result: Tensor = self.head(torch.tanh(mixed - mixed.mean(-1, keepdim=True)))
        return result


def digits() -> tuple[Tensor, Tensor]:
    """Pixels [1797, 64] from -1 to 1 and labels, in one fixed order. Raises E718 without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise WindtunnelError(
            "E718",
            "wide-digits takes its pictures from scikit-learn, which is not installed",
            hint="pip install 'windtunnel[workloads]'",
        ) from None
    shipped = load_digits()
    order = torch.randperm(len(shipped.target), generator=torch.Generator().manual_seed(20))
    pixels = torch.tensor(shipped.data, dtype=torch.float32) / 8 - 1
    return pixels[order], torch.tensor(shipped.target)[order]


def evaluate_items(model: nn.Module) -> list[bool]:
    """Whether each of the 297 held-out pictures is told right."""
    pixels, labels = digits()
    device = next(model.parameters()).device
    with torch.no_grad():
        told = model(pixels[TRAIN_PICTURES:].to(device)).argmax(-1).cpu()
    return [bool(right) for right in told == labels[TRAIN_PICTURES:]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a wide classifier of handwritten digits.")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    pixels, labels = digits()
    model = Wide(args.width).to(args.device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    draw = torch.Generator().manual_seed(args.seed + 1)
    for step in range(args.steps):
        chosen = torch.randint(0, TRAIN_PICTURES, (args.batch_size,), generator=draw)
        logits = model(pixels[chosen].to(args.device))
        loss = nn.functional.cross_entropy(logits, labels[chosen].to(args.device))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == args.steps - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    right = evaluate_items(model)
    print(f"right {sum(right)} of {len(right)} held-out pictures")


if __name__ == "__main__":
    main()
