import torch

torch.ones(4, 4, device="cuda") @ torch.ones(4, 4, device="cuda", dtype=torch.bfloat16)
