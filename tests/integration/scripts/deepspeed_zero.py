"""DeepSpeed ZeRO: the stage is the first argument."""

import sys

import deepspeed
import torch
from torch import nn

model = nn.Sequential(nn.Embedding(1000, 512), *[nn.Linear(512, 512) for _ in range(4)])
settings = {
    "train_micro_batch_size_per_gpu": 4,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    "zero_optimization": {"stage": int(sys.argv[1])},
    "bf16": {"enabled": True},
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
for _ in range(2):
    ids = torch.randint(0, 1000, (4, 128), device="cuda")
    loss = engine(ids).float().mean()
    engine.backward(loss)
    engine.step()
