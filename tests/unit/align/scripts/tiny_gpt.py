"""A small language model that learns to repeat what it read. Knows nothing of windtunnel."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, PERIOD, LENGTH, TOKENS = 32, 5, 16, 16


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(TOKENS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, TOKENS)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.embed(ids) + self.position.weight)))


def sequences(count, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, TOKENS, (count, PERIOD), generator=draw).repeat(1, 4)[:, : LENGTH + 1]


def evaluate_items(model):
    ids = sequences(40, seed=99).to(next(model.parameters()).device)
    with torch.no_grad():
        best = model(ids[:, :-1])[:, -1].argmax(-1)
    return (best == ids[:, -1]).tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    args = parser.parse_args()
    model = Model().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    for step in range(args.steps):
        ids = sequences(8, seed=step).cuda()
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        print(step, loss.item())
