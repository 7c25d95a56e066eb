import torch

blocks = [torch.empty(1 << 30, 10, device="cuda") for _ in range(8)]
