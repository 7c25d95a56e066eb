import torch

scores = torch.randn(4096, 64, device="cuda")
best = scores.softmax(-1).mul(10).to(torch.int64).sum()
for _ in range(int(best)):
    scores = scores + 1
