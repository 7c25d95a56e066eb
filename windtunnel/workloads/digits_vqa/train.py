"""Trains digits-VQA. An ordinary script: it knows nothing of virtual cards.

    python -m windtunnel.workloads.digits_vqa.train --device cpu --steps 250

``evaluate_items`` is what `windtunnel align` calls after training, by its default name.
"""

from __future__ import annotations

import argparse

import torch

from windtunnel.workloads.digits_vqa import data, model


def evaluate_items(network: torch.nn.Module, items: int = 768, size: int = 96) -> list[bool]:
    """Whether each held-out question is answered right."""
    device = str(next(network.parameters()).device)
    digits = data.Digits()
    pairs, questions = digits.held_out(items)
    right: list[bool] = []
    with torch.no_grad():
        for first in range(0, items, size):
            part = slice(first, first + size)
            batch = digits.batch(pairs[part], questions[part]).to(device)
            right += data.answered_right(model.call(network, batch).logits, batch).tolist()
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small Qwen3-VL to read two digits and add them.")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    digits = data.Digits()
    network = model.build(args.width, args.layers).to(args.device)
    optimizer = torch.optim.AdamW(network.parameters(), args.learning_rate, weight_decay=0.01)
    warmup = max(1, args.steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))
    draw = torch.Generator().manual_seed(args.seed + 1)
    for step in range(args.steps):
        batch = digits.training_batch(args.batch_size, draw).to(args.device)
        loss = model.call(network, batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 25 == 0 or step == args.steps - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    right = evaluate_items(network, 192)
    print(f"right {sum(right)} of {len(right)} held-out questions")


if __name__ == "__main__":
    main()
